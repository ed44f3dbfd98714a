"""Expressions that grow by what is put in place of reads: a scan whose every level reads the one below at two places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._higher_order_ops.associative_scan import associative_scan

from codesign.frontend import capture
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.fusion import merge


class Recurrence(torch.nn.Module):
    """h[t] = a[t] h[t - 1] + b[t]."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        def both(x: tuple[torch.Tensor, ...], y: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return x[0] * y[0], y[0] * x[1] + y[1]

        result: torch.Tensor = associative_scan(both, (a, b), 0, combine_mode="generic")[1]
        return result


def _longest(module: Module) -> int:
    return max(sum(1 for _ in op.body.walk()) for op in module.main.body.walk() if isinstance(op, Compute))


def test_an_expression_is_no_longer_than_the_longest_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 48
    inputs = torch.rand(12, 3), torch.rand(12, 3)
    captured = capture(Recurrence(), inputs)
    arrays = captured.flatten_inputs(inputs)
    expected = evaluate(captured.module, arrays)
    found = {}
    for limit in (most, 1 << 30):
        monkeypatch.setattr(merge, "LARGEST", limit)
        module = capture(Recurrence(), inputs).module
        module = optimize(module, Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
        found[limit] = _longest(module)
        for got, want in zip(evaluate(module, arrays), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)
    assert found[most] <= most < found[1 << 30]
