"""Integers beyond 2^53 stay whole: they never go by way of a float."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.ir.interpreter import evaluate

LARGE = 2**53 + 1
VALUES = torch.tensor([LARGE - 1, LARGE, LARGE + 1, -LARGE, 2**63 - 1, -(2**63), 0])


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: nn.functional.threshold(x, LARGE, LARGE + 2),
        lambda x: x.clamp(-LARGE, LARGE),
        lambda x: torch.where(x > LARGE, x, LARGE),
        lambda x: x.masked_fill(x == LARGE, LARGE + 4),
        lambda x: torch.stack([x == LARGE, x < LARGE, x >= LARGE, x != LARGE]),
        lambda x: torch.full_like(x, LARGE) + x,
    ],
    ids=["threshold", "clamp", "where", "masked_fill", "comparisons", "full_like"],
)
def test_large_integers(function: Callable[[Tensor], Tensor]) -> None:
    model = Apply(function)
    (got,) = evaluate(capture(model, (VALUES,)).module, [VALUES.numpy()])
    assert torch.equal(torch.from_numpy(got), model(VALUES))
