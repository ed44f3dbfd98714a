"""Quantisation in plain operators gives what torch's own kernels give, bit by bit, and leaves no call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed

from codesign.frontend import capture
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call
from tests.frontend.checks import Of

A, Q = torch.ops.aten, torch.ops.quantized_decomposed
rng = torch.Generator().manual_seed(0)
X = torch.randn(16, 64, generator=rng) * 20
WHOLE = torch.randint(-128, 128, (16, 64), dtype=torch.int8, generator=rng)
SCALES = torch.rand(16, generator=rng) + 0.01
ZEROS = torch.randint(-3, 4, (16,), dtype=torch.int32, generator=rng)
SCALE, ZERO = torch.tensor(0.37), torch.tensor(3)
GROUPS, NONE = torch.rand(16, 2, generator=rng) + 0.1, torch.zeros(16, 2, dtype=torch.int32)
ENDS = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e30, 12.75])

CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "fake tensor": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -128, 127), (X,)),
    "fake tensor of bf16": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.3, 3, 0, 255), (X.bfloat16(),)),
    "fake tensor at the ends": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -8, 7), (ENDS,)),
    "fake tensor by tensors": (
        lambda x, s, z: torch.fake_quantize_per_tensor_affine(x, s, z, -128, 127),
        (X, SCALE, ZERO.int()),
    ),
    "fake tensor switched off": (
        lambda x, s, z, on: A._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(x, s, z, on, -8, 7),
        (X, SCALE, ZERO.int(), torch.zeros(1, dtype=torch.int64)),
    ),
    "fake channel": (
        lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 0, -128, 127),
        (X, SCALES, ZEROS),
    ),
    "fake channel along another": (
        lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 1, -8, 7),
        (X.t().contiguous(), SCALES, ZEROS),
    ),
    "learnable": (
        lambda x, s, z: A._fake_quantize_learnable_per_tensor_affine(x, s, z, -128, 127),
        (X, SCALE.reshape(1), torch.tensor([2.2])),
    ),
    "learnable channel": (
        lambda x, s, z: A._fake_quantize_learnable_per_channel_affine(x, s, z, 0, -128, 127),
        (X, SCALES, ZEROS.float()),
    ),
    "tensor": (lambda x: Q.quantize_per_tensor(x, 0.1, 3, -128, 127, torch.int8), (X,)),
    "tensor unsigned": (lambda x: Q.quantize_per_tensor(x, 0.1, 130, 0, 255, torch.uint8), (X,)),
    "by tensors": (lambda x, s, z: Q.quantize_per_tensor.tensor(x, s, z, -128, 127, torch.int8), (X, SCALE, ZERO)),
    "by tensors alone": (
        lambda x, s, z, low, high: Q.quantize_per_tensor.tensor2(x, s, z, low, high, torch.int8),
        (X, SCALE, ZERO, torch.tensor(-128), torch.tensor(127)),
    ),
    "back": (lambda x: Q.dequantize_per_tensor(x, 0.1, 3, -128, 127, torch.int8), (WHOLE,)),
    "back by tensors": (
        lambda x, s, z: Q.dequantize_per_tensor.tensor(x, s, z, -128, 127, torch.int8),
        (WHOLE, SCALE, ZERO),
    ),
    "channel": (lambda x, s, z: Q.quantize_per_channel(x, s, z, 0, -128, 127, torch.int8), (X, SCALES, ZEROS)),
    "channel back": (lambda x, s: Q.dequantize_per_channel(x, s, None, 0, -128, 127, torch.int8), (WHOLE, SCALES)),
    "token": (
        lambda x: Q.quantize_per_token(x, *Q.choose_qparams_per_token(x, torch.int8), -128, 127, torch.int8),
        (X,),
    ),
    "token back": (
        lambda x, s, z: Q.dequantize_per_token(x, s, z, -128, 127, torch.int8, torch.float32),
        (WHOLE, SCALES[:, None], ZEROS[:, None].float()),
    ),
    "token asymmetric": (lambda x: Q.choose_qparams_per_token_asymmetric(x, torch.int8), (X,)),
    "chosen": (lambda x: Q.choose_qparams(x, -128, 127, 1e-5, torch.int8), (X,)),
    "chosen symmetric": (lambda x: Q.choose_qparams_symmetric(x, 0, 255, 1e-5, torch.uint8), (X,)),
    "group": (
        lambda x, s, z: Q.quantize_per_channel_group(x, s, z, -8, 7, torch.int8, 32),
        (X, GROUPS, NONE.float()),
    ),
    "group back": (
        lambda x, s, z: Q.dequantize_per_channel_group(x, s, z, -8, 7, torch.int8, 32, torch.float32),
        (WHOLE, GROUPS, NONE),
    ),
    "fake channel of PT2E": (lambda x, s, z: Q.fake_quant_per_channel(x, s, z, 0, -128, 127), (X, SCALES, ZEROS)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_torch(name: str) -> None:
    function, inputs = CASES[name]
    captured = capture(Of(function), inputs)
    assert not [op for op in captured.module.main.body.walk() if isinstance(op, Call)]
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs(inputs)))
    torch.testing.assert_close(found, function(*inputs), rtol=0, atol=0, equal_nan=True)
