"""What a program of a dataflow machine does for one kernel: its loops, and per step of each the work of every engine.

Composed of the instructions of the kernel's text (`selection`), whose sizes take the numbers of a batch of schedules here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from codesign.costmodel.dataflow.engines import apart, matmul_clocks, matmul_reads, vector_clocks, vector_joules
from codesign.costmodel.dataflow.keeping import Again, Kept, holders, kept, unfit
from codesign.costmodel.dataflow.resting import held, names_of
from codesign.costmodel.dataflow.resting import unfit as resting_unfit
from codesign.costmodel.dataflow.selection import Item, Multiply, Section, Selection, Transfer, Vectors
from codesign.costmodel.dataflow.shape import Array, Shape
from codesign.costmodel.dataflow.space import portions
from codesign.costmodel.dataflow.target import Target
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
    `users`: the engines that use what a load brings.
    """

    engine: str
    clocks: Array
    moved: Array = 0.0
    portions: tuple[Array, ...] = ()
    links: tuple[Array, ...] = ()
    shared: Array = None
    follows: bool = False
    users: Set[str] = frozenset()


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
    around: Stage | None = None
    straight: bool | None = None

    def __post_init__(self) -> None:
        if self.steps is None:
            self.steps = self.trips
        if self.straight is None:
            self.straight = bool(np.all(np.asarray(self.steps) == 1))

    def add(self, task: Task) -> None:
        """Add an instruction; one that takes no clocks under any schedule is none."""
        if np.any(task.clocks):
            self.busy[task.engine] = self.busy.get(task.engine, 0.0) + task.clocks
            self.instructions = self.instructions + (np.asarray(task.clocks) > 0)
            self.tasks.append(task)


@dataclass
class Work:
    """All stages of one program instance in order, and the bytes of its buffers.

    `run_ahead`: buffers of loads inside loops, one slot; `turn`: buffers that want a slot per program in flight; `fixed`: the rest, which needs one.
    `accumulators` may live in the array's own memory. `crowds`: the same four of each set that lives at once.
    `unfit`: schedules that stage what can't be, and `why`, of one of them.
    """

    stages: list[Stage] = field(default_factory=list)
    run_ahead: Array = 0.0
    turn: Array = 0.0
    fixed: Array = 0.0
    accumulators: Array = 0.0
    crowds: list[tuple[Array, Array, Array, Array]] = field(default_factory=list)
    unfit: Array = False
    why: Callable[[int], str] = str


def work_of(selection: Selection, target: Target, shape: Shape, dataflow: str = "") -> Work:
    """The work of one program instance."""
    return _Composer(selection, target, shape, dataflow).work()


class _Composer:
    def __init__(self, selection: Selection, target: Target, shape: Shape, dataflow: str) -> None:
        self.selection = selection
        self.target = target
        self.shape = shape
        self.dataflow = dataflow
        tiles = selection.template.tiles
        self.sizes: dict[str, Array] = {**shape.symbols, **{symbol: shape.tile[dim] for dim, symbol in tiles.items()}}
        self.known: dict[Index, Array] = {}
        kernel = selection.template.kernel
        self.bytes_of = {
            name: int(self.at(product(value.shape)) * value.type.dtype.bytes)
            for value, name in zip(kernel.params, names_of(kernel), strict=True)
            if name in shape.resting and isinstance(value.type, BufferType)
        }
        self.kept = self._kept()

    def work(self) -> Work:
        stages: dict[int, Stage] = {}
        for section in self.selection.sections:
            trips, steps = (self._times(section, which) for which in (0, 1))
            stages[id(section)] = Stage(trips=trips, steps=steps, straight=not section.loops)
        for section in self.selection.sections:
            stage = stages[id(section)]
            stage.around = stages[id(section.around)] if section.around is not None else None
            for item in section.items:
                self._item(item, stage)
        work = Work(list(stages.values()))
        self._buffers(work)
        self._staged(work)
        return work

    def at(self, expression: Index) -> Array:
        """The value of an expression under the schedules."""
        if expression not in self.known:
            self.known[expression] = expression.evaluate(self.sizes)
        return self.known[expression]

    def _times(self, section: Section, which: Literal[0, 1]) -> Array:
        """Steps of a section in the mean over all cores (0), or of the core that makes most (1)."""
        if not section.dims:
            return 1.0
        around = 1.0 if section.around is None else self._times(section.around, which)
        last = section.dims[-1]
        if section.stretch is not None:
            return around * self.shape.parted[last, section.stretch][which]
        return around * (self.shape.made, self.shape.longest)[which][last]

    def _item(self, item: Item, stage: Stage) -> None:
        if isinstance(item, Transfer):
            self._transfer(item, stage)
        elif isinstance(item, Multiply):
            self._multiply(item, stage)
        else:
            self._vectors(item, stage)

    # -- compute -------------------------------------------------------------------------------------------------
    def _multiply(self, item: Multiply, stage: Stage) -> None:
        target, found = self.target, item.product
        m, n, k = (self.at(side) for side in (found.m, found.n, found.k))
        dtype = DTYPES[item.dtype]
        stage.add(Task("tensor", matmul_clocks(target, m, n, k, dtype, self.dataflow)))
        a, b = matmul_reads(target, m, n, k, self.dataflow)
        each = target.array.joules.get(dtype.name, target.array.joules.get("bf16", float("nan")))
        result = self.at(item.result.size)
        near = result * np.minimum(self.shape.pipeline, 2.0) <= target.capacity.get("array", 0)
        accumulating = np.where(near, 0.0, result * (target.scratch_read_joules + target.scratch_write_joules))
        stage.joules = stage.joules + 2.0 * m * n * k * each + (a + b) * dtype.bytes * target.scratch_read_joules
        stage.joules = stage.joules + accumulating

    def _vectors(self, item: Vectors, stage: Stage) -> None:
        """Element-wise work; parts that need fewer points by instructions of their own, where that pays."""
        target = self.target
        points, read, written = (self.at(part) for part in (item.points, item.read, item.written))
        (_, slots), *fewer = item.parts
        operations: dict[tuple[str, str], Array] = dict(slots)
        for size, extra in fewer:
            lanes = self.at(size)
            alone = apart(points, lanes, sum(extra.values()))
            moved = 2.0 * lanes * item.width
            stage.add(Task("vector", np.where(alone, vector_clocks(target, lanes, extra, moved), 0.0)))
            stage.joules = stage.joules + np.where(alone, self._vector_joules(lanes, extra, moved / 2, moved / 2), 0.0)
            for key, cost in extra.items():
                operations[key] = operations.get(key, 0.0) + np.where(alone, 0.0, cost)
        stage.add(Task("vector", vector_clocks(target, points, operations, read + written, reduces=item.reduces)))
        stage.joules = stage.joules + self._vector_joules(points, operations, read, written)

    def _vector_joules(
        self, points: Array, operations: Mapping[tuple[str, str], Array], read: Array, written: Array
    ) -> Array:
        target = self.target
        scratch = read * target.scratch_read_joules + written * target.scratch_write_joules
        return vector_joules(target, points, operations) + scratch

    # -- memory --------------------------------------------------------------------------------------------------
    def _transfer(self, item: Transfer, stage: Stage) -> None:
        target = self.target
        clocks, moved, wanted = transfer(item.access, target, self.shape, item.kind)
        outer = self.shape.resting.get(item.operand, 0)
        passed = tuple(float(number >= outer) for number in range(len(target.ports)))
        if item.kind == "store":
            before = stage.written or (0.0,) * len(passed)
            stage.written = tuple(sofar + moved * share for sofar, share in zip(before, passed, strict=True))
            links, hops = self._networks(passed, None)
            stage.add(Task("store", clocks, moved, passed, links))
            stage.joules = stage.joules + hops * wanted
            path = sum((port.read_joules + port.write_joules) * wanted for port in target.ports[outer + 1 :])
            end = target.ports[outer].write_joules * (wanted if outer else moved)
            stage.joules = stage.joules + end + path + wanted * target.scratch_read_joules
            return
        leaves, arrives = self._portions(item)
        together = self._together(item, leaves)
        leaves, arrives = self._less_what_is_kept(item, leaves, arrives)
        leaves = tuple(share * here for share, here in zip(leaves, passed, strict=True))
        spread = holders(target, outer) > 1
        arrives = tuple(
            share * (number > outer or (number == outer and spread)) if outer else share
            for number, share in enumerate(arrives)
        )
        links, hops = self._networks(leaves, set(self.shape.extents) if item.move.gathers else self._dims(item))
        stage.joules = stage.joules + hops * wanted
        passing = stage.read or (0.0,) * len(leaves)
        stage.read = tuple(before + moved * share for before, share in zip(passing, leaves, strict=True))
        users = item.buffer.engines - {"load"}
        stage.add(Task("load", clocks, moved, leaves, links, together, item.follows, users))
        path = sum(
            (port.read_joules * out + port.write_joules * into) * wanted
            for port, out, into in zip(target.ports[1:], leaves[1:], arrives[1:], strict=True)
        )
        from_dram = moved * leaves[0] * target.dram.read_joules
        stage.joules = stage.joules + from_dram + path + self.at(item.filled) * target.scratch_write_joules

    def _networks(self, leaves: Sequence[Array], dims: set[str] | None) -> tuple[tuple[Array, ...], Array]:
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

    def _dims(self, item: Transfer) -> set[str]:
        """Dims that a load depends on, through the ends of the loops around it too where a mask cuts them."""
        along = self.selection.template.along
        names = item.move.follows | item.move.bounds
        return {along.get(name, name) for name in names} & self.shape.extents.keys()

    def _portions(self, item: Transfer) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Parts of a load's bytes that pass each port outward and inward for one core; positions that depend on data are its own."""
        dims = set(self.shape.extents) if item.move.gathers else self._dims(item)
        return portions(self.target, self.shape.layout.sharers(dims))

    def _together(self, item: Transfer, leaves: tuple[Array, ...]) -> Array:
        shared = np.any(np.stack(np.broadcast_arrays(*leaves)) < 1.0, axis=0)
        return np.where(shared, self.shape.layout.reach(self._dims(item)), 0.0) if np.any(shared) else None

    def _kept(self) -> dict[int, tuple[Again, Kept]]:
        """By load that may be the same again, where its data is kept for later blocks."""
        found = [
            item
            for section in self.selection.sections
            for item in section.items
            if isinstance(item, Transfer) and item.kind == "load" and not item.move.gathers and not item.cut
            if item.operand not in self.shape.resting
        ]
        loads: list[Again] = []
        for item in found:
            dims = self._dims(item)
            tiles: Array = 1.0
            for dim in dims & self.shape.looped:
                tiles = tiles * self.shape.trips[dim]
            grid = frozenset(dims) & self.shape.layout.blocks.keys()
            loads.append(Again(grid, tiles, self.at(item.filled), item.operand))
        rests = held(self.target, self.shape.resting, self.bytes_of)
        where = kept(self.target, self.shape.layout, self.shape.turns, loads, self.shape.staged, rests)
        return {id(item): (load, one) for item, load, one in zip(found, loads, where, strict=True)}

    def _staged(self, work: Work) -> None:
        """Which schedules stage what can't be."""
        if reason := resting_unfit(self.target, self.shape.resting, self.bytes_of):
            work.unfit, work.why = True, lambda _: reason
            return
        asked = [column for at in self.shape.staged.values() for column in at.values() if np.any(column)]
        if not asked:
            return
        loads, where = zip(*self.kept.values(), strict=True) if self.kept else ((), ())

        def why(row: int) -> str:
            return unfit(self.target, loads, where, self.shape.staged, row)

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
        """What lies in scratchpad, by how many slots it takes: what two engines touch has one for each step in flight."""
        for buffer in self.selection.buffers:
            size = self.at(buffer.size)
            if buffer.sums:
                work.accumulators = work.accumulators + size
            elif len(buffer.engines) > 1 and buffer.home is not None:
                work.run_ahead = work.run_ahead + size
            elif len(buffer.engines) > 1:
                work.turn = work.turn + size
        for together in self.selection.together:
            work.fixed = np.maximum(work.fixed, self.at(together))
        for crowd in self.selection.crowds:
            work.crowds.append(tuple(self.at(kind) for kind in (crowd.ahead, crowd.turn, crowd.alone, crowd.sums)))


def shared_bytes(work: Work, depth: Array, slots: Array, near: Array) -> Array:
    """Scratchpad that a program takes when what doesn't live at once shares addresses. `slots`: programs in flight (more than one: what they
    pass on lives all the time); `near`: sums lie in the array."""
    many = np.asarray(slots) > 1
    always = np.where(many, work.turn * slots, 0.0)
    needed: Array = 0.0
    for ahead, turn, alone, sums in work.crowds:
        beside = np.where(near, 0.0, sums)
        one = ahead * depth + np.where(many, 0.0, turn) + alone + beside * slots
        needed = np.maximum(needed, one)
    return needed + always


def busiest(stages: Sequence[Stage]) -> dict[str, Array]:
    """Clocks of a whole program on each engine."""
    total: dict[str, Array] = {}
    for stage in stages:
        for engine, clocks in stage.busy.items():
            total[engine] = total.get(engine, 0.0) + clocks * stage.trips
    return total
