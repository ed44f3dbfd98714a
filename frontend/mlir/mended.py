"""Operators that torch-mlir 20261001 gets wrong or lacks, in other operators that it gets right (`findings/torch_mlir_*`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


def mended() -> dict[Any, Callable[..., Any]]:
    """Decompositions that stand in for them; NotImplemented leaves a call as it is."""
    return {
        aten.neg.default: _neg,
        aten._neg_view.default: torch.neg,
        aten.maximum.default: lambda x, y: torch.where((x > y) | (x != x), x, y),  # its own loses the NaN of x
        aten.minimum.default: lambda x, y: torch.where((x < y) | (x != x), x, y),
        aten.clamp.default: _clamp,
        aten.clamp.Tensor: _clamp,
        aten.clamp_min.default: lambda x, low: _clamp(x, low),
        aten.clamp_max.default: lambda x, high: _clamp(x, None, high),
        aten.floor_divide.default: lambda x, y: _of_bytes(x, y, "floor"),
        aten.as_strided_copy.default: lambda x, size, stride, offset=None: x.as_strided(size, stride, offset).clone(),
        aten.div.Tensor_mode: lambda x, y, *, rounding_mode=None: _of_bytes(x, y, rounding_mode),
    }


def _neg(x: torch.Tensor) -> Any:
    """Integers: its own go through float32."""
    return NotImplemented if x.is_floating_point() or x.is_complex() else x * -1


def _clamp(x: torch.Tensor, low: Any = None, high: Any = None) -> Any:
    """Its own makes a bound of NaN."""
    if not x.is_floating_point() or any(
        isinstance(bound, torch.Tensor) and bound.is_floating_point() for bound in (low, high)
    ):
        return NotImplemented
    kept = x if low is None else torch.where(x < low, low, x)
    return (kept if high is None else torch.where(kept > high, high, kept)).to(x.dtype)


def _of_bytes(x: torch.Tensor, y: Any, mode: str | None) -> Any:
    """Quotients of bytes, taken in 32 bits."""
    if x.dtype is not torch.uint8 or mode is None or not isinstance(y, (int, torch.Tensor)):
        return NotImplemented
    if isinstance(y, torch.Tensor) and y.dim() and y.dtype is not torch.uint8:
        return NotImplemented
    other = y.to(torch.int32) if isinstance(y, torch.Tensor) else y
    return torch.div(x.to(torch.int32), other, rounding_mode=mode).to(torch.uint8)
