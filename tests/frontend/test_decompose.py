"""Each distinct call of a program decomposed once: the same tensor IR as when torch decomposes the whole program."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn import functional as F

from codesign.frontend import capture, decompose, export
from codesign.ir.core import Module
from codesign.ir.text import print_module


class Block(nn.Module):
    """Operators that decompose into several, into none, and into what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.dropout, self.attention = nn.Dropout(0.1), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            scale = torch.arange(8, device=x.device).float().cos()
        y = self.norm(x) * scale
        y = self.attention(y, y, y, need_weights=False)[0]
        first, second = self.dropout(F.gelu(self.up(y + y))).chunk(2, -1)
        values, places = torch.cat([first, second], -1).max(-1)
        result: torch.Tensor = x + self.down(torch.cat([first, second], -1)) * values[..., None] + places[..., None]
        return result


class Stack(nn.Module):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))
        self.inplace = inplace

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for block in self.blocks:
            x = block(x)
            x = x.relu_() if self.inplace else x
        return x, x


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of every program that went through in parts: its distinct calls as a share of all."""
    found: list[float] = []
    plain = decompose._assembled

    def assembled(program: ExportedProgram, calls: dict[Any, Any]) -> ExportedProgram:
        found.append(len({id(call) for call in calls.values()}) / len(calls))
        return plain(program, calls)

    monkeypatch.setattr(decompose, "_assembled", assembled)
    return found


def text(module: Module) -> str:
    """Without places, of which torch loses those in regions that set a mode."""
    return re.sub(r" loc\(.*\)$", "", print_module(module), flags=re.MULTILINE)


def test_equal_blocks_are_decomposed_once_to_the_same_program(
    shares: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, x = Stack().eval(), torch.randn(2, 5, 8)
    parts = capture(model, (x,))
    assert len(shares) == 1
    assert shares[0] < 0.5
    monkeypatch.setattr(export, "decomposed", ExportedProgram.run_decompositions)
    whole = capture(model, (x,))
    assert text(parts.module) == text(whole.module)
    assert parts.outputs == whole.outputs


@pytest.mark.parametrize("what", ["a write", "a symbol", "statistics"])
def test_what_is_more_than_its_calls_goes_through_whole(what: str, shares: list[float]) -> None:
    model, x = Stack(what == "a write").eval(), torch.randn(2, 5, 8)
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=64)}} if what == "a symbol" else None
    if what == "statistics":
        model.blocks.append(nn.BatchNorm1d(5))  # in training mode, in which it writes them
    capture(model, (x,), dynamic_shapes=dynamic)
    assert not shares
