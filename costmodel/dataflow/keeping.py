"""What memories between DRAM and the cores keep: data that passes them and that a later block of programs reads again.

What does not depend on a dim of the grid is the same again for each block along that dim (`turns`). It stays in a memory on its way where there
is room for all that is read until then, and is read from there. Where a network sends to many instances of that memory at once, each holds
its part of what all need; else each holds what its own cores need. A schedule may say what is staged in which memory; where it says
nothing, what is read again most often goes first, and the innermost memory that has room is taken: for as many turns as there is room for. More
gangs than one take turns at blocks that nothing orders, and keep nothing.

With one buffer, what is read again is left there by the load that brings it to the cores. With two, the memory's own DMA brings it there ahead of
the loads: all that is read until it is read no more (a set) while the set before is in use, so that DRAM gives it evenly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.dataflow.space import Layout
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.turns import Turn, memories, spans, times, waiting

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Staged = Mapping[str, Mapping[str, Array]]
"""By place, in how many buffers operands (`in0`: the kernel's first buffer) are staged in the memory there: not where it is zero."""
UNEVEN, SEVERAL = -2.0, -3.0
"""Instead of bytes that a memory lacks: why something can't have two buffers there."""


@dataclass(frozen=True)
class Again:
    """A load that is made for every block.

    `dims`: of the grid, that its data depends on. `tiles`: that one program loads by it. `bytes`: of one tile. `operand`: which it loads.
    `several`: whether a program loads a tile more than once.
    """

    dims: frozenset[str]
    tiles: Array
    bytes: Array
    operand: str = ""
    several: Array = False


@dataclass(frozen=True)
class Kept:
    """Where a load's data is kept: `port` of the target (0: nowhere), for how many of the `waiting` blocks that it is different for
    until it is read again in the turns from number `since` on, and how often it is loaded for each time from outside, in the mean.
    `lacks`: bytes that one instance would need of a memory that it is staged in, where it does not fit (0: it does), or less than none where nothing
    there would be read again (or `UNEVEN`, `SEVERAL`). `buffers`: as many as the schedule says (one where it says nothing), and `sets`: as there are
    different ones."""

    port: Array
    blocks: Array
    waiting: Array
    times: Array
    since: Array = 0
    lacks: Mapping[str, Array] = field(default_factory=dict)
    buffers: Array = 1
    sets: Array = 1


def kept(
    target: Target, lay: Layout, walk: Sequence[Turn], loads: Sequence[Again], staged: Staged, rests: Mapping[int, int]
) -> list[Kept]:
    """What of some loads is kept where, by blocks that are taken in some turns; so many bytes of a port's memory `rests` takes."""
    if not loads or len(target.ports) < 2:
        return [Kept(0, 1, 1, 1) for _ in loads]
    choices = [spans(walk, load.dims) for load in loads]
    most = max(map(len, choices))
    flat: list[Any] = [np.asarray(lay.gangs) * 1.0]
    for choice in range(most):
        for load, since in zip(loads, choices, strict=True):
            some = walk[since[min(choice, len(since) - 1)] :]
            waits = waiting(some, load.dims)
            sizes = (_bytes(target, lay, load, waits, port) for port in range(len(target.ports)))
            flat += [times(some, load.dims), waits, _sets(walk[: since[min(choice, len(since) - 1)]]), *sizes]
    where = {place: staged.get(place, {}) for place in memories(target)}
    flat += [np.asarray(load.several) * 1.0 for load in loads]
    flat += [_uneven(lay), *(np.asarray(at.get(load.operand, 0)) for at in where.values() for load in loads)]
    full = np.broadcast_arrays(*flat)
    columns = np.stack([np.asarray(column, dtype=np.float64).reshape(-1) for column in full])
    chosen = _Choice(target, len(loads), most, columns, rests)
    since_of = np.array([[since[min(c, len(since) - 1)] for c in range(most)] for since in choices])
    return [chosen.kept(load, since_of[load], full[0].shape) for load in range(len(loads))]


class _Choice:
    """Where each of some loads is kept, for many schedules at once (`columns`, as `kept` lays them out)."""

    def __init__(self, target: Target, loads: int, choices: int, columns: Floats, rests: Mapping[int, int]) -> None:
        self.target = target
        self.room = {port: target.ports[port].capacity - rests.get(port, 0) for port in memories(target).values()}
        ports, places = len(target.ports), len(memories(target))
        rows = columns.shape[1]
        self.alone = columns[0] == 1.0
        figures = columns[1 : 1 + choices * loads * (3 + ports)].reshape(choices, loads, 3 + ports, rows)
        self.many, self.waiting, self.sets = (figures[:, :, i] for i in range(3))
        self.needs = figures[:, :, 3:]
        self.buffers = columns[len(columns) - places * loads :].reshape(places, loads, rows)
        self.staged = self.buffers > 0
        why = columns[len(columns) - places * loads - 1 - loads :]
        self.uneven, self.several = np.asarray(why[loads] > 0), np.asarray(why[:loads] > 0)
        self.given = np.asarray(self.staged.any(axis=(0, 1)))
        self.where = np.zeros((loads, rows), dtype=np.int64)
        self.choice = np.zeros((loads, rows), dtype=np.int64)
        self.held = np.zeros((loads, rows))
        self._pack()

    def _pack(self) -> None:
        """Whole loads first, those that are read again most often before others, over as many turns as there is room for; then parts of
        those that are left, with room for one block more, which those pass through that are not kept."""
        free = {port: np.full(len(self.alone), float(room)) for port, room in self.room.items()}
        order = np.argsort(-self.many[0], axis=0, kind="stable")
        for first in order:
            for choice in range(len(self.many)):
                self._take(first, choice, free, True)
        for first in order:
            self._take(first, 0, free, False)

    def _take(self, first: npt.NDArray[np.int64], choice: int, free: dict[int, Floats], whole: bool) -> None:
        """Keep a load (one for each schedule) for some turns where there is room, from the innermost memory out."""
        rows = np.arange(len(first))
        rows = np.flatnonzero(self.alone & (self.many[choice][first, rows] > 1.0) & (self.where[first, rows] == 0))
        for level, number in reversed(list(enumerate(free))):
            if not len(rows):
                return
            some, given = first[rows], self.given[rows]
            count = self.waiting[choice][some, rows]
            buffers = self.buffers[level][some, rows]
            two = buffers > 1.0
            sets = np.where(two, np.minimum(buffers, self.sets[choice][some, rows]), 1.0)
            unit = self.needs[choice][some, number, rows] / count * sets
            room = np.floor(free[number][rows] / unit + 1e-9)
            blocks = np.where(room >= count, count, room - 1.0)
            allowed = np.where(given, self.staged[level][some, rows] & whole, True)
            allowed = allowed & ~(two & (self.uneven[rows] | self.several[some, rows]))
            taken = allowed & (blocks >= (count if whole else 1.0))
            mine, there = some[taken], rows[taken]
            self.where[mine, there], self.choice[mine, there], self.held[mine, there] = number, choice, blocks[taken]
            free[number][there] -= np.ceil(unit * np.where(blocks < count, blocks + 1.0, count))[taken]
            rows = rows[~taken]

    def kept(self, load: int, since: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Kept:
        """One load's, in the shape of the schedules."""
        rows, choice = np.arange(len(self.alone)), self.choice[load]
        many, waits = self.many[choice, load, rows], self.waiting[choice, load, rows]
        share = self.held[load] / waits
        seldom = 1.0 / (share / many + 1.0 - share)
        found = [self.where[load], self.held[load], waits, seldom, since[choice]]
        lacks = {}
        for level, (place, number) in enumerate(memories(self.target).items()):
            wanted = self.staged[level][load] & (self.where[load] != number)
            if np.any(wanted):
                useful = self.alone & (self.many[:, load] > 1.0)
                sets = np.maximum(np.minimum(self.buffers[level][load], self.sets[:, load]), 1.0)
                least = np.where(useful, self.needs[:, load, number] * sets, np.inf).min(axis=0)
                two = self.buffers[level][load] > 1.0
                least = np.where(two & self.several[load], SEVERAL, np.where(two & self.uneven, UNEVEN, least))
                lacks[place] = np.where(wanted, np.where(useful.any(axis=0), least, -1.0), 0.0).reshape(shape)
        levels = enumerate(memories(self.target).values())
        asked = [np.where(self.where[load] == number, self.buffers[level][load], 0.0) for level, number in levels]
        found += [np.maximum(np.max(asked, axis=0), 1.0), self.sets[choice, load, rows]]
        port, held, waits, seldom, first, buffers, sets = (np.asarray(column).reshape(shape) for column in found)
        return Kept(port, held, waits, seldom, first, lacks, buffers, sets)


def unfit(target: Target, loads: Sequence[Again], kept: Sequence[Kept], staged: Staged, row: int = 0) -> str:
    """Why a schedule can't stage what it says; empty where it can. Of the `row`-th schedule."""

    def at(column: Array) -> float:
        return float(np.ravel(column)[row if np.size(column) > 1 else 0])

    for place, number in memories(target).items():
        for operand, many in staged.get(place, {}).items():
            if not at(many):
                continue
            path = f"levels.{place}.stage.{operand}"
            mine = [one for load, one in zip(loads, kept, strict=True) if load.operand == operand]
            needs = [at(one.lacks.get(place, 0.0)) for one in mine]
            if not mine:
                return (
                    f"{path}: which part of it a program loads depends on data or on a mask, so nothing is read again"
                )
            if SEVERAL in needs:
                return f"{path}: a program loads a tile of it several times, which one buffer is for"
            if UNEVEN in needs:
                return f"{path}: two buffers need programs that divide evenly among the cores that they are split over"
            if min(needs) < 0.0:
                return f"{path}: no later block of the same cores reads it again"
            if max(needs) > 0.0:
                limit = target.ports[number].capacity
                return f"{path}: needs {int(max(needs)):,} B beside the others, limit {limit:,} B"
    return ""


def holders(target: Target, port: int) -> int:
    """Over how many instances of a memory what is kept is spread: all, where a network sends from one to many."""
    return target.cores // target.ports[port].cores if port and target.ports[port - 1].multicast else 1


def _sets(before: Sequence[Turn]) -> Array:
    """How many sets there are, one after the other, of what is read again within later turns."""
    total: Array = 1.0
    for turn in before:
        total = total * turn.count
    return total


def _uneven(lay: Layout) -> Array:
    """Whether some cores of a gang have no program in some blocks."""
    found: Array = 0.0
    for dim, whole in lay.whole.items():
        used: Array = 1.0
        for at in lay.used:
            used = used * at.get(dim, 1.0)
        found = np.maximum(found, np.asarray(used) < np.asarray(whole) * (1.0 - 1e-9))
    return found


def _bytes(target: Target, lay: Layout, load: Again, waits: Array, port: int) -> Any:
    """Bytes that one instance of a memory holds until they are read again: of the cores' tiles, over the blocks in between."""
    spread = holders(target, port)
    total: Array = load.tiles * load.bytes * waits
    for parts in lay.parts[0 if spread > 1 else target.ports[port].inside :]:
        for dim, many in parts.items():
            total = total * (many if dim in load.dims else 1.0)
    return np.ceil(np.asarray(total, dtype=np.float64) / spread)
