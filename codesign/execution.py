"""Running a compiled model on this computer: kernels in Triton's interpreter or on the simulated accelerator, the rest in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from codesign.backend import Backend
from codesign.backends.verification import difference, tolerance_of
from codesign.document import Verified
from codesign.frontend import Captured, ModelSource
from codesign.frontend.externals import externals
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.passes.lowering import KernelInfo


def run(captured: Captured, tiled: Module, backend: Backend, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the compiled model returns for inputs of the original model."""
    arrays = captured.flatten_inputs(args, kwargs)
    results = evaluate(tiled, arrays, externals=externals(tiled), launcher=backend.launcher())
    return captured.unflatten_outputs(results)


def fresh_inputs(source: ModelSource, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs like the model's own with other values: floats are drawn anew, integers and bools shuffled (they stay in range)."""
    generator = torch.Generator().manual_seed(seed)

    def redraw(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if leaf.is_floating_point():
            return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
        return leaf.flatten()[torch.randperm(leaf.numel(), generator=generator)].reshape(leaf.shape)

    return pytree.tree_map(redraw, source.inputs), pytree.tree_map(redraw, source.kwargs)


def tolerance(kernels: Mapping[str, KernelInfo], sizes: Mapping[str, int]) -> float:
    """Allowed error of a whole model, relative to |expected| + rms(expected): errors of its kernels add as independent ones do.

    The square root of the sum over launches of the squared tolerance of each kernel (see `backends.verification.tolerance`).
    """
    total = sum(info.count * tolerance_of(info.normalized.fusion, sizes) ** 2 for info in kernels.values())
    return math.sqrt(total) if total else 1e-6


def verify(
    source: ModelSource,
    captured: Captured,
    tiled: Module,
    kernels: Mapping[str, KernelInfo],
    backend: Backend,
    sizes: Mapping[str, int],
    seed: int,
) -> Verified:
    """The compiled model against torch on fresh random inputs."""
    args, kwargs = fresh_inputs(source, seed)
    with torch.no_grad():
        expected = pytree.tree_leaves(source.model(*args, **kwargs))
    actual = pytree.tree_leaves(run(captured, tiled, backend, args, kwargs))
    worst, ok, note = 0.0, True, ""
    allowed = tolerance(kernels, sizes)
    for position, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
        if not isinstance(wanted, torch.Tensor):
            continue
        e, a = _numbers(wanted), _numbers(got)
        if wanted.is_floating_point():
            error, text = difference(e, a)
        else:
            error, text = (0.0, "") if np.array_equal(e, a) else (math.inf, f"{int((e != a).sum())} integers differ")
        if not error <= allowed:
            ok, note = False, f"output {position}: {text}"
        worst = max(worst, error)
    return Verified(
        against="torch", max_error=worst if math.isfinite(worst) else None, tolerance=allowed, ok=ok, note=note
    )


def _numbers(tensor: torch.Tensor) -> Any:
    plain = tensor.detach().cpu()
    return (plain.double() if plain.is_floating_point() else plain).numpy()
