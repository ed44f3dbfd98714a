"""`--dynamic`: the first size of every input, positional and by keyword."""

from __future__ import annotations

import pytest
import torch

from codesign.frontend import ModelSource, capture
from codesign.ir.core import tensor_type
from codesign.pipeline import _first_sizes_dynamic


class _Keywords(torch.nn.Module):
    def forward(self, x: torch.Tensor, *, mask: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return x * mask + shift


@pytest.mark.parametrize("positional", [0, 1])
def test_first_sizes_dynamic_of_keyword_inputs(positional: int) -> None:
    given = {name: torch.randn(3, 4) for name in ("x", "mask", "shift")}
    inputs = tuple(given.pop("x") for _ in range(positional))
    source = ModelSource(_Keywords(), inputs, given)
    source.dynamic_shapes = _first_sizes_dynamic(source)
    captured = capture(source)
    assert list(captured.module.symbols) == ["batch"]
    assert [tensor_type(value).shape[0].variable for value in captured.module.main.body.args] == ["batch"] * 3
