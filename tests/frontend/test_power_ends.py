"""Powers by a number near the ends of the range: where the result overflows, vanishes, or has a sign of zero, it is torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.ir.interpreter import evaluate


class Power(nn.Module):
    """x ** exponent."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        return x**self.exponent


@pytest.mark.parametrize("exponent", [0.5, 1.5, -1, 3, -0.5])
@pytest.mark.parametrize("dtype", [torch.float32])
def test_ends_are_those_of_torch(dtype: torch.dtype, exponent: float) -> None:
    limits = torch.finfo(dtype)
    root = limits.max ** (1 / abs(exponent))  # about where the power overflows
    sizes = [
        limits.max,
        limits.max * 0.999,
        limits.max / 2,
        limits.tiny,
        limits.smallest_normal / 8,
        root * 0.99,
        root * 1.01,
    ]
    sizes = [min(size, limits.max) for size in (*sizes, 1.0, 0.0, float("inf"))]
    x = torch.tensor([*sizes, *(-size for size in sizes), float("nan")], dtype=dtype)
    (result,) = evaluate(capture(Power(exponent), (x,)).module, [x.numpy()])
    expected = x.pow(exponent).numpy()
    np.testing.assert_allclose(result, expected, rtol=8 * limits.eps, atol=0)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result)[known], np.signbit(expected)[known])
