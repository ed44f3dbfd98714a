"""`torch.compile(..., backend="codesign")` on graphs with complex tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from codesign.backends.triton.dynamo import compile_fx_graph


@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_torch_compile(kernels: str) -> None:
    torch._dynamo.reset()

    def model(z: Tensor, w: Tensor) -> Any:
        return z.T * w, z, (z @ w).abs()

    z, w = torch.randn(4, 4, dtype=torch.complex64), torch.randn(4, 4, dtype=torch.complex64)
    compiled = torch.compile(model, backend=compile_fx_graph, options={"kernels": kernels})
    for ours, theirs in zip(compiled(z, w), model(z, w), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)
        assert ours.stride() == theirs.stride()


def test_gradients_of_a_complex_parameter() -> None:
    torch._dynamo.reset()
    weight, x = torch.randn(4, 4, dtype=torch.complex64).requires_grad_(), torch.randn(3, 4)

    def loss(x: Tensor) -> Tensor:
        return ((x.to(torch.complex64) @ weight) * 1j).abs().sum()

    (expected,) = torch.autograd.grad(loss(x), weight)
    compiled = torch.compile(loss, backend=compile_fx_graph, options={"kernels": "reference"})
    (found,) = torch.autograd.grad(compiled(x), weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
