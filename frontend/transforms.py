"""Models that transform functions (`torch.func.grad`, `vmap`, ...) while they run: torch.export keeps the transforms and can't take its own graph
apart again, where `make_fx` does them and records the operators that are left."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from codesign.frontend.load import ModelSource
from codesign.ir.errors import CodesignError


class OperatorsRun(torch.nn.Module):
    """The operators that one call of a model runs on tensors of given shapes; a choice by data, which others may fall otherwise, is an error
    of torch."""

    def __init__(self, source: ModelSource) -> None:
        super().__init__()
        leaves, structure = pytree.tree_flatten((source.inputs, dict(source.kwargs)))
        self.places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

        def call(*tensors: torch.Tensor) -> Any:
            given = list(leaves)
            for place, tensor in zip(self.places, tensors, strict=True):
                given[place] = tensor
            args, kwargs = pytree.tree_unflatten(given, structure)
            return source.model(*args, **kwargs)

        trace = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True)
        self.traced = trace(*(leaves[place] for place in self.places))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        return self.traced(*(leaves[place] for place in self.places))


def by_operators_run(source: ModelSource, dynamic_shapes: Any) -> tuple[ExportedProgram, set[str]]:
    """The program of the operators that the model runs, and the names of its weights, none of which it may write: they have lost their own."""
    if dynamic_shapes is not None:
        raise CodesignError("make_fx knows the shapes of the example only")
    traced = OperatorsRun(source)
    program = torch.export.export(traced, source.inputs, source.kwargs or None, strict=False)
    return program, set(program.state_dict) | set(program.constants)
