"""Positions that max pooling gives: the first of equal values, the last NaN, and never padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.ir.interpreter import evaluate

NAN, INF = float("nan"), float("inf")


def _held_to_eager(model: nn.Module, x: Tensor) -> None:
    captured = capture(model, (x,))
    got = evaluate(captured.module, [x.numpy()])
    for ours, theirs in zip(got, model(x), strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize(
    "model",
    [
        nn.MaxPool2d(2, 2, 1, return_indices=True),
        nn.MaxPool2d(3, 1, return_indices=True),
        nn.MaxPool2d(2, 1, dilation=2, return_indices=True),
        nn.AdaptiveMaxPool2d(2, return_indices=True),
        nn.AdaptiveMaxPool2d((3, 1), return_indices=True),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "values", [(NAN, 1.0, NAN, 2.0), (NAN,), (-INF,), (1.0, 1.0, 0.0), (-INF, NAN), (INF, NAN, -1.0)]
)
def test_indices_of_windows(model: nn.Module, values: tuple[float, ...]) -> None:
    x = torch.tensor([values[k * k % len(values)] for k in range(25)]).view(1, 1, 5, 5)
    _held_to_eager(model, x)
