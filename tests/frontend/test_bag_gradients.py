"""Gradients of bags of embeddings, as autograd records them: kernels' work, with torch's values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from codesign.frontend import capture
from codesign.ir.tensor import Call
from tests.frontend.checks import assert_close, run

IDS, OFFSETS = torch.tensor([1, 4, 1, 0, 3, 4, 4]), torch.tensor([0, 2, 2, 6])


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sum"},
        {"mode": "mean"},
        {"mode": "max"},
        {"mode": "sum", "padding_idx": 4},
        {"mode": "sum", "include_last_offset": True},
    ],
)
def test_the_gradient_of_the_table(options: dict[str, Any]) -> None:
    def step(table: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        table = table.detach().requires_grad_()
        offsets = torch.tensor([*OFFSETS.tolist(), 7]) if "include_last_offset" in options else OFFSETS
        bags = F.embedding_bag(IDS, table, offsets, **options)
        return torch.autograd.grad((bags * scale).sum(), table)[0]

    torch.manual_seed(0)
    inputs = (torch.randn(5, 3), torch.randn(4, 3))
    captured = capture(make_fx(step)(*inputs), inputs)
    assert not any(isinstance(op, Call) for op in captured.module.main.body.walk()), captured.warnings
    assert_close(run(captured, inputs), step(*inputs))
