"""What each issue of a program costs: issues of one instruction that cost the same are one class.

Clocks are kept on a grid of 2^-24, on which doubles add exactly: a steady state then repeats to the last bit, and can be skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codesign.backends.accelerator.costs import InstructionCost, Timed, cost_of
from codesign.backends.accelerator.flat import Flat, Ints
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.turns import memories
from codesign.ir.program import Load, Program, Stage, Store
from codesign.ir.types import BufferType

Floats = npt.NDArray[np.float64]

GRID = float(1 << 24)
LONGEST = float(1 << 29)
"""Clocks up to which sums on the grid are exact."""


def on_grid(clocks: float) -> float:
    """The nearest time on the grid."""
    return round(clocks * GRID) / GRID


@dataclass
class Classes:
    """`of`: the class of each issue. By class: `fixed` clocks of one that computes, None of a transfer, which `timed` has the figures of;
    `outer`: the port whose memory a transfer is from or to (0: DRAM); `into`: the port of the memory that it stages something in (0: none)."""

    of: Ints
    costs: list[InstructionCost] = field(default_factory=list)
    fixed: list[float | None] = field(default_factory=list)
    timed: list[Timed] = field(default_factory=list)
    outer: list[int] = field(default_factory=list)
    into: list[int] = field(default_factory=list)

    def add(self, cost: InstructionCost, timed: Timed | None, outer: int = 0, into: int = 0) -> int:
        """A new class; returns its number."""
        self.costs.append(cost)
        self.fixed.append(None if timed is not None else on_grid(cost.fixed or 0.0))
        clocks, moved, joules, wanted = timed or (0.0, 0.0, cost.fixed_joules, 0.0)
        self.timed.append((on_grid(clocks), moved, joules, wanted))
        self.outer.append(outer)
        self.into.append(into)
        return len(self.costs) - 1


def classes_of(program: Program, flat: Flat, target: Target, lanes: Mapping[int, Floats]) -> Classes:
    """The class of every issue. `lanes`: by instruction whose guards depend on data, the share of lanes that they leave in each execution."""
    found = Classes(np.zeros(len(flat.number), np.int64))
    for item, rows in zip(flat.prepared, flat.rows, strict=True):
        cost = cost_of(item, program, target)
        if not len(rows.places):
            continue
        if cost.fixed is not None:
            found.of[rows.places] = found.add(cost, None)
            continue
        again = np.zeros(len(rows.places), np.int64)
        if item.again is not None:
            again = (rows.controls[item.controls[item.again]] != 0).astype(np.int64)
        rests, into = _rests_at(item.source, program, target), _into(item.source, program, target)
        parts = np.ones(len(rows.places), np.int64)
        if into and item.share is not None:  # the DMA engines of those that stage it together move a part each
            parts = np.maximum(rows.controls[item.controls[item.share[1]]], 1)
        columns = [again, parts, *(rows.controls[name] for name in cost.needs)]
        shares = lanes[item.number] if item.number in lanes else np.ones(len(rows.places))
        kept = _kept_at(item.source, program, target) if item.again is not None else 0
        first, which = distinct([*columns, np.unique(shares, return_inverse=True)[1]])
        numbers = []
        for row in first:
            values = {name: int(column[row]) for name, column in rows.controls.items()}
            clocks, moved, joules, wanted = cost.transfer(values, float(shares[row]) if item.number in lanes else None)
            timed = (clocks / float(parts[row]), moved, joules, wanted)
            numbers.append(found.add(cost, timed, kept if again[row] else rests, into))
        found.of[rows.places] = np.asarray(numbers, np.int64)[which]
    return found


def distinct(columns: Sequence[Ints]) -> tuple[Ints, Ints]:
    """The first of each kind of row, and each row's kind."""
    code = columns[0]
    kinds = int(code.max(initial=0)) + 1
    for column in columns[1:]:
        low = int(column.min(initial=0))
        range_of = int(column.max(initial=0)) - low + 1
        if kinds * range_of >= 1 << 62:
            code = np.unique(code, return_inverse=True)[1]
            kinds = int(code.max(initial=0)) + 1
        code, kinds = code * range_of + (column - low), kinds * range_of
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    return first, which


def _kept_at(op: object, program: Program, target: Target) -> int:
    """The port whose memory keeps a load's data."""
    assert isinstance(op, Load)
    assert op.keep is not None
    return memories(target)[program.scratch_of(op.keep.place.source).level]


def _into(op: object, program: Program, target: Target) -> int:
    """The port of the memory that a transfer stages something in (0: it ends in the core)."""
    return memories(target)[program.scratch_of(op.target.source).level] if isinstance(op, Stage) else 0


def _rests_at(op: object, program: Program, target: Target) -> int:
    """The port whose memory a transfer's buffer rests in (0: DRAM)."""
    assert isinstance(op, Load | Store)
    buffer = op.source if isinstance(op, Load) else op.target
    place = program.resting.get(buffer.name) if isinstance(buffer.type, BufferType) else None
    return memories(target)[place] if place else 0


@dataclass(frozen=True)
class Gangs:
    """Loads that cores make together: of each issue its gang's number (0: it is made alone), how many belong to it, and `who` they are, a number
    that two gangs have in common if they are the same cores."""

    of: Ints
    members: Ints
    who: Ints


def gangs_of(flat: Flat) -> Gangs:
    """The gangs of all shared loads; one number for each instruction and key."""
    of, members, who = (np.zeros(len(flat.number), np.int64) for _ in range(3))
    badges = np.random.default_rng(0).integers(1 << 61, size=flat.cores)
    known = 1
    for item, rows in zip(flat.prepared, flat.rows, strict=True):
        if item.share is None:
            continue
        key, size = (rows.controls[item.controls[i]] for i in item.share)
        names, which = np.unique(key, return_inverse=True)
        of[rows.places] = np.where(size > 1, which + known, 0)
        members[rows.places] = np.where(size > 1, size, 1)
        who[rows.places] = np.where(size > 1, _same_cores(flat.core_of(rows.places), which, badges), 0)
        known += len(names)
    return Gangs(of, members, who)


def _same_cores(cores: Ints, gang: Ints, badges: Ints) -> Ints:
    """A number for the set of cores of each execution's gang: the sum of their badges."""
    pairs = np.unique(gang * len(badges) + cores)
    total = np.zeros(int(gang.max(initial=0)) + 1, np.int64)
    np.add.at(total, pairs // len(badges), badges[pairs % len(badges)])
    return (total % (1 << 61))[gang] << 1


def waits_of(flat: Flat) -> list[Ints]:
    """For each position of a wait, what each issue needs there (0: nothing)."""
    most = max((len(item.source.waits) for item in flat.prepared), default=0)
    table = np.zeros((most, len(flat.number)), np.int64)
    for rows in flat.rows:
        for position, values in enumerate(rows.waits):
            table[position, rows.places] = np.maximum(values, 0)
    return list(table)
