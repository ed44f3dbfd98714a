"""Gradients of pairwise distances, as torch's own: also where two points are one, and where they share a coordinate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from codesign.ir.tensor import Call
from tests.frontend.checks import Of, check


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
def test_gradients(p: float) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    y[:, 0], y[:, 1, 0] = x[:, 0], x[:, 1, 0]

    def slopes(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        def total(x: Tensor, y: Tensor) -> Tensor:
            return (torch.cdist(x, y, p=p) * weight).sum()

        found: tuple[Tensor, ...] = torch.func.grad(total, (0, 1))(x, y)
        return found

    captured = check(Of(slopes), x, y, torch.randn(2, 4, 5, dtype=torch.float64))
    assert not [op.target for op in captured.module.main.body.walk() if isinstance(op, Call)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
def test_differences_that_are_no_numbers(p: float, value: float) -> None:
    """They are no number of differing coordinates, and are left out of a largest difference; two infinities have none."""
    x, y = torch.arange(12.0).reshape(4, 3), torch.ones(5, 3)
    x[0, 1], y[2, 0], y[3, 1] = value, value, value
    check(Of(lambda x, y: torch.cdist(x, y, p=p)), x, y)
    check(Of(lambda x: torch.nn.functional.pdist(x, p=p)), torch.cat([x, y]))
