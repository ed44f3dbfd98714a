"""Gradients of windows, resizing, grids, pooling and normalised weights: torch's, by operators of the IR alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codesign.frontend import capture
from codesign.frontend.load import FunctionModule, ModelSource
from codesign.frontend.training import TrainingStep, trained
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call, Scatter

GRID = torch.rand(2, 3, 4, 2, generator=torch.Generator().manual_seed(3)) * 3 - 1.5
GRID3 = torch.rand(1, 2, 3, 2, 3, generator=torch.Generator().manual_seed(4)) * 3 - 1.5


def resized(
    mode: str, size: tuple[int, ...], scale: float | tuple[float, ...] | None = None, **rest: bool
) -> Callable[..., Tensor]:
    if scale is None:
        return lambda x: F.interpolate(x, size=size, mode=mode, **rest)
    return lambda x: F.interpolate(x, scale_factor=scale, mode=mode, **rest)


MAPS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "linear": (resized("linear", (11,)), (torch.randn(2, 3, 5),)),
    "bilinear to more": (resized("bilinear", (10, 9)), (torch.randn(2, 3, 5, 4),)),
    "bilinear to fewer": (resized("bilinear", (3, 2)), (torch.randn(2, 3, 7, 9),)),
    "bilinear by a factor": (resized("bilinear", (), 1.7), (torch.randn(1, 2, 5, 7),)),
    "bilinear by two factors": (resized("bilinear", (), (0.6, 2.0)), (torch.randn(1, 2, 5, 7),)),
    "bilinear corners": (resized("bilinear", (9, 1), align_corners=True), (torch.randn(2, 2, 5, 4),)),
    "bilinear of one": (resized("bilinear", (4, 3)), (torch.randn(2, 2, 1, 1),)),
    "trilinear": (resized("trilinear", (4, 5, 3)), (torch.randn(1, 2, 2, 3, 5),)),
    "bicubic": (resized("bicubic", (7, 9)), (torch.randn(1, 2, 5, 4),)),
    "bicubic onto places": (resized("bicubic", (9, 15)), (torch.randn(1, 2, 3, 5),)),
    "bicubic corners onto places": (resized("bicubic", (13, 9), align_corners=True), (torch.randn(1, 2, 7, 5),)),
    "bicubic corners": (resized("bicubic", (3, 9), align_corners=True), (torch.randn(1, 2, 5, 4),)),
    "nearest 1d": (resized("nearest", (7,)), (torch.randn(2, 2, 5),)),
    "nearest": (resized("nearest", (), 2.0), (torch.randn(2, 2, 5, 4),)),
    "nearest to fewer": (resized("nearest", (3, 5)), (torch.randn(2, 2, 8, 7),)),
    "nearest 3d": (resized("nearest", (3, 5, 4)), (torch.randn(1, 2, 2, 3, 4),)),
    "nearest exact": (resized("nearest-exact", (7, 3)), (torch.randn(2, 2, 5, 4),)),
    "mean pool": (lambda x: F.avg_pool2d(x, 2), (torch.randn(2, 3, 6, 8),)),
    "mean pool, padded": (
        lambda x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 1), ceil_mode=True),
        (torch.randn(2, 3, 6, 8),),
    ),
    "mean pool, inside": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        (torch.randn(2, 3, 6, 8),),
    ),
    "mean pool, divided": (lambda x: F.avg_pool2d(x, 3, 1, divisor_override=5), (torch.randn(3, 6, 8),)),
    "mean pool with gaps": (lambda x: F.avg_pool1d(x, 2, 3), (torch.randn(2, 3, 9),)),
    "mean pool 3d": (lambda x: F.avg_pool3d(x, 2, 2, 1), (torch.randn(1, 2, 4, 4, 6),)),
    "adaptive mean": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (torch.randn(2, 2, 7, 8),)),
    "adaptive mean to more": (lambda x: F.adaptive_avg_pool2d(x, (9, 5)), (torch.randn(2, 2, 7, 3),)),
    "adaptive mean 3d": (lambda x: F.adaptive_avg_pool3d(x, (2, 1, 3)), (torch.randn(1, 2, 3, 4, 5),)),
    "edges repeated": (lambda x: F.pad(x, (2, 1), mode="replicate"), (torch.randn(2, 3, 5),)),
    "edges of images": (lambda x: F.pad(x, (2, 0, 1, 3), mode="replicate"), (torch.randn(2, 3, 4, 5),)),
    "edges cut": (lambda x: F.pad(x, (-1, 2, 1, -2), mode="replicate"), (torch.randn(2, 3, 4, 5),)),
    "normalised weights": (lambda v, g: torch._weight_norm(v, g, 0), (torch.randn(4, 3, 2), torch.rand(4, 1, 1) + 1)),
    "normalised by the last": (
        lambda v, g: torch._weight_norm(v, g, 2),
        (torch.randn(4, 3, 2), torch.rand(1, 1, 2) + 1),
    ),
    "hard shrink": (lambda x: F.hardshrink(x, 0.5), (torch.tensor([-1.0, -0.5, 0.2, 0.5, 2.0]),)),
    "soft shrink": (lambda x: F.softshrink(x, 0.5), (torch.tensor([-1.0, -0.5, 0.2, 0.5, 2.0]),)),
}
"""Functions of tensors that all ask for gradients: theirs are sums of what touches each place, nothing is added to memory."""

ADDED: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "greatest of 3d": (lambda x: F.max_pool3d(x, 2, 1), (torch.randn(1, 2, 3, 4, 4),)),
    "adaptive greatest": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), (torch.randn(2, 2, 5, 7),)),
    "adaptive greatest of 3d": (lambda x: F.adaptive_max_pool3d(x, 2), (torch.randn(1, 2, 3, 5, 4),)),
    **{
        f"grid, {mode}, {padding}, {'corners' if align else 'edges'}": (
            lambda x, g, mode=mode, padding=padding, align=align: F.grid_sample(x, g, mode, padding, align),
            (torch.randn(2, 3, 5, 4), GRID),
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    },
    "grid 3d": (lambda x, g: F.grid_sample(x, g, "bilinear", "border", False), (torch.randn(1, 2, 3, 4, 3), GRID3)),
}
"""The same where data says what is touched: its gradients are added where it was read."""


@pytest.mark.parametrize("name", [*MAPS, *ADDED])
def test_gradients_are_torchs(name: str) -> None:
    function, inputs = {**MAPS, **ADDED}[name]
    given = tuple(x.clone().requires_grad_() for x in inputs)
    source = trained(ModelSource(FunctionModule(function), given))
    captured = capture(source)
    kinds = {type(op) for op in captured.module.main.body.walk()}
    assert Call not in kinds
    assert (Scatter in kinds) == (name in ADDED)
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs(given)))
    assert isinstance(source.model, TrainingStep)
    (after,) = source.model.following
    wanted = torch.autograd.grad(function(*given), given, after)
    for place, gradient in enumerate(wanted):
        torch.testing.assert_close(found["gradients"][f"input {place}"], gradient, rtol=2e-5, atol=1e-6)


def test_no_more_is_gathered_than_touches() -> None:
    """Twice as large: four outputs touch a place along each dim, and two halves of it one."""

    def gathered(function: Callable[[Tensor], Tensor], x: Tensor) -> list[int]:
        captured = capture(trained(ModelSource(FunctionModule(function), (x.requires_grad_(),))))
        ops = [op for op in captured.module.main.body.walk() if getattr(op, "monoid", "") == "sum"]
        return [dim.extent.constant for dim in ops[-1].reductions]  # type: ignore[attr-defined]

    assert gathered(resized("bilinear", (), 2.0), torch.randn(1, 1, 6, 8)) == [4, 4]
    assert gathered(lambda x: F.avg_pool2d(x, 2), torch.randn(1, 1, 6, 8)) == [1, 1]
    assert gathered(lambda x: F.avg_pool2d(x, 3, 2), torch.randn(1, 1, 7, 9)) == [2, 2]
