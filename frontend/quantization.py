"""Quantisation in plain operators: what `fake_quantize_*` and PT2E's `quantized_decomposed.*` compute, as torch's kernels do it.

Rounding, clamping and scaling are element-wise work, so they fuse with what makes the values and what uses them. Torch has definitions in
Python of most of `quantized_decomposed`; those are taken as they are, but for the ones that read numbers out of tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

aten: Any = torch.ops.aten

Rules = dict[Any, Callable[..., Any]]

_MODULE = "torch.ao.quantization.fx._decomposed"
"""Where torch registers `quantized_decomposed`; a model that uses it has imported it."""

_TAKEN = {
    "quantize_per_tensor.default": "quantize_per_tensor",
    "dequantize_per_tensor.default": "dequantize_per_tensor",
    "quantize_per_channel.default": "quantize_per_channel",
    "dequantize_per_channel.default": "dequantize_per_channel",
    "choose_qparams_per_token.default": "choose_qparams_per_token",
    "_choose_qparams_per_token_asymmetric_impl.default": "_choose_qparams_per_token_asymmetric_impl",
    "quantize_per_token.default": "quantize_per_token",
    "dequantize_per_token.default": "dequantize_per_token",
    "dequantize_per_channel_group.default": "dequantize_per_channel_group",
    "convert_element_type.no_fuse": "convert_element_type",
}
"""Operators whose definition in torch is plain: the name of the function there."""


def decompositions_of_quantisation() -> Rules:
    """Operators of quantisation and what they are in core ATen."""
    rules: Rules = {
        aten.fake_quantize_per_tensor_affine_cachemask.default: _per_tensor,
        aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: _per_tensor_where_enabled,
        aten.fake_quantize_per_channel_affine_cachemask.default: _per_channel,
        aten._fake_quantize_learnable_per_tensor_affine.default: _learnable_per_tensor,
        aten._fake_quantize_learnable_per_channel_affine.default: _learnable_per_channel,
    }
    module = sys.modules.get(_MODULE)
    if module is None:
        return rules
    named: Any = torch.ops.quantized_decomposed
    own: dict[str, Callable[..., Any]] = {
        **{name: getattr(module, function) for name, function in _TAKEN.items()},
        "quantize_per_tensor.tensor": _quantized,
        "quantize_per_tensor.tensor2": _quantized,
        "dequantize_per_tensor.tensor": _dequantized,
        "dequantize_per_tensor.tensor2": _dequantized,
        "choose_qparams.tensor": _chosen,
        "choose_qparams_symmetric.tensor": _chosen_symmetric,
        "choose_qparams_per_token_asymmetric.default": module._choose_qparams_per_token_asymmetric_impl,
        "quantize_per_channel_group.default": _quantized_groups,
        "fake_quant_per_channel.default": lambda *args: _per_channel(*args)[0],
    }
    for name, function in own.items():
        packet, overload = name.split(".")
        rules[getattr(getattr(named, packet), overload)] = function
    return rules


def _fake(x: Tensor, scale: Any, zero: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The value that an integer of `low` to `high` keeps of x, and whether x lies between; NaN becomes the lowest, as in torch's kernels."""
    wide = x if x.dtype is torch.float64 else x.float()
    if isinstance(scale, Tensor):
        scale = scale.float()
        inverse: Any = (1.0 / scale).to(wide.dtype)
    else:  # numbers are single precision in the kernels
        scale = float(np.float32(scale))
        inverse = float(np.float32(1.0) / np.float32(scale))
    steps = torch.round(wide * inverse) + zero
    kept = torch.fmin(torch.fmax(steps, torch.full_like(steps, low)), torch.full_like(steps, high))
    inside = (steps >= low) & (steps <= high)
    return ((kept - zero) * scale).to(x.dtype), inside


def _per_tensor(x: Tensor, scale: Any, zero: Any, low: int, high: int) -> tuple[Tensor, Tensor]:
    return _fake(x, scale, zero, low, high)


def _per_tensor_where_enabled(
    x: Tensor, scale: Tensor, zero: Tensor, enabled: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor]:
    value, inside = _fake(x, scale.reshape(()), zero.reshape(()), low, high)
    on = enabled.reshape(()) >= 1
    return torch.where(on, value, x), inside | ~on


def _along(x: Tensor, values: Tensor, axis: int) -> Tensor:
    shape = [1] * x.dim()
    shape[axis] = values.shape[0]
    return values.reshape(shape)


def _per_channel(x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    scales, zeros = _along(x, scale, axis), _along(x, zero, axis)
    if not zero.is_floating_point():
        return _fake(x, scales, zeros, low, high)
    wide = x.float()  # a zero point between two integers is added before it is rounded
    steps = torch.round(wide * (1.0 / scales) + zeros)
    inside = (steps >= low) & (steps <= high)
    return ((steps.clamp(low, high) - zeros) * scales).to(x.dtype), inside


def _learnable_per_tensor(
    x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int, grad_factor: float = 1.0
) -> Tensor:
    whole = torch.floor(zero.reshape(()).float() + 0.5).clamp(low, high)
    return _fake(x, scale.reshape(()), whole, low, high)[0]


def _learnable_per_channel(
    x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int, grad_factor: float = 1.0
) -> Tensor:
    whole = torch.round(zero.float()).clamp(low, high).to(torch.int32)
    return _per_channel(x, scale, whole, axis, low, high)[0]


def _quantized(x: Tensor, scale: Tensor, zero: Tensor, low: Any, high: Any, dtype: torch.dtype) -> Tensor:
    """Integers of x by a scale and a zero point that are tensors of one element."""
    inverse = (1.0 / scale.reshape(()).double()).float()
    steps = torch.round(x.float() * inverse) + zero.reshape(())
    return _clamped(steps, low, high).to(dtype)


def _clamped(steps: Tensor, low: Any, high: Any) -> Tensor:
    low, high = (limit.reshape(()) if isinstance(limit, Tensor) else limit for limit in (low, high))
    return torch.clamp(steps, low, high)


def _dequantized(
    x: Tensor,
    scale: Tensor,
    zero: Tensor,
    low: Any,
    high: Any,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    kind = torch.float32 if out_dtype is None else out_dtype
    return (x.to(kind) - zero.reshape(())) * scale.reshape(()).to(kind)


def _limits(x: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest number, zero among them, in one element each."""
    least, greatest = torch.aminmax(x.reshape(-1), dim=0, keepdim=True)
    return torch.clamp(least, max=0), torch.clamp(greatest, min=0)


def _chosen(x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale and zero point that map what lies in x onto `low` to `high`."""
    least, greatest = _limits(x)
    scale = torch.clamp((greatest - least).float() / float(high - low), min=float(np.float32(eps)))
    zero = low - torch.round(least / scale).to(torch.int32)
    return scale.double(), zero.clamp(low, high).to(torch.int64)


def _chosen_symmetric(x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The same with zero in the middle."""
    least, greatest = _limits(x)
    scale = torch.maximum(-least, greatest).float() / (float(high - low) / 2)
    zero = torch.full_like(scale, 128 if dtype is torch.uint8 else 0, dtype=torch.int64)
    return torch.clamp(scale, min=float(np.float32(eps))).double(), zero


def _quantized_groups(
    x: Tensor, scales: Tensor, zeros: Tensor, low: int, high: int, dtype: torch.dtype, group_size: int = 128
) -> Tensor:
    """Integers of rows in groups, each with a scale of its own."""
    size = x.shape[-1] if group_size > x.shape[-1] and scales.shape[-1] == 1 else group_size
    groups = x.reshape(-1, size)
    steps = torch.round(groups * (1.0 / scales.reshape(-1, 1)) + zeros.reshape(-1, 1))
    return steps.clamp(low, high).to(dtype).reshape_as(x)
