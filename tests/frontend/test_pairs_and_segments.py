"""Distances of pairs, margins, segments, antialiased images, special functions: values and gradients are torch's, by operators of the IR alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import special
from torch import Tensor
from torch.nn import functional as F

from codesign.compiler import Options
from codesign.compiler import compile as compile_model
from codesign.costmodel.machine import load_machine
from codesign.frontend import capture
from codesign.frontend.load import FunctionModule, ModelSource
from codesign.frontend.training import TrainingStep, trained
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call
from tests.frontend.checks import Of, assert_close, check, run

NEAR = {
    torch.float64: (1e-10, 1e-12),
    torch.float32: (3e-5, 1e-6),
    torch.float16: (3e-3, 1e-4),
    torch.bfloat16: (2e-2, 1e-3),
}
"""Relative and absolute, of sums of some ten terms."""

LENGTHS = torch.tensor([2, 0, 3, 1])
BATCHED = torch.tensor([[2, 1, 2], [0, 4, 1]])
LISTS = torch.tensor([[1, 0, -1, 0], [3, -1, 0, 0], [0, 1, 2, 3], [-1, 0, 0, 0], [2, 2, -1, 1]])
Case = tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]


def segments(kind: str, initial: float | None = None) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.segment_reduce(x, kind, lengths=LENGTHS, axis=0, initial=initial)


def by_offsets(kind: str) -> Callable[[Tensor], Tensor]:
    offsets = torch.tensor([0, 2, 2, 6])
    return lambda x: torch.segment_reduce(x, kind, offsets=offsets, axis=0, initial=0.5)


def antialiased(mode: str, size: tuple[int, int], **rest: bool) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, size=size, mode=mode, antialias=True, **rest)


GRADIENTS: dict[str, Case] = {
    **{
        f"distances, {p}": (lambda x, y, p=p: torch.cdist(x, y, p), ((2, 4, 3), (2, 5, 3)))
        for p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
    },
    "distances of one set to many": (lambda x, y: torch.cdist(x, y, 1.5), ((4, 3), (3, 5, 3))),
    **{f"pairs, {p}": (lambda x, p=p: F.pdist(x, p), ((7, 3),)) for p in (0.0, 1.0, 1.5, 2.0, 3.0, math.inf)},
    "pair": (F.pdist, ((2, 3),)),
    "margin": (lambda x: F.multi_margin_loss(x, torch.tensor([1, 0, 3]), reduction="none"), ((3, 4),)),
    "margin of one": (lambda x: F.multi_margin_loss(x, torch.tensor(2)) * x, ((4,),)),
    "squared margin, weighed": (
        lambda x: (
            F.multi_margin_loss(x, torch.tensor([1, 0, 3]), 2, 0.5, torch.tensor([0.1, 0.5, 0.9, 1.3]), reduction="sum")
            * x
        ),
        ((3, 4),),
    ),
    "margins of lists": (lambda x: F.multilabel_margin_loss(x, LISTS, reduction="none"), ((5, 4),)),
    "margins of lists, mean": (lambda x: F.multilabel_margin_loss(x, LISTS) * x, ((5, 4),)),
    "margins of a list": (lambda x: F.multilabel_margin_loss(x, LISTS[0]) * x, ((4,),)),
    "scattered by a mask": (
        lambda x, s: x.masked_scatter(torch.tensor([[True], [False], [True], [False]]), s),
        ((4, 3), (3, 3)),
    ),
    **{f"segments, {kind}": (segments(kind), ((6, 3),)) for kind in ("sum", "max", "min", "prod")},
    "segments, mean": (lambda x: torch.segment_reduce(x, "mean", lengths=LENGTHS[:1] * 3, axis=0), ((6, 2),)),
    "segments, mean with a start": (segments("mean", initial=2.0), ((6, 3),)),
    "segments of rows": (lambda x: torch.segment_reduce(x, "max", lengths=BATCHED, axis=1), ((2, 5, 3),)),
    "segments by offsets": (by_offsets("max"), ((6, 2),)),
    "product by offsets": (by_offsets("prod"), ((6, 2),)),
    "antialiased to fewer": (antialiased("bilinear", (3, 4)), ((1, 2, 7, 9),)),
    "antialiased to more": (antialiased("bilinear", (9, 5)), ((1, 2, 7, 11),)),
    "antialiased corners": (antialiased("bilinear", (3, 4), align_corners=True), ((1, 2, 7, 9),)),
    "antialiased to one": (antialiased("bilinear", (1, 1)), ((1, 2, 7, 9),)),
    "antialiased cubic": (antialiased("bicubic", (3, 4)), ((1, 2, 7, 9),)),
    "antialiased cubic to more": (antialiased("bicubic", (13, 4)), ((1, 2, 5, 9),)),
    "antialiased by a factor": (
        lambda x: F.interpolate(x, scale_factor=(0.4, 0.7), mode="bilinear", antialias=True),
        ((1, 2, 11, 9),),
    ),
    "Bessel": (lambda x: torch.special.i0(x) + torch.special.i1(x) * 2, ((30,),)),
    "Bessel, scaled": (lambda x: torch.special.i0e(x * 9) + torch.special.i1e(x * 9) * 2, ((30,),)),
    "digamma": (torch.digamma, ((30,),)),
    "error function, scaled": (lambda x: torch.special.erfcx(x * 2), ((30,),)),
    "normal distribution": (torch.special.log_ndtr, ((30,),)),
}
"""Functions of tensors of some shapes."""


def gradients(
    function: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    given = tuple(torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes)
    source = trained(ModelSource(FunctionModule(function), given))
    captured = capture(source)
    assert not any(isinstance(op, Call) for op in captured.module.main.body.walk())
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs(given)))
    assert isinstance(source.model, TrainingStep)
    result = function(*given)
    wanted = torch.autograd.grad(result, given, list(source.model.following) or None, allow_unused=True)
    rtol, atol = NEAR[dtype]
    assert_close(found["results"], result.detach(), rtol, atol)
    for place, gradient in enumerate(wanted):
        if gradient is not None:
            largest = float(gradient.abs().max())
            assert_close(found["gradients"][f"input {place}"], gradient, rtol, max(atol, rtol * largest))


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_torchs(name: str) -> None:
    gradients(*GRADIENTS[name], torch.float32, 1)


@pytest.mark.parametrize("name", list(GRADIENTS)[::3])
def test_gradients_in_float64(name: str) -> None:
    gradients(*GRADIENTS[name], torch.float64, 2)


def test_pairs_of_points_are_read_inside_by_kernels() -> None:
    """A point has no pair with itself, and nothing is read for it before the first."""
    torch.manual_seed(0)
    given = torch.randn(4, 3).requires_grad_()
    captured = capture(trained(ModelSource(FunctionModule(lambda x: F.pdist(x).square().sum()), (given,))))
    made = compile_model(captured.module, load_machine("h100_sxm"), Options(kernels=False, verify=False, reuse=False))
    arrays = captured.flatten_inputs((given,))
    results = evaluate(made.planned.module, arrays, launcher=made.backend.launcher())
    wanted = 2 * (4 * given - given.sum(0)).detach()
    assert_close(captured.unflatten_outputs(results)["gradients"]["input 0"], wanted, 1e-5, 1e-5)


def test_points_on_each_other_and_equal_extremes() -> None:
    """Where a slope has no one value it is torch's: 0 for distances, equal shares for extremes, the product of the others at a zero."""
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 0.0], [0.0, 0.0], [3.0, 3.0], [3.0, 1.0]])
    for function in (F.pdist, lambda x: torch.cdist(x, x[:2], 3.0), segments("max"), segments("prod"), segments("min")):
        given = x.clone().requires_grad_()
        source = trained(ModelSource(FunctionModule(function), (given,)))
        captured = capture(source)
        found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs((given,))))
        assert isinstance(source.model, TrainingStep)
        (wanted,) = torch.autograd.grad(function(given), given, list(source.model.following))
        assert_close(found["gradients"]["input 0"], wanted)


SPECIAL: dict[str, tuple[Callable[[Tensor], Tensor], Any, float, float]] = {
    "i0": (torch.special.i0, special.i0, -80, 80),
    "i0e": (torch.special.i0e, special.i0e, -3000, 3000),
    "i1": (torch.special.i1, special.i1, -80, 80),
    "i1e": (torch.special.i1e, special.i1e, -3000, 3000),
    "erfcx": (torch.special.erfcx, special.erfcx, -3, 400),
    "trigamma": (lambda x: torch.polygamma(1, x), lambda x: special.polygamma(1, x), -6.3, 50),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_over_their_range(name: str, dtype: torch.dtype) -> None:
    """Against SciPy's in float64: dense where a series gives way to another, and at the ends."""
    function, reference, low, high = SPECIAL[name]
    ends = torch.tensor(
        [0.0, -0.0, 1e-6, 0.4999, 0.5, 1.0, 7.999, 8.0, 12.0, 12.001, 20.0, 20.001], dtype=torch.float64
    )
    points = torch.cat([torch.linspace(low, high, 331, dtype=torch.float64) + 1e-3, ends]).to(dtype)
    points = points[(points >= low) & (points <= high)]
    model = Of(lambda x: function(x))
    found = run(capture(model, (points,)), (points,))
    wanted = torch.from_numpy(reference(points.double().numpy()))
    scale = {torch.float64: 4e-13, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 2e-3}[dtype]
    assert_close(found, wanted.to(dtype), scale, torch.finfo(dtype).tiny)


def test_special_functions_at_the_ends() -> None:
    ends = torch.tensor([math.nan, 1e30])
    check(Of(lambda x: (torch.special.i0e(x), torch.special.i1e(x), torch.special.erfcx(x))), ends)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_systems_by_a_factor(upper: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    root = torch.randn(2, 37, 37, dtype=dtype)
    factor = torch.linalg.cholesky(root @ root.mT + 37 * torch.eye(37, dtype=dtype), upper=upper)
    right = torch.randn(2, 37, 5, dtype=dtype)
    model = Of(lambda b, f: (torch.cholesky_solve(b, f, upper), torch.cholesky_inverse(f, upper)))
    rtol, atol = (1e-4, 1e-6) if dtype is torch.float32 else (1e-11, 1e-13)
    captured = check(model, right, factor, rtol=rtol, atol=atol)
    assert not any(isinstance(op, Call) for op in captured.module.main.body.walk())
