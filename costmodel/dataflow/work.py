"""What a program of a dataflow machine does for one kernel: its loops, and per step of each the work of every engine.

Composed of the instructions of the kernel's text (`selection`), whose sizes take the numbers of a batch of schedules here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np

from codesign.costmodel.dataflow.bursts import Pull
from codesign.costmodel.dataflow.common import Common
from codesign.costmodel.dataflow.engines import apart, matmul_clocks, matmul_reads, vector_clocks, vector_joules
from codesign.costmodel.dataflow.items import Item, Multiply, Touch, Transfer, Vectors
from codesign.costmodel.dataflow.keeping import Again, Kept, holders, kept, unfit
from codesign.costmodel.dataflow.placing import Storage
from codesign.costmodel.dataflow.resting import held, names_of
from codesign.costmodel.dataflow.resting import unfit as resting_unfit
from codesign.costmodel.dataflow.selection import Section, Selection
from codesign.costmodel.dataflow.shape import EVERY, Array, Some, cut
from codesign.costmodel.dataflow.space import portions, users
from codesign.costmodel.dataflow.transfer import transfer
from codesign.ir.dtypes import DTYPES
from codesign.ir.index import Index, product
from codesign.ir.types import BufferType


@dataclass(frozen=True, eq=False)
class Task:
    """One instruction of a step: clocks on its engine, and for transfers the bytes of lines that pass the ports.

    `portions`: of the bytes, for each port, which pass it for this core; the rest comes with what others load. `links`: which pass the busiest link
    behind each port. `shared`: how far among all cores the
    first ones reach that begin it together (None: each begins its own). `follows`: a gather that waits for positions which a load before it brings.
    """

    engine: str
    clocks: Array
    moved: Array = 0.0
    portions: tuple[Array, ...] = ()
    links: tuple[Array, ...] = ()
    shared: Array = None
    follows: bool = False

    def of(self, rows: Some) -> Task:
        """The instruction under some of the schedules."""
        if rows is EVERY:
            return self
        portions, links = (tuple(cut(part, rows) for part in parts) for parts in (self.portions, self.links))
        clocks, moved, shared = (cut(figure, rows) for figure in (self.clocks, self.moved, self.shared))
        return Task(self.engine, clocks, moved, portions, links, shared, self.follows)


@dataclass(eq=False)
class Stage:
    """A loop (or straight code, one trip) of a program: clocks of one step on each engine (`busy`), and what it moves.

    `tasks` in program order. A loop inside the steps of another one (`around`) comes first in them; its `trips` count those of both, in the
    mean over all cores, its `steps` those of the core that makes most (default: as many). `straight`: it is no loop (default: one step).
    """

    trips: Array = 1.0
    steps: Array = None
    busy: dict[str, Array] = field(default_factory=dict)
    instructions: Array = 0.0
    read: tuple[Array, ...] = ()
    written: tuple[Array, ...] = ()
    """For each port, what passes it outward and inward for this core; nothing where it is empty."""
    joules: Array = 0.0
    tasks: list[Task] = field(default_factory=list)
    touched: list[tuple[Touch, ...]] = field(default_factory=list)
    """By task, which buffers it reads and which it writes."""
    around: Stage | None = None
    straight: bool | None = None
    section: Section | None = None
    """Whose steps these are."""
    pulls: list[Pull] = field(default_factory=list)
    """Of a loop, its loads, of which some may come from far away in some of the blocks only; of straight code, those with two buffers."""

    def __post_init__(self) -> None:
        if self.steps is None:
            self.steps = self.trips
        if self.straight is None:
            self.straight = bool(np.all(np.asarray(self.steps) == 1))

    def of(self, rows: Some) -> Stage:
        """The stage under some of the schedules."""
        trips, steps, instructions, joules = (
            cut(each, rows) for each in (self.trips, self.steps, self.instructions, self.joules)
        )
        read, written = (tuple(cut(part, rows) for part in parts) for parts in (self.read, self.written))
        busy = {engine: cut(clocks, rows) for engine, clocks in self.busy.items()}
        tasks = [task.of(rows) for task in self.tasks]
        pulls = [pull.of(rows) for pull in self.pulls]
        found = Stage(trips, steps, busy, instructions, read, written, joules, tasks, self.touched, self.around)
        found.straight, found.section, found.pulls = self.straight, self.section, pulls
        return found

    def add(self, task: Task, touched: tuple[Touch, ...] = ()) -> None:
        """Add an instruction that touches some buffers; one that takes no clocks under any schedule is none."""
        if np.any(task.clocks):
            self.busy[task.engine] = self.busy.get(task.engine, 0.0) + task.clocks
            self.instructions = self.instructions + (np.asarray(task.clocks) > 0)
            self.tasks.append(task)
            self.touched.append(touched)


@dataclass
class Work:
    """All stages of one program instance in order, and of what they keep in scratchpad (`storage`) so many bytes
    (`sizes`, with none where a schedule's text is without it).

    `unfit`: schedules that stage what can't be, and `why`, of one of them.
    """

    stages: list[Stage]
    storage: Storage
    sizes: Sequence[Array] = ()
    unfit: Array = False
    why: Callable[[int], str] = str

    def of(self, rows: Some) -> Work:
        """The stages under some of the schedules."""
        stages = {id(stage): stage.of(rows) for stage in self.stages}
        for stage in stages.values():
            stage.around = None if stage.around is None else stages[id(stage.around)]
        return Work(list(stages.values()), self.storage)


def work_of(selection: Selection, common: Common, rows: slice = EVERY) -> Work:
    """The work of one program instance, under some of the schedules."""
    if not common.name(selection.template.tiles):
        common = Common(common.target, common.shape, common.dataflow)
        common.name(selection.template.tiles)
    return _Composer(selection, common, rows).work()


@dataclass(frozen=True)
class _Figures:
    """What an item makes its engines do under all schedules."""

    tasks: tuple[Task, ...]
    joules: Array
    read: tuple[Array, ...] = ()
    written: tuple[Array, ...] = ()
    staged: Array = None
    """Clocks of the DMA of an outer memory, which brings what has two buffers there; None where nothing has."""
    pull: Pull | None = None


class _Composer:
    def __init__(self, selection: Selection, common: Common, rows: slice) -> None:
        self.selection = selection
        self.common = common
        self.rows = rows
        self.target = common.target
        self.shape = common.shape
        kernel = selection.template.kernel
        self.bytes_of = {
            name: int(common.at(product(value.shape)) * value.type.dtype.bytes)
            for value, name in zip(kernel.params, names_of(kernel), strict=True)
            if name in self.shape.resting and isinstance(value.type, BufferType)
        }
        self.kept = self._kept()

    def work(self) -> Work:
        stages: dict[int, Stage] = {}
        for section in self.selection.sections:
            trips, steps = (cut(self._times(section, which), self.rows) for which in (0, 1))
            stages[id(section)] = Stage(trips=trips, steps=steps, straight=not section.loops, section=section)
        for section in self.selection.sections:
            stage = stages[id(section)]
            stage.around = stages[id(section.around)] if section.around is not None else None
            for item, touched in zip(section.items, section.touched, strict=True):
                self._add(self._figures(item), stage, touched)
        work = Work(list(stages.values()), self.selection.storage)
        self._buffers(work)
        self._staged(work)
        return work

    def at(self, expression: Index) -> Array:
        """The value of an expression under the schedules."""
        return cut(self.common.at(expression), self.rows)

    def _times(self, section: Section, which: Literal[0, 1]) -> Array:
        """Steps of a section in the mean over all cores (0), or of the core that makes most (1)."""
        if not section.dims:
            return 1.0
        around = 1.0 if section.around is None else self._times(section.around, which)
        last = section.dims[-1]
        if section.stretch is not None:
            return around * self.shape.parted[last, section.stretch][which]
        return around * (self.shape.made, self.shape.longest)[which][last]

    def _add(self, figures: _Figures, stage: Stage, touched: tuple[tuple[Touch, ...], ...]) -> None:
        """Let a step of a stage do what an item is."""
        for task, mine in zip(figures.tasks, touched, strict=True):
            stage.add(task.of(self.rows), mine)
        if figures.staged is not None and np.any(figures.staged):
            clocks = cut(figures.staged, self.rows)
            stage.busy["stage"] = stage.busy.get("stage", 0.0) + clocks
            stage.instructions = stage.instructions + (np.asarray(clocks) > 0)
        if figures.pull is not None and (not stage.straight or np.any(figures.pull.two)):
            stage.pulls.append(figures.pull.of(self.rows))
        stage.joules = stage.joules + cut(figures.joules, self.rows)
        stage.read, stage.written = (
            tuple(before + cut(more, self.rows) for before, more in zip(sofar or (0.0,) * len(some), some, strict=True))
            if some
            else sofar
            for sofar, some in ((stage.read, figures.read), (stage.written, figures.written))
        )

    def _figures(self, item: Item) -> _Figures:
        if isinstance(item, Multiply):
            sides = (item.product.m, item.product.n, item.product.k)
            key: Hashable = ("multiply", *sides, item.dtype, item.right, item.result.size)
            return self.common.once(key, lambda: self._multiply(item))
        if isinstance(item, Vectors):
            return self.common.once(item.key, lambda: self._vectors(item))
        if item.kind == "store":
            return self.common.once(("store", item.access, item.operand), lambda: self._store(item))
        kept, gathers = self.kept.get(id(item)), item.move.gathers  # one object for all texts whose loads are alike
        key = ("load", item.access, item.operand, item.dims, gathers, item.follows, item.filled, id(kept))
        return self.common.once(key, lambda: self._load(item))

    # -- compute -------------------------------------------------------------------------------------------------
    def _multiply(self, item: Multiply) -> _Figures:
        target, found, at = self.target, item.product, self.common.at
        m, n, k = (at(side) for side in (found.m, found.n, found.k))
        left, right = DTYPES[item.dtype], DTYPES[item.right]
        task = Task("tensor", matmul_clocks(target, m, n, k, left, self.common.dataflow, right))
        a, b = matmul_reads(target, m, n, k, self.common.dataflow)
        each = target.array.multiply_joules(left, right)
        result = at(item.result.size)
        near = result * np.minimum(self.shape.pipeline, 2.0) <= target.capacity.get("array", 0)
        accumulating = np.where(near, 0.0, result * (target.scratch_read_joules + target.scratch_write_joules))
        joules = 2.0 * m * n * k * each + (a * left.bytes + b * right.bytes) * target.scratch_read_joules
        return _Figures((task,), joules + accumulating)

    def _vectors(self, item: Vectors) -> _Figures:
        """Element-wise work; parts that need fewer points by instructions of their own, where that pays."""
        target, at = self.target, self.common.at
        points, read, written = (at(part) for part in (item.points, item.read, item.written))
        operations: dict[tuple[str, str], Array] = dict(item.slots)
        tasks: list[Task] = []
        joules: Array = 0.0
        for part in item.parts:
            lanes, reads, inline, writes = (at(each) for each in (part.points, part.read, part.inline, part.written))
            alone = apart(points, lanes, sum(part.slots.values()))
            clocks = vector_clocks(target, lanes, part.slots, reads + writes)
            tasks.append(Task("vector", np.where(alone, clocks, 0.0)))
            joules = joules + np.where(alone, self._vector_joules(lanes, part.slots, reads, writes), 0.0)
            read = read + np.where(alone, writes, inline)
            for key, cost in part.inline_slots.items():
                operations[key] = operations.get(key, 0.0) + np.where(alone, 0.0, cost)
        tasks.append(Task("vector", vector_clocks(target, points, operations, read + written, reduces=item.reduces)))
        return _Figures(tuple(tasks), joules + self._vector_joules(points, operations, read, written))

    def _vector_joules(
        self, points: Array, operations: Mapping[tuple[str, str], Array], read: Array, written: Array
    ) -> Array:
        target = self.target
        scratch = read * target.scratch_read_joules + written * target.scratch_write_joules
        return vector_joules(target, points, operations) + scratch

    # -- memory --------------------------------------------------------------------------------------------------
    def _moved(self, item: Transfer) -> tuple[Array, Array, Array]:
        key = ("transfer", item.access, item.kind)
        return self.common.once(key, lambda: transfer(item.access, self.target, self.shape, item.kind))

    def _passed(self, outer: int) -> tuple[float, ...]:
        """Which ports are passed by what is read from or written to the memory at one of them."""
        return tuple(float(number >= outer) for number in range(len(self.target.ports)))

    def _store(self, item: Transfer) -> _Figures:
        target = self.target
        clocks, moved, wanted = self._moved(item)
        outer = self.shape.resting.get(item.operand, 0)
        passed = self._passed(outer)
        links, hops = self._networks(passed, None)
        path = sum((port.read_joules + port.write_joules) * wanted for port in target.ports[outer + 1 :])
        end = target.ports[outer].write_joules * (wanted if outer else moved)
        joules = hops * wanted + end + path + wanted * target.scratch_read_joules
        task = Task("store", clocks, moved, passed, links)
        return _Figures((task,), joules, written=tuple(moved * share for share in passed))

    def _load(self, item: Transfer) -> _Figures:
        target = self.target
        clocks, moved, wanted = self._moved(item)
        outer = self.shape.resting.get(item.operand, 0)
        dims = frozenset(self.shape.extents) if item.move.gathers else item.dims
        leaves, arrives = self.common.once(
            ("portions", dims), lambda: portions(target, self.shape.layout.sharers(dims))
        )
        together = self._together(item, leaves)
        pull = self._pull(item, clocks, moved, leaves, dims)
        two = bool(np.any(pull.two))
        staged = np.where(pull.two, pull.ahead / pull.times, 0.0) if two else None
        everything = leaves
        leaves, arrives = self._less_what_is_kept(item, leaves, arrives)
        leaves = tuple(share * here for share, here in zip(leaves, self._passed(outer), strict=True))
        spread = holders(target, outer) > 1
        arrives = tuple(
            share * (number > outer or (number == outer and spread)) if outer else share
            for number, share in enumerate(arrives)
        )
        links, hops = self._networks(leaves, dims)
        path = sum(
            (port.read_joules * out + port.write_joules * into) * wanted
            for port, out, into in zip(target.ports[1:], leaves[1:], arrives[1:], strict=True)
        )
        from_dram = moved * leaves[0] * target.dram.read_joules
        filled = self.common.at(item.filled)
        joules = hops * wanted + from_dram + path + filled * target.scratch_write_joules
        read = tuple(moved * share for share in leaves)
        written: tuple[Array, ...] = ()
        if two:
            leaves, links, written, more = self._staged_apart(item, leaves, links, everything, dims)
            written, joules = tuple(moved * share for share in written), joules + more * wanted
        task = Task("load", clocks, moved, leaves, links, together, item.follows)
        return _Figures((task,), joules, read=read, written=written, staged=staged, pull=pull)

    def _staged_apart(
        self,
        item: Transfer,
        leaves: tuple[Array, ...],
        links: tuple[Array, ...],
        whole: tuple[Array, ...],
        dims: Set[str],
    ) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...], Array]:
        """Where the memory's own DMA brings a load's data: what the load itself takes from each port and its links, what is written into
        that memory, and joules of a byte for that beside what passes it anyway. `whole`: what leaves each port when nothing is kept."""
        _, found = self.kept[id(item)]
        two = found.buffers > 1
        near = [two & (found.port > number) for number in range(len(leaves))]
        mine = tuple(np.where(skip, 0.0, share) for skip, share in zip(near, leaves, strict=True))
        mine_links, _ = self._networks(
            tuple(np.where(skip, 0.0, share) for skip, share in zip(near, whole, strict=True)), dims
        )
        of_links = tuple(np.where(two, mine, every) for mine, every in zip(mine_links, links, strict=True))
        members = prod(self.shape.layout.sharers(dims))
        written: list[Array] = []
        joules: Array = 0.0
        for number, port in enumerate(self.target.ports):
            here = two & (found.port == number)
            spread = holders(self.target, number) > 1
            inside = members if spread else prod(self.shape.layout.sharers(dims)[port.inside :])
            written.append(np.where(here, 1.0 / found.times / inside, 0.0))
            joules = joules + (np.where(here, port.write_joules / found.times / inside, 0.0) if spread else 0.0)
        return mine, of_links, tuple(written), joules

    def _pull(self, item: Transfer, clocks: Array, moved: Array, leaves: tuple[Array, ...], dims: Set[str]) -> Pull:
        """The load as a loop's bursts see it; `leaves`: what passes each port when nothing is kept."""
        _, found = self.kept.get(id(item), (None, Kept(0, 1, 1, 1)))
        cores = self.shape.layout.cores
        reach = self.common.once("users", lambda: users(self.target, self.shape.layout))
        links, _ = self._networks(leaves, dims)
        near = far = np.zeros(1)
        for number, (port, most, share, link) in enumerate(zip(self.target.ports, reach, leaves, links, strict=True)):
            many = np.minimum(cores, most)
            all_cores = moved / port.bytes_per_clock * np.maximum(many * share, 1.0)
            if port.network is not None:
                all_cores = np.maximum(all_cores, moved / port.network.bytes_per_clock * many * link)
            outside = found.port > number
            far, near = (
                np.maximum(far, np.where(outside, all_cores, 0.0)),
                np.maximum(near, np.where(outside, 0.0, all_cores)),
            )
        two = np.asarray(found.buffers) > 1
        kept = np.asarray(found.port) > 0
        first = []
        for number, turn in enumerate(self.shape.turns):
            later = number >= np.asarray(found.since)
            first.append(kept & np.where(later, turn.dim not in item.dims, two))
        members = prod(self.shape.layout.sharers(dims))
        return Pull(clocks, near, far, clocks / members, np.where(kept, found.times, 1.0), two, tuple(first))

    def _networks(self, leaves: Sequence[Array], dims: Set[str] | None) -> tuple[tuple[Array, ...], Array]:
        """Behind each port the part of a core's bytes that passes the busiest link, and joules of a byte on all links.

        `dims`: that a load depends on; where a network sends to many, its data goes to all instances along the others at once.
        """
        sharers = [1.0] * len(self.target.places) if dims is None else self.shape.layout.sharers(dims)
        links: list[Array] = []
        joules: Array = 0.0
        for port, portion in zip(self.target.ports, leaves, strict=True):
            if port.network is None:
                links.append(0.0)
                continue
            together: Array = 1.0
            for many in sharers[port.inside : port.network.inside] if port.multicast else ():
                together = together * many
            links.append(portion * port.network.busiest(together))
            joules = joules + portion * port.network.passed(together) * port.network.joules
        return tuple(links), joules

    def _together(self, item: Transfer, leaves: tuple[Array, ...]) -> Array:
        shared = np.any(np.stack(np.broadcast_arrays(*leaves)) < 1.0, axis=0)
        return np.where(shared, self.shape.layout.reach(item.dims), 0.0) if np.any(shared) else None

    def _kept(self) -> dict[int, tuple[Again, Kept]]:
        """Loads that may be the same again, where their data is kept for later blocks."""
        found = [
            (item, section.dims)
            for section in self.selection.sections
            for item in section.items
            if isinstance(item, Transfer) and item.kind == "load" and not item.move.gathers and not item.cut
            if item.operand not in self.shape.resting
        ]
        key = ("kept", *((item.dims, item.filled, item.operand, dims) for item, dims in found))
        loads = self.common.once(key, lambda: self._again(found))
        return {id(item): load for (item, _), load in zip(found, loads, strict=True)}

    def _again(self, found: Sequence[tuple[Transfer, tuple[str, ...]]]) -> list[tuple[Again, Kept]]:
        """Where data of loads is kept."""
        loads: list[Again] = []
        for item, dims in found:
            tiles: Array = 1.0
            for dim in item.dims & self.shape.inner:
                tiles = tiles * self.shape.trips[dim]
            grid = item.dims.intersection(self.shape.layout.blocks)
            others = [self.shape.trips[dim] > 1 for dim in dims if dim not in item.dims]
            several = np.any(np.stack(np.broadcast_arrays(*others)), axis=0) if others else False
            loads.append(Again(grid, tiles, self.common.at(item.filled), item.operand, several))
        rests = held(self.target, self.shape.resting, self.bytes_of)
        where = kept(self.target, self.shape.layout, self.shape.turns, loads, self.shape.staged, rests)
        return list(zip(loads, where, strict=True))

    def _staged(self, work: Work) -> None:
        """Which schedules stage what can't be."""
        if reason := resting_unfit(self.target, self.shape.resting, self.bytes_of):
            work.unfit, work.why = True, lambda _: reason
            return
        asked = [cut(column, self.rows) for at in self.shape.staged.values() for column in at.values()]
        asked = [column for column in asked if np.any(column)]
        if not asked:
            return
        loads, where = zip(*self.kept.values(), strict=True) if self.kept else ((), ())
        first = self.rows.start or 0

        def why(row: int) -> str:
            return unfit(self.target, loads, where, self.shape.staged, first + row)

        rows = np.flatnonzero(np.sum(np.broadcast_arrays(*asked), axis=0))
        work.unfit = np.zeros(max(np.size(column) for column in asked), dtype=np.bool_)
        work.unfit[rows] = [bool(why(row)) for row in rows.tolist()]
        work.why = why

    def _less_what_is_kept(
        self, item: Transfer, leaves: tuple[Array, ...], arrives: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The parts that pass each port when what a memory inside of it keeps passes once."""
        _, found = self.kept.get(id(item), (None, None))
        if found is None or not np.any(found.port):
            return leaves, arrives
        scaled = [np.where(found.port > i, 1.0 / found.times, 1.0) for i in range(len(leaves) + 1)]
        out = tuple(share * scaled[i] for i, share in enumerate(leaves))
        # what is spread over many instances passes from the one that holds it to the others
        passed = (np.where(found.port == i, holders(self.target, i) > 1, False) for i in range(1, len(arrives)))
        into = (np.where(again, scaled[i], scaled[i - 1]) for i, again in enumerate(passed, 1))
        return out, (arrives[0], *(share * part for share, part in zip(arrives[1:], into, strict=True)))

    def _buffers(self, work: Work) -> None:
        """What lies in scratchpad: of a loop none of whose steps is whole, only that of the one stretch that has all of them."""
        sizes: list[Array] = []
        for buffer in self.selection.storage.buffers:
            size = self.at(buffer.size)
            if buffer.part is not None:
                points, lanes, slots = buffer.part
                size = np.where(apart(self.at(points), self.at(lanes), slots), size, 0.0)
            for section in buffer.inside:
                if section.stretch in ("before", "whole", "after"):
                    whole, steps = (self.shape.parted[section.dims[-1], name][0] for name in ("whole", section.stretch))
                    there = (np.asarray(whole) > 0.0) | (np.asarray(steps) > 0.0)
                    size = np.where(cut(there, self.rows), size, 0.0)
            sizes.append(size)
        work.sizes = sizes


def busiest(stages: Sequence[Stage]) -> dict[str, Array]:
    """Clocks of a whole program on each engine."""
    total: dict[str, Array] = {}
    for stage in stages:
        for engine, clocks in stage.busy.items():
            total[engine] = total.get(engine, 0.0) + clocks * stage.trips
    return total
