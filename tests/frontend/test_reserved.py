"""Parts of a model under names that torch's graph modules use for something else, or Python."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.ir.interpreter import evaluate


class Layer(nn.Module):
    """A weight, a buffer that is written, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.register_buffer("calls", torch.zeros(2))
        self.register_buffer("shift", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return x * self.weight + self.get_buffer("shift")


class Named(nn.Module):
    """A model whose only part has a given name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, Layer())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.get_submodule(self.name)(x)
        return result


@pytest.mark.parametrize("name", ["graph", "code", "class", "layer"])
def test_a_part_of_any_name_is_captured(name: str) -> None:
    captured = capture(Named(name), (torch.ones(2),))
    results = evaluate(captured.module, captured.flatten_inputs((torch.ones(2),)))
    assert captured.unflatten_outputs(results).tolist() == [3.0, 4.0]
    assert [(m.name, results[m.position].tolist()) for m in captured.mutations] == [(f"{name}.calls", [1.0, 1.0])]
    assert not captured.warnings


class OfParts(nn.Module):
    """A model whose parts have names of Python's in the midst of their paths."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"in": Layer(), "is": nn.Sequential(Layer())})

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts.values():
            x = part(x)
        return x


def test_parts_of_parts_are_captured_under_their_names() -> None:
    captured = capture(OfParts(), (torch.ones(2),))
    results = evaluate(captured.module, captured.flatten_inputs((torch.ones(2),)))
    assert captured.unflatten_outputs(results).tolist() == [7.0, 13.0]
    assert {m.name for m in captured.mutations} == {"parts.in.calls", "parts.is.0.calls"}
    assert not captured.warnings
