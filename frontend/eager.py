"""What torch itself makes of a model: results, inputs and buffers that were written, and the model as it was afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from codesign.frontend.capture import Captured
from codesign.frontend.draws import drawn_alike
from codesign.frontend.inputs import cloned, other_seed
from codesign.frontend.load import Arguments, ModelSource
from codesign.frontend.rounding import products_rounded
from codesign.frontend.ties import first_of_equals
from codesign.frontend.transforms import asks_for_gradients
from codesign.ir.tensor import Random, Sort


@dataclass
class Values:
    """What a run left behind, by name: `output 0`, `input x`, `buffer bn.running_mean`.

    Inputs and buffers are there when the run wrote one of their kind.
    """

    outputs: dict[str, Any]
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    state: dict[str, torch.Tensor] = field(default_factory=dict)

    def nan_share(self) -> float:
        """The share of NaN among the floats of the outputs."""
        tensors = [v for v in self.outputs.values() if isinstance(v, torch.Tensor)]
        floats = [v if v.is_complex() else v.float() for v in tensors if v.is_floating_point() or v.is_complex()]
        total = sum(v.numel() for v in floats)
        return sum(int(v.isnan().sum()) for v in floats) / total if total else 0.0


def run_rounded(source: ModelSource, captured: Captured, arguments: Arguments) -> Values | None:
    """The same with products rounded as torch lets matrix units round them; None where it lets them keep all bits."""
    mode = products_rounded()
    if mode is None:
        return None
    with mode:
        return run_eager(source, captured, arguments)


def run_eager(source: ModelSource, captured: Captured, arguments: Arguments) -> Values:
    """The model called by torch on a copy of the inputs; its buffers are as before when this returns. Of equals the first is taken, and random
    numbers are those of the compiler's generator. Without gradients, but where the model takes some itself."""
    try:
        return _run(source, captured, arguments, gradients=False)
    except RuntimeError as error:
        if not asks_for_gradients(error):
            raise
    return _run(source, captured, arguments, gradients=True)


def _run(source: ModelSource, captured: Captured, arguments: Arguments, gradients: bool) -> Values:
    args, kwargs = cloned(arguments)
    leaves = captured.flatten_tensors(args, kwargs)
    versions = [_version(leaf) for leaf in leaves]
    kinds = {type(op) for op in captured.module.main.body.walk()}
    order = first_of_equals() if Sort in kinds else nullcontext()
    numbers = drawn_alike() if Random in kinds else nullcontext()
    recorded = torch.set_grad_enabled(gradients)
    with recorded, _state_kept(source.model, captured) as written, other_seed(0), order, numbers:
        outputs = pytree.tree_leaves(source.model(*args, **kwargs))
        values = Values({f"output {k}": _copy(value) for k, value in enumerate(outputs)})
        values.state = {name: _copy(tensor) for name, tensor in written()}
    if [_version(leaf) for leaf in leaves] != versions:
        values.inputs = {f"input {n}": _copy(leaf) for n, leaf in zip(captured.input_names, leaves, strict=True)}
    return values


def run_wide(source: ModelSource, captured: Captured, arguments: Arguments) -> Values | None:
    """The same with float64 for wider floats than 8 bits (and complex128), on a copy of the model; None where torch can't."""

    def wide(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.is_complex():
            return leaf.to(torch.complex128)
        floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.element_size() > 1
        return leaf.double() if floating else leaf

    default = torch.get_default_dtype()
    try:
        model = copy.deepcopy(source.model).double()
        model._apply(lambda tensor: tensor.to(torch.complex128) if tensor.is_complex() else tensor)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(torch.float64)
        return run_eager(ModelSource(model, ()), captured, pytree.tree_map(wide, cloned(arguments)))
    except Exception:
        return None
    finally:
        torch.set_default_dtype(default)


@contextmanager
def _state_kept(model: torch.nn.Module, captured: Captured) -> Iterator[Any]:
    """Puts buffers, and parameters that the model writes, back; gives a function that names those written since, with their values."""
    owners = {name: (module, key) for name, module, key in _slots(model, captured)}
    before = {name: _slot(*owner) for name, owner in owners.items()}
    kept = {name: (tensor.detach().clone(), _version(tensor)) for name, tensor in before.items()}

    def changed(name: str) -> bool:
        now = _slot(*owners[name])
        return now is not before[name] or _version(now) != kept[name][1]

    def written() -> list[tuple[str, torch.Tensor]]:
        return [(name, _slot(*owners[name])) for name in owners if changed(name)]

    try:
        yield written
    finally:
        with torch.no_grad():
            for name, (module, key) in owners.items():
                if changed(name):
                    table = module._buffers if key in module._buffers else module._parameters
                    table[key] = before[name]  # type: ignore[assignment]
                    before[name].copy_(kept[name][0])


def _slots(model: torch.nn.Module, captured: Captured) -> Iterator[tuple[str, torch.nn.Module, str]]:
    """Name, owner and key of each tensor that may be written."""
    parameters = {m.name for m in captured.mutations if m.kind == "parameter"}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for key, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                yield prefix + key, module, key
        for key in module._parameters:
            if prefix + key in parameters:
                yield prefix + key, module, key


def _slot(module: torch.nn.Module, key: str) -> torch.Tensor:
    found = module._buffers[key] if key in module._buffers else module._parameters[key]
    assert found is not None
    return found


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written in place; -1 for those of inference mode, which don't count."""
    return -1 if tensor.is_inference() else tensor._version


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
