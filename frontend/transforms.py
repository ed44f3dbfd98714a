"""Models that transform functions (`torch.func.grad`, `vmap`, ...) while they run: torch.export keeps the transforms and can't take its own graph
apart again, where `make_fx` does them and records the operators that are left."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from codesign.frontend.load import ModelSource
from codesign.frontend.training import TrainingStep, place_parts
from codesign.ir.errors import CodesignError

HOLDER = "model"
"""The attribute in which `OperatorsRun` holds what it has recorded."""


class OperatorsRun(torch.nn.Module):
    """The operators that one call of a model runs on tensors of given shapes; a choice by data, which others may fall otherwise, is an error
    of torch. Of a step of training it gives what the step writes too, as results."""

    def __init__(self, source: ModelSource) -> None:
        super().__init__()
        leaves, structure = pytree.tree_flatten((source.inputs, dict(source.kwargs)))
        self.places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        run = source.model.changes if isinstance(source.model, TrainingStep) else source.model

        def call(*tensors: torch.Tensor) -> Any:
            given = list(leaves)
            for place, tensor in zip(self.places, tensors, strict=True):
                given[place] = tensor
            args, kwargs = pytree.tree_unflatten(given, structure)
            with _PlainZeros():
                return run(*args, **kwargs)

        named = source.model if source.trained is None else source.trained
        call._orig_mod = named  # type: ignore[attr-defined]  # whose modules' paths are recorded
        trace = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True, record_module_stack=True)
        with preserve_node_meta(), torch.backends.mkldnn.flags(enabled=False):  # whose layers are one operator
            traced = trace(*(leaves[place] for place in self.places))
        if source.trained is not None:
            place_parts(traced.graph)
        self.model = _with_names_of(source.model, traced)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        with preserve_node_meta():  # the places in the user's source
            return Interpreter(self.model).run(*(leaves[place] for place in self.places))


_OF_ZEROS = (
    "alias",
    "t",
    "transpose",
    "permute",
    "view",
    "_unsafe_view",
    "expand",
    "unsqueeze",
    "squeeze",
    "clone",
    "_to_copy",
    "neg",
)
"""Operators that give zeros of zeros; those that are missing only let a product with zeros stay."""

_PRODUCTS = ("mm", "bmm", "mv", "convolution")


class _PlainZeros(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Zeros in memory for the derivatives of what does not change, which forward mode has as tensors without any, where tensors without values
    can't follow; and no products with them, which would be zeros."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.zeros = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._efficientzerotensor.default:
            func = torch.ops.aten.zeros.default
            return self._noted(func(*args, **(kwargs or {})))
        if func is torch.ops.aten._new_zeros_with_same_feature_meta.default:  # written to later, so not noted
            like, other, *batched = args
            count = (kwargs or {}).get("self_num_batch_dims", batched[0] if batched else 0)
            return torch.zeros((*like.shape[:count], *other.shape), dtype=other.dtype, device=other.device)
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in _OF_ZEROS and args[0] in self.zeros:
            return self._noted(result)
        if name in _PRODUCTS and any(operand in self.zeros for operand in args[:2]) and _no_bias(args):
            return self._noted(torch.zeros(result.shape, dtype=result.dtype, device=result.device))
        return result

    def _noted(self, result: Any) -> Any:
        self.zeros[result] = True
        return result


def _no_bias(args: Sequence[Any]) -> bool:
    return len(args) < 3 or args[2] is None


def _with_names_of(model: torch.nn.Module, traced: GraphModule) -> GraphModule:
    """A traced call whose weights are named as the model names them."""
    registered = itertools.chain(model.named_parameters(), model.named_buffers())
    names = {id(tensor): name for name, tensor in registered}
    held: dict[str, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            found = getattr(traced, node.target)
            node.target = names.get(id(found), node.target)
            held[node.target] = found
    return GraphModule(held, traced.graph)


def asks_for_gradients(error: BaseException) -> bool:
    """Whether torch's reason is that it does not record what gradients are taken of: a model that takes some itself needs that it does."""
    return "does not require grad" in str(error)


def by_operators_run(
    source: ModelSource, dynamic_shapes: Any, gradients: bool = False
) -> tuple[ExportedProgram, set[str]]:
    """The program of the operators that the model runs, and the names of its weights, none of which it may write: they have lost their own.

    `gradients`: torch records what they are taken of while the model runs, and the operators that make them are among those of the program.
    """
    if dynamic_shapes is not None:
        raise CodesignError("make_fx knows the shapes of the example only")
    with torch.set_grad_enabled(gradients):
        traced = OperatorsRun(source)
    program = torch.export.export(traced, source.inputs, source.kwargs or None, strict=False)
    return program, set(program.state_dict) | set(program.constants)
