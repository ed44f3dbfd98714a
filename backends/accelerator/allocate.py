"""Gives every scratch of a program its slots and its address.

What one engine writes in an iteration and another reads gets several slots, so that the writer can go on to the next iteration;
the rest share addresses where their lives do not overlap. Where that is, and what is given up for it to fit, the cost model says (`placing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.backends.accelerator.rewrite import map_reads, with_slot
from codesign.costmodel.dataflow.buffers import common, lasting
from codesign.costmodel.dataflow.placing import (
    ALONE,
    ALWAYS,
    IN_LOOP,
    IN_PROGRAMS,
    Life,
    Lives,
    having_slots,
    placed_by_life,
)
from codesign.costmodel.dataflow.target import Target
from codesign.ir.core import Value
from codesign.ir.errors import ScheduleError
from codesign.ir.index import index
from codesign.ir.program import Engine, Instruction, Loop, Matmul, Program, Set, Statement
from codesign.ir.scalar import Read
from codesign.ir.types import TileType

GIVEN_UP = (
    "",
    "loads of the next tile wait for this one",
    "outer loop not double-buffered",
    "outer loop not double-buffered, addresses shared",
    "not double-buffered",
    "not double-buffered, addresses shared",
)
"""What is lost by each choice of `placing`."""


@dataclass(frozen=True)
class Slots:
    """A scratch has `depth` slots, used in turn by the iterations of `loop`."""

    loop: Loop
    depth: int


@dataclass
class _Access:
    position: int
    path: tuple[Loop, ...]
    instruction: Instruction
    writes: bool


def arrange(program: Program, target: Target, depths: Mapping[int, int], programs: Loop) -> dict[Value, Slots]:
    """Set slots, levels and addresses of the program's scratches, in place; returns which have slots.

    `depths`: for a loop (by id), how many iterations may be in flight. `programs`: the loop over what a core works on. When all slots do
    not fit, its own are given up, then all. Raises ScheduleError when a single set does not fit.
    """
    accesses = _accesses(program.body)
    spans = _loop_spans(program.body)
    program.scratches = [s for s in program.scratches if s.value in accesses]
    wanted = {s.value: slots for s in program.scratches if (slots := _slots(accesses[s.value], depths))}
    lives = [_life(s.value, accesses[s.value], spans, programs) for s in program.scratches]
    many = [wanted[s.value].depth if s.value in wanted else 1 for s in program.scratches]
    core, array = target.capacity["core"], target.capacity.get("array", 0)
    found = placed_by_life(Lives.of_each(lives), _row(s.bytes for s in program.scratches), _row(many), core, array)
    if found.held[0] > core:
        raise ScheduleError(
            f"@{program.name} on {target.name}: scratchpad: needs {int(found.held[0]):,} B, limit {core:,} B",
            hint="use smaller tiles",
        )
    for item, place, near in zip(program.scratches, found.place[0], found.near[0], strict=True):
        item.level, item.address = "array" if near else "core", int(place)
    choice = int(found.choice[0])
    if note := GIVEN_UP[choice]:
        program.notes["buffers"] = f"{note}: more slots do not fit the scratchpad"
    kept = {
        item.value: wanted[item.value]
        for item, life in zip(program.scratches, lives, strict=True)
        if item.value in wanted and life.of in having_slots(choice)
    }
    _apply(program, kept)
    return kept


def _row(numbers: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.array([[*numbers]], np.int64)


def _accesses(body: list[Statement]) -> dict[Value, list[_Access]]:
    """Every access to each scratch with its position in program order and the loops around it."""
    found: dict[Value, list[_Access]] = {}
    position = 0

    def visit(block: list[Statement], path: tuple[Loop, ...]) -> None:
        nonlocal position
        for statement in block:
            position += 1
            if isinstance(statement, Loop):
                visit(statement.body, (*path, statement))
                position += 1
            elif isinstance(statement, Instruction):
                for reads, writes in ((statement.reads(), False), (statement.writes(), True)):
                    for read in reads:
                        found.setdefault(read.source, []).append(_Access(position, path, statement, writes))

    visit(body, ())
    return found


def _loop_spans(body: list[Statement]) -> dict[int, tuple[int, int]]:
    """First and last position of each loop, by id, in the numbering of `_accesses`."""
    spans: dict[int, tuple[int, int]] = {}
    position = 0

    def visit(block: list[Statement]) -> None:
        nonlocal position
        for statement in block:
            position += 1
            if isinstance(statement, Loop):
                first = position
                visit(statement.body)
                position += 1
                spans[id(statement)] = (first, position)

    visit(body)
    return spans


def _slots(accesses: list[_Access], depths: Mapping[int, int]) -> Slots | None:
    home = common([access.path for access in accesses])
    engines: set[Engine] = {access.instruction.engine for access in accesses}
    depth = depths.get(id(home[-1]), 1) if home else 1
    return Slots(home[-1], depth) if len(engines) > 1 and depth > 1 else None


def _life(value: Value, accesses: list[_Access], spans: Mapping[int, tuple[int, int]], programs: Loop) -> Life:
    """When a scratch is in use, what it may have slots for, and whether its sums may lie in the array's own memory: those that only the
    tensor and vector units touch, and that are no operand."""
    paths, positions = [access.path for access in accesses], [access.position for access in accesses]
    home = common(paths)
    low, high = lasting(min(positions), max(positions), paths, lambda loop: spans[id(loop)])
    engines: set[Engine] = {access.instruction.engine for access in accesses}
    of = ALONE if len(engines) == 1 else IN_PROGRAMS if home and home[-1] is programs else IN_LOOP
    products = [access.instruction for access in accesses if isinstance(access.instruction, Matmul)]
    summed = any(op.target.source is value for op in products)
    operand = any(value in (op.a.source, op.b.source) for op in products)
    sums = summed and not operand and engines <= {"tensor", "vector"}
    return Life(of, sums, low, high, *(spans[id(home[-1])] if home else (0, ALWAYS)))


def names_in(program: Program) -> set[str]:
    """Every name that an index expression of the program may mean: axes, registers, loop variables and scratches."""
    names = {"core", "cores", *(s.name for s in program.scratches)}
    for statement in program.walk():
        if isinstance(statement, Loop):
            names |= {statement.variable, statement.count}
        elif isinstance(statement, Set):
            names.add(statement.name)
        else:
            axes = (*getattr(statement, "axes", ()), *getattr(statement, "reduced", ()))
            names |= {axis.name for axis in axes}
    return names


def _apply(program: Program, slots: Mapping[Value, Slots]) -> None:
    """Give slotted scratches their leading dimension and index it by the loop's count."""
    taken = names_in(program)
    for loop in dict.fromkeys(s.loop for s in slots.values()):
        number = 0
        while (name := f"i{number or ''}") in taken:
            number += 1
        taken.add(name)
        loop.count = name
    for item in program.scratches:
        if item.value in slots:
            item.value.type = TileType(item.dtype, (slots[item.value].depth, *item.shape))

    def change(read: Read) -> Read:
        found = slots.get(read.source)
        return read if found is None else with_slot(read, index(found.loop.count) % found.depth)

    def visit(block: list[Statement]) -> None:
        for position, statement in enumerate(block):
            if isinstance(statement, Loop):
                visit(statement.body)
            elif isinstance(statement, Instruction):
                block[position] = map_reads(statement, change)

    visit(program.body)
