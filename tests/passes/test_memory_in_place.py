"""A map may overwrite its operand only where each point reads its own element: held against runs in an arena, point after point."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from codesign.ir.core import Block, Function, Value
from codesign.ir.dtypes import F32
from codesign.ir.index import IndexLike, index
from codesign.ir.scalar import Read, Scalar, apply
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.types import tensor
from codesign.passes.memory import MemoryPlan, plan

ROWS = COLUMNS = 4
ROW, COLUMN = index("i"), index("j")

READS: dict[str, tuple[list[tuple[IndexLike, IndexLike]], bool]] = {
    "own": ([(ROW, COLUMN), (ROW, COLUMN)], True),
    "transposed": ([(COLUMN, ROW)], False),
    "reversed": ([(ROW, COLUMNS - 1 - COLUMN)], False),
    "rolled": ([((ROW + 1) % ROWS, COLUMN)], False),
    "broadcast": ([(ROW, 0)], False),
    "own and another": ([(ROW, COLUMN), (ROW, COLUMNS - 1 - COLUMN)], False),
    "another and own": ([((ROW + 1) % ROWS, COLUMN), (ROW, COLUMN)], False),
}
"""What the second map reads of the first one's result, and whether it may take its place."""


def _map(source: Value, reads: Iterable[tuple[IndexLike, IndexLike]]) -> Fusion:
    """The sum of some elements of the source at each point."""
    body: Scalar | None = None
    for place in reads:
        read = Read(source, place)
        body = read if body is None else apply("add", body, read)
    assert body is not None
    compute = Compute([Dim("i", index(ROWS)), Dim("j", index(COLUMNS))], body)
    return Fusion(Block((), [compute], [compute.result]))


def _chain(reads: list[tuple[IndexLike, IndexLike]]) -> tuple[Function, list[Fusion]]:
    """Input, a doubled copy, the map in question, and a doubled copy of that as the result."""
    x = Value(tensor(F32, ROWS, COLUMNS), "x")
    first = _map(x, [(ROW, COLUMN), (ROW, COLUMN)])
    second = _map(first.results[0], reads)
    last = _map(second.results[0], [(ROW, COLUMN), (ROW, COLUMN)])
    return Function("main", Block([x], [first, second, last], [last.results[0]])), [first, second, last]


def _in_arena(groups: list[Fusion], memory: MemoryPlan | None, x: np.ndarray, backwards: bool) -> np.ndarray:
    """What the last map gives when each point is written before the next one is read, with memory by the plan (None: of its own)."""
    arena = np.zeros((memory.peak_bytes if memory else 0) // 4 + 1, np.float32)
    arrays = {next(iter(groups[0].uses())): x}
    for group in groups:
        buffer = memory.buffers.get(group.results[0]) if memory else None
        start = buffer.offset // 4 if buffer else 0
        place = arena[start : start + ROWS * COLUMNS] if buffer else np.zeros(ROWS * COLUMNS, np.float32)
        arrays[group.results[0]] = place.reshape(ROWS, COLUMNS)
        (compute,) = group.computes
        points = list(itertools.product(range(ROWS), range(COLUMNS)))
        for i, j in reversed(points) if backwards else points:
            at = {"i": i, "j": j}
            values = [
                arrays[read.source][tuple(index_.evaluate(at) for index_ in read.indices)]
                for read in _occurrences(compute.body)
            ]
            arrays[group.results[0]][i, j] = sum(values)
    return arrays[groups[-1].results[0]]


def _occurrences(body: Scalar) -> list[Read]:
    return [body] if isinstance(body, Read) else [read for part in body.operands() for read in _occurrences(part)]


@pytest.mark.parametrize("name", READS)
def test_a_map_overwrites_what_it_reads_only_point_by_point(name: str) -> None:
    reads, may = READS[name]
    function, groups = _chain(reads)
    memory = plan(function)
    first, second = groups[0].results[0], groups[1].results[0]
    assert (memory.in_place.get(second) is first) == may
    assert memory.buffers[second].overlaps(memory.buffers[first]) == may
    x = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    expected = _in_arena(groups, None, x, False)
    for backwards in (False, True):
        np.testing.assert_array_equal(_in_arena(groups, memory, x, backwards), expected)


def test_an_operand_that_is_read_later_is_not_overwritten() -> None:
    x = Value(tensor(F32, ROWS, COLUMNS), "x")
    first = _map(x, [(ROW, COLUMN), (ROW, COLUMN)])
    second = _map(first.results[0], [(ROW, COLUMN)] * 3)
    third = _map(first.results[0], [(ROW, COLUMN)] * 2)
    results = [_map(group.results[0], [(ROW, COLUMN)] * 2) for group in (second, third)]
    block = Block([x], [first, second, third, *results], [group.results[0] for group in results])
    memory = plan(Function("main", block))
    assert second.results[0] not in memory.in_place
    assert memory.in_place[third.results[0]] is first.results[0]
    assert not memory.buffers[second.results[0]].overlaps(memory.buffers[first.results[0]])
