"""Partitions kept between runs: the same groups again without a price asked, and never believed where something differs."""

from __future__ import annotations

from typing import Any

import pytest

from codesign.ir.core import Module
from codesign.ir.tensor import Fusion
from codesign.ir.text import print_module
from codesign.passes import Context, optimize
from tests.passes import models


class Memory:
    """What is kept, in memory."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, str], Any] = {}

    def get(self, kind: str, key: str) -> Any:
        return self.data.get((kind, key))

    def put(self, kind: str, key: str, data: Any) -> None:
        self.data[kind, key] = data


def fewest(fusion: Fusion) -> float:
    return 1.0


def unasked(fusion: Fusion) -> float:
    raise AssertionError("a price was asked for")


def fused(module: Module, memory: Memory, pricer: Any = fewest, options: str = "") -> str:
    return print_module(optimize(module, Context(pricer=pricer, kept=memory), pipeline=f"fuse{options}"))


def test_the_second_run_merges_the_same_without_a_price() -> None:
    memory = Memory()
    first = fused(models.softmax(), memory)
    assert fused(models.softmax(), memory, unasked) == first
    assert [kind for kind, _ in memory.data] == ["fusion"]
    assert any(memory.data.values())


def test_another_block_or_another_choice_is_decided_anew() -> None:
    memory = Memory()
    fused(models.softmax(), memory)
    with pytest.raises(AssertionError, match="a price was asked for"):
        fused(models.softmax(), memory, unasked, "{chain=1}")
    with pytest.raises(AssertionError, match="a price was asked for"):
        fused(models.layer_norm(), memory, unasked)


@pytest.mark.parametrize("steps", [[[0, 0]], [[0, 10**6]], [[-1, 0]], "all", [[0]], [["0", "1"]], [[0, 1]] * 50, {}])
def test_what_does_not_apply_is_decided_anew(steps: Any) -> None:
    memory = Memory()
    first = fused(models.softmax(), memory)
    memory.data = dict.fromkeys(memory.data, steps)
    assert fused(models.softmax(), memory) == first
    assert steps not in memory.data.values()
