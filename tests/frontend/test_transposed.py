"""Transposed convolutions and gradients of strided ones: right for every step, and no multiply-add too many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from codesign.frontend import capture
from codesign.frontend.lowering.transposed import Places
from codesign.ir.analysis import contraction
from codesign.ir.core import Module
from codesign.ir.index import index
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute

F = nn.functional
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
CASES = [
    {"rank": 1, "size": 4, "window": 5, "stride": 3, "padding": 1, "output_padding": 2},
    {"rank": 1, "size": 4, "window": 4, "stride": 2, "dilation": 3, "groups": 2, "bias": True},
    {"rank": 1, "size": 5, "window": 3, "stride": 4, "dilation": 2, "padding": 1},
    {"rank": 1, "size": 3, "window": 2, "stride": 5},
    {"rank": 2, "size": 4, "window": 3, "stride": 2, "bias": True},
    {"rank": 2, "size": 3, "window": 4, "stride": 2, "padding": 1, "groups": 2},
    {"rank": 2, "size": 3, "window": 3, "stride": 3, "padding": 2, "output_padding": 1, "bias": True},
    {"rank": 2, "size": 3, "window": 3, "stride": 2, "dilation": 2, "padding": 1, "bias": True},
    {"rank": 2, "size": 3, "window": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    {"rank": 3, "size": 2, "window": 3, "stride": 2, "padding": 1, "output_padding": 1},
]


def captured(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> Module:
    class Model(nn.Module):
        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            return function(*given)

    return capture(Model(), args).module


def check(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> None:
    (found,) = evaluate(captured(function, *args), [arg.numpy() for arg in args])
    torch.testing.assert_close(torch.from_numpy(found), function(*args), rtol=1e-4, atol=1e-4)


def tensors(case: dict[str, Any]) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Input, weight and perhaps a bias of a case, and what else the operator is told."""
    options = dict(case)
    rank, size, window = options.pop("rank"), options.pop("size"), options.pop("window")
    groups = options.get("groups", 1)
    taps = window if isinstance(window, tuple) else (window,) * rank
    torch.manual_seed(0)
    args = [torch.randn(2, 4, *(size,) * rank), torch.randn(4, 3, *taps)]
    if options.pop("bias", False):
        args.append(torch.randn(3 * groups))
    return args, options


@pytest.mark.parametrize("case", CASES, ids=str)
def test_transposed_convolutions(case: dict[str, Any]) -> None:
    args, options = tensors(case)
    check(lambda *given: TRANSPOSED[case["rank"]](*given, **options), *args)


@pytest.mark.parametrize(("stride", "dilation", "window"), [(2, 1, 3), (3, 2, 4), (2, 2, 3)])
def test_the_gradient_of_a_strided_convolution(stride: int, dilation: int, window: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, 11, 11), torch.randn(2, 3, window, window)
    grad = torch.randn_like(F.conv2d(x, weight, stride=stride, dilation=dilation, padding=1))
    arguments = ([stride] * 2, [1, 1], [dilation] * 2, False, [0, 0], 1, [True, False, False])

    def backward(g: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.aten.convolution_backward(g, x, w, None, *arguments)[0]
        return found

    check(backward, grad, x, weight)


@pytest.mark.parametrize(
    ("rank", "window", "stride", "padding"),
    [(1, 16, 8, 4), (1, 3, 2, 0), (2, 3, 2, 0), (2, 4, 2, 1), (2, 2, 3, 0), (3, 3, 2, 1)],
)
def test_no_more_multiply_adds_than_inputs_times_weights(rank: int, window: int, stride: int, padding: int) -> None:
    x, weight = torch.empty(2, 8, *[32] * rank, device="meta"), torch.empty(8, 8, *[window] * rank, device="meta")
    module = captured(lambda a, w: TRANSPOSED[rank](a, w, stride=stride, padding=padding), x, weight)
    done = 0
    for op in module.main.body.ops:
        if isinstance(op, Compute) and contraction(op) is not None:
            done += math.prod(dim.extent.constant for dim in op.domain)
    assert done <= 1.2 * 2 * 32**rank * 8 * 8 * window**rank


@pytest.mark.parametrize("places", [Places(3, 2, 2, 5), Places(4, 1, 6, 3), Places(6, 0, 4, 7), Places(2, 5, 3, 1)])
def test_the_points_of_a_phase_are_those_that_cover_the_place(places: Places) -> None:
    for y in range(40):
        wanted = {
            (r, (y + places.pad - r * places.spread) // places.step)
            for r in range(places.size)
            if (y + places.pad - r * places.spread) % places.step == 0
        }
        phase, found = int(places.phase(index(y)).constant), set()
        for phases in places.ranges if (y + places.pad) % places.common == 0 else ():
            if phases.first <= phase < phases.first + phases.count:
                windows = (places.window(index(y // places.step), index(phase), index(t)) for t in range(phases.points))
                found |= {(phase + t * places.every, window.constant) for t, window in enumerate(windows)}
        assert found == wanted
