"""`x.view(dtype)`: the same bits as another type, of the same width and of others, in the interpreter and in Triton."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.frontend.checks import check


class View(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(self.dtype)


PAIRS = [
    (torch.float32, torch.int32),
    (torch.int32, torch.float32),
    (torch.float16, torch.int16),
    (torch.bfloat16, torch.float16),
    (torch.float64, torch.int64),
    (torch.uint8, torch.int8),
    (torch.bool, torch.uint8),
    (torch.float32, torch.bfloat16),
    (torch.int64, torch.int8),
    (torch.float64, torch.float32),
    (torch.int8, torch.float32),
    (torch.float16, torch.int64),
    (torch.bool, torch.int16),
]


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_bits_as_another_type(source: torch.dtype, target: torch.dtype) -> None:
    x = (torch.randn(3, 8) * 50).to(source)
    check(View(target), x, rtol=0, atol=0)


def test_arithmetic_on_bits() -> None:
    class Exponent(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            bits = x.view(torch.int32) & 0x7F800000
            return bits >> 23, bits.view(torch.float32)

    check(Exponent(), torch.tensor([1.0, -0.0, 3.5, float("inf")]), rtol=0, atol=0)


@pytest.mark.parametrize("form", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e8m0fnu])
def test_bytes_that_hold_eight_bit_floats_and_back(form: torch.dtype) -> None:
    """Weights and scales that checkpoints keep as bytes."""

    class Stored(nn.Module):
        def forward(self, codes: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return codes.view(form).float() * 2, (x * 3).to(form).view(torch.uint8), x.to(form).view(torch.int8) & 7

    codes = torch.arange(254, dtype=torch.uint8).reshape(2, 127)
    codes[codes == 127] = 1  # of NaN only that it is one is kept
    check(Stored(), codes, torch.randn(5, 8) * 8, rtol=0, atol=0)


def test_halves_of_eight_bit_floats() -> None:
    check(View(torch.float8_e5m2), torch.randn(3, 4).half(), rtol=0, atol=0)
