"""What a program of a dataflow machine does for one kernel: its loops, and per step of each the work of every engine.

It follows the tiling: reductions over looped dims and stores along them make loops (those that go the same way at the same stage
share one); values that carry a looped dim are computed again in each loop that needs them; everything else is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.costmodel.dataflow.engines import apart, matmul_clocks, matmul_reads, vector_clocks, vector_joules
from codesign.costmodel.dataflow.keeping import Again, Kept, holders, kept
from codesign.costmodel.dataflow.shape import Array, Shape
from codesign.costmodel.dataflow.space import portions
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.transfer import transfer
from codesign.costmodel.summary import Access, KernelSummary, Nest, footprint

SMALLEST_DOT = 16
"""Least side of a product that tiling gives to the tensor unit."""


@dataclass(frozen=True, eq=False)
class Task:
    """One instruction of a step: clocks on its engine, and for transfers the bytes of lines that pass the ports.

    `portions`: of the bytes, for each port, which pass it for this core; the rest comes with what others load. `shared`: how far among all cores the
    first ones reach that begin it together (None: each begins its own). `follows`: a gather that waits for positions which a load before it brings.
    """

    engine: str
    clocks: Array
    moved: Array = 0.0
    portions: tuple[Array, ...] = ()
    shared: Array = None
    follows: bool = False


@dataclass(eq=False)
class Stage:
    """A loop (or straight code, one trip) of a program: work of one step on each engine, in clocks, and what it moves.

    `tasks` in program order. A loop inside the steps of another one (`around`) comes first in them; its `trips` count those of both.
    """

    trips: Array = 1.0
    load: Array = 0.0
    tensor: Array = 0.0
    vector: Array = 0.0
    store: Array = 0.0
    instructions: Array = 0.0
    read: tuple[Array, ...] = ()
    """For each port, what passes it outward for this core; nothing where it is empty."""
    written: Array = 0.0
    joules: Array = 0.0
    ahead: Array = 0.0
    loads: int = 0
    gathers: int = 0
    tasks: list[Task] = field(default_factory=list)
    around: Stage | None = None

    def vectors(self, clocks: Array) -> None:
        """Add an instruction of the vector unit."""
        if np.any(clocks):
            self.vector = self.vector + clocks
            self.tasks.append(Task("vector", clocks))


@dataclass
class Work:
    """All stages of one program instance in order, and the bytes of its buffers.

    `run_ahead`: buffers of loads inside loops, one slot (`largest_ahead`: of the loop that has most); `turn`: buffers that
    want a slot per program in flight; `fixed`: the rest, which needs one. `accumulators` may live in the array's own memory.
    """

    stages: list[Stage] = field(default_factory=list)
    run_ahead: Array = 0.0
    largest_ahead: Array = 0.0
    turn: Array = 0.0
    fixed: Array = 0.0
    accumulators: Array = 0.0


def work_of(kernel: KernelSummary, target: Target, shape: Shape, dataflow: str = "") -> Work:
    """The work of one program instance."""
    return _Builder(kernel, target, shape, dataflow).build()


class _Builder:
    def __init__(self, kernel: KernelSummary, target: Target, shape: Shape, dataflow: str) -> None:
        self.kernel = kernel
        self.target = target
        self.shape = shape
        self.dataflow = dataflow
        self.by_name = {nest.name: nest for nest in kernel.nests}
        self.readers: dict[str, list[Nest]] = {nest.name: [] for nest in kernel.nests}
        for nest in kernel.nests:
            for name in nest.internal:
                self.readers[name].append(nest)
        self.work = Work()
        self.stage = Stage()
        self.loaded: set[tuple[str, Any]] = set()
        self.held: set[str] = set()
        self.passing: dict[str, tuple[dict[tuple[str, str], Array], Array]] = {}
        self.kept = self._kept()
        self.shared_by: dict[str, set[tuple[str, str | None]]] = {}

    def build(self) -> Work:
        looped = self.shape.looped
        levels: dict[str, int] = {}
        roots: dict[tuple[int, tuple[str, ...]], list[Nest]] = {}
        straight: list[tuple[int, Nest]] = []
        for nest in self.kernel.nests:
            below = max((levels[name] for name in nest.internal), default=0)
            along = tuple(dim for dim in self.kernel.inner if dim in nest.reductions and dim in looped)
            carried = tuple(dim for dim in self.kernel.inner if dim in nest.dims and dim in looped)
            levels[nest.name] = below + (1 if along else 0)
            if along and carried and not nest.stores:
                continue  # computed anew by each loop that needs it
            if along:
                roots.setdefault((below, along), []).append(nest)
            elif carried and nest.stores:
                roots.setdefault((below, carried), []).append(nest)
            elif not carried:
                straight.append((below, nest))
        order = sorted({*(key[0] for key in roots), *(level for level, _ in straight)})
        for level in order:
            self._open(())
            for at, nest in straight:
                if at == level:
                    self._nest(nest, (), tuple(found for _, found in straight))
            for (at, loops), nests in roots.items():
                if at == level:
                    self._loop(loops, nests)
        return self.work

    def _open(self, loops: tuple[str, ...]) -> None:
        trips: Array = 1.0
        for dim in loops:
            trips = trips * self.shape.made[dim]
        self.stage = Stage(trips=trips)
        self.work.stages.append(self.stage)

    def _loop(self, loops: tuple[str, ...], nests: list[Nest]) -> None:
        before = self.stage
        after = Stage()
        loaded = set(self.loaded)
        self._open(loops)
        nested: list[Nest] = []
        inside = self._inside(nests, nested)
        while nested:  # a reduction over other looped dims that this loop needs anew in each step
            nest = nested.pop(0)
            outer = self.stage
            more = tuple(dim for dim in self.kernel.inner if dim in nest.reductions and dim in self.shape.looped)
            deeper = tuple(dict.fromkeys((*loops, *more)))
            self._open(deeper)
            self.stage.around = outer
            parts = self._inside([nest], nested)
            for part in parts:
                self._nest(part, deeper, tuple(parts), before, outer)
            self.stage = outer
        self.work.stages.remove(self.stage)  # the loop's own work comes after what it needs
        self.work.stages.append(self.stage)
        for nest in inside:
            root = nest in nests
            ends = after if root and set(nest.reductions) & set(loops) else None
            self._nest(nest, loops, tuple(inside), before, ends, stores=root)
        self.loaded = loaded | {key for key in self.loaded if not key[1]}
        for nest in nests:
            if nest.reductions and set(nest.reductions) & set(loops) and nest.contraction is None:
                points = self.shape.points((*nest.dims, *nest.reductions))
                unit = ("fma", nest.accumulate.name)
                moved = points * nest.accumulate.bytes
                fold = vector_clocks(self.target, points, {unit: 1.0}, moved, reduces=True)
                by_lane = self._by_lane(nest)
                after.vectors(np.where(by_lane, fold, 0.0))
                held: Array = np.where(by_lane, points, self.shape.points(nest.dims))
                alu = {("alu", nest.accumulate.name): 1.0}
                before.vectors(vector_clocks(self.target, held, alu, held * nest.accumulate.bytes))
                before.joules = before.joules + held * nest.accumulate.bytes * self.target.scratch_write_joules
        self.stage = after
        self.work.stages.append(after)

    def _inside(self, nests: list[Nest], nested: list[Nest]) -> list[Nest]:
        """The nests that a loop computes in each step, producers first; reductions with loops of their own go to `nested`."""
        found: list[Nest] = []
        pending = list(nests)
        while pending:
            nest = pending.pop()
            if nest in found:
                continue
            found.append(nest)
            for name in nest.internal:
                made = self.by_name[name]
                if not set(made.dims) & self.shape.looped:
                    continue
                if not set(made.reductions) & self.shape.looped:
                    pending.append(made)
                elif made not in nested:
                    nested.append(made)
        return [nest for nest in self.kernel.nests if nest in found]

    # -- one nest ------------------------------------------------------------------------------------------------
    def _nest(
        self,
        nest: Nest,
        loops: tuple[str, ...],
        group: tuple[Nest, ...],
        before: Stage | None = None,
        after: Stage | None = None,
        *,
        stores: bool = True,
    ) -> None:
        """Add a nest's work to the current stage; `after` takes what follows the loop that it reduces over.

        `group`: the nests computed together; one with a single reader among them is computed in passing by the reader.
        """
        shape, stage, target = self.shape, self.stage, self.target
        points = shape.points((*nest.dims, *nest.reductions))
        for access in nest.loads:
            self._load(access, loops, before)
        operations: dict[tuple[str, str], Array] = {(str(u), d): cost for (u, d), cost in nest.operations.items()}
        tensor: Array = 0.0
        if nest.contraction is not None:
            tensor = self._product(nest, operations)
        inlined = self._inlined(nest, group)
        self._parts(nest, operations, points, stage, after, inlined)
        self._masks(nest, operations, points)
        self._steps(nest)
        moved: Array = 0.0
        sizes = shape.sizes(shape.tile)
        for access in nest.loads:
            moved = moved + footprint(access, sizes) * access.dtype.bytes
        for name in nest.internal:
            if name in self.passing:
                slots, touched = self.passing.pop(name)
                moved = moved + touched
                for key, cost in slots.items():
                    operations[key] = operations.get(key, 0.0) + cost
            else:
                made = self.by_name[name]
                moved = moved + np.minimum(shape.points(made.dims), points) * made.dtype.bytes
        reduces = bool(nest.reductions) and nest.contraction is None
        if inlined:
            self.passing[nest.name] = (operations, moved)
        elif nest.contraction is None and (operations or reduces):
            carried = 2.0 * points * nest.accumulate.bytes if reduces and after is not None else 0.0
            moved = moved + np.where(self._by_lane(nest), carried, 0.0) + shape.points(nest.dims) * nest.dtype.bytes
            folds = reduces and (after is None or bool(nest.steps))
            stage.vectors(vector_clocks(target, points, operations, moved, reduces=folds))
        elif operations:  # a product that is too small for the tensor unit, in some of the schedules
            clocks = vector_clocks(target, points, operations, moved, reduces=True)
            stage.vectors(np.where(tensor > 0, 0.0, clocks))
        if not inlined:
            stage.instructions = stage.instructions + 1
            stage.joules = stage.joules + vector_joules(target, points, operations) * np.where(tensor > 0, 0.0, 1.0)
            stage.joules = stage.joules + np.where(tensor > 0, 0.0, moved) * target.scratch_read_joules
        if nest.contraction is not None:
            if np.any(tensor):
                stage.tensor = stage.tensor + tensor
                stage.tasks.append(Task("tensor", tensor))
        for access in nest.stores if stores else ():
            self._store(access, after or stage)
        self._buffers(nest)

    def _parts(
        self,
        nest: Nest,
        operations: dict[tuple[str, str], Array],
        points: Array,
        stage: Stage,
        after: Stage | None,
        inlined: bool,
    ) -> None:
        """Parts of the expression that need fewer points: by instructions of their own where that pays, else with the rest."""
        shape, target = self.shape, self.target
        for some, extra in nest.hoisted:
            lanes = shape.points(some)
            slots = {(str(unit), dtype): cost for (unit, dtype), cost in extra.items()}
            own = nest.contraction is not None or set(some) == set(nest.dims)  # a factor, or the result's conversion
            alone = np.logical_or(own, apart(points, lanes, sum(extra.values())))
            place = stage if after is None or set(some) & set(nest.reductions) else after
            size = lanes * (nest.dtype.bytes + nest.accumulate.bytes)
            busy = vector_clocks(target, lanes, slots, size) - (target.vector_startup_clocks if inlined else 0.0)
            place.vectors(np.where(alone, busy, 0.0))
            place.joules = place.joules + np.where(alone, vector_joules(target, lanes, slots), 0.0)
            for key, cost in slots.items():
                operations[key] = operations.get(key, 0.0) + np.where(alone, 0.0, cost)

    def _by_lane(self, nest: Nest) -> Array:
        """Whether lanes accumulate by themselves until their loop ends; what a fold refers to is reduced in each step."""
        return np.greater(self.shape.partial, 0) & (not nest.steps)

    def _steps(self, nest: Nest) -> None:
        """What each step of a fold's loop does to what is carried."""
        for some, extra in nest.steps:
            lanes = self.shape.points(some)
            slots = {(str(unit), dtype): cost for (unit, dtype), cost in extra.items()}
            moved = 2.0 * lanes * nest.accumulate.bytes
            self.stage.vectors(vector_clocks(self.target, lanes, slots, moved))
            self.stage.joules = self.stage.joules + vector_joules(self.target, lanes, slots)
            self.stage.joules = self.stage.joules + moved * self.target.scratch_read_joules
            self.stage.instructions = self.stage.instructions + 1

    def _masks(self, nest: Nest, operations: dict[tuple[str, str], Array], points: Array) -> None:
        """A reduction over lanes beyond its extent compares and selects, unless its loads bring the neutral value."""
        if not nest.reductions or nest.contraction is not None:
            return
        plain = not nest.internal and len(nest.loads) == 1 and sum(nest.operations.values()) <= 1.0
        key = f"{nest.loads[0].tensor}{nest.loads[0].index}" if plain else ""
        if plain and not any(
            found[0] == key for found in self.shared_by.get(nest.loads[0].tensor, set()) - {(key, nest.monoid)}
        ):
            self.shared_by.setdefault(nest.loads[0].tensor, set()).add((key, nest.monoid))
            return
        for dim in nest.reductions:
            cut = np.asarray(self.shape.mean[dim] < self.shape.tile[dim])
            if not np.any(cut) or (nest.monoid == "sum" and dim in nest.vanishing):
                continue
            lanes = self.shape.tile[dim]
            compare = {("integer", "i32"): 1.0, ("alu", "i32"): 1.0}
            alone = apart(points, lanes, sum(compare.values()))
            busy = vector_clocks(self.target, lanes, compare, lanes)
            self.stage.vectors(np.where(cut & alone, busy, 0.0))
            for pair, cost in (*compare.items(), (("alu", nest.accumulate.name), 1.0)):
                each = np.where(cut & ~alone, cost, 0.0) if pair in compare else np.where(cut, cost, 0.0)
                operations[pair] = operations.get(pair, 0.0) + each

    def _product(self, nest: Nest, operations: dict[tuple[str, str], Array]) -> Array:
        """Clocks on the tensor unit where the tile is big enough; elsewhere the vector unit multiplies and adds."""
        found, shape, target = nest.contraction, self.shape, self.target
        assert found is not None
        first, second = sorted((found.m, found.n), key=lambda side: nest.dims.index(side[-1]))  # as the result has them
        m, n, k = (shape.points(dims) for dims in (first, second, found.k))
        dtype = found.operand
        fits = (m >= SMALLEST_DOT) & (n >= SMALLEST_DOT) & (k >= SMALLEST_DOT) & (shape.points(found.batch) == 1)
        if found.unit is not None and dtype.name in target.array.slowdown:
            clocks = np.where(fits, matmul_clocks(target, m, n, k, dtype, self.dataflow), 0.0)
            a, b = matmul_reads(target, m, n, k, self.dataflow)
            each = target.array.joules.get(dtype.name, target.array.joules.get("bf16", float("nan")))
            energy = 2.0 * m * n * k * each + (a + b) * dtype.bytes * target.scratch_read_joules
            result = m * n * found.accumulate.bytes
            near = result * np.minimum(shape.pipeline, 2.0) <= target.capacity.get("array", 0)
            energy = energy + np.where(near, 0.0, result * (target.scratch_read_joules + target.scratch_write_joules))
            self.stage.joules = self.stage.joules + np.where(fits, energy, 0.0)
        else:
            clocks = np.zeros(np.shape(fits))
        if np.any(clocks == 0):
            operations["fma", found.accumulate.name] = operations.get(("fma", found.accumulate.name), 0.0) + 2.0
        self.stage.instructions = self.stage.instructions + 1
        self.work.accumulators = self.work.accumulators + m * n * found.accumulate.bytes
        return clocks

    def _inlined(self, nest: Nest, group: tuple[Nest, ...]) -> bool:
        """Whether its only reader of the group computes it in passing."""
        users = [user for user in self.readers[nest.name] if user in group]
        if nest.reductions or nest.stores or len(users) != 1 or users[0].contraction is not None:
            return False
        return set(users[0].dims) | set(users[0].reductions) == set(nest.dims)

    # -- memory --------------------------------------------------------------------------------------------------
    def _load(self, access: Access, loops: tuple[str, ...], before: Stage | None) -> None:
        shape, target = self.shape, self.target
        varies = tuple(dim for dim in access.dims if dim in loops)
        key = (f"{access.tensor}{access.index}", varies)
        if key in self.loaded:
            return
        self.loaded.add(key)
        stage = self.stage if varies or before is None else before
        clocks, moved, wanted = transfer(access, target, shape)
        stage.load = stage.load + clocks
        leaves, arrives = self._portions(access)
        together = self._together(access, leaves)
        leaves, arrives = self._less_what_is_kept(access, leaves, arrives)
        stage.read = tuple(
            before + moved * share for before, share in zip(stage.read or (0.0,) * len(leaves), leaves, strict=True)
        )
        stage.instructions = stage.instructions + 1
        stage.loads += 1
        follows = bool(access.gather) and self._position_varies(access, loops)
        stage.gathers += follows
        stage.tasks.append(Task("load", clocks, moved, leaves, together, follows))
        stored = shape.points(access.dims) * access.dtype.bytes
        path = sum(
            (port.read_joules * out + port.write_joules * into) * wanted
            for port, out, into in zip(target.ports[1:], leaves[1:], arrives[1:], strict=True)
        )
        from_dram = moved * leaves[0] * target.dram.read_joules
        stage.joules = stage.joules + from_dram + path + stored * target.scratch_write_joules
        if varies:
            self.work.run_ahead = self.work.run_ahead + stored
            stage.ahead = stage.ahead + stored
            self.work.largest_ahead = np.maximum(self.work.largest_ahead, stage.ahead)
        else:
            self.work.turn = self.work.turn + stored

    def _portions(self, access: Access) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Parts of a load's bytes that pass each port outward and inward for one core; positions that depend on data are its own."""
        dims = self.shape.extents if access.gather else self._depends(access)
        return portions(self.target, self.shape.layout.sharers(dims))

    def _depends(self, access: Access) -> set[str]:
        """Dims that a load depends on, through the ends of its loops too where a mask cuts them."""
        cut = set(access.dims) & self.shape.looped & self.kernel.reach.keys()
        return set(access.dims).union(*(self.kernel.reach[dim].variables for dim in cut))

    def _kept(self) -> dict[str, Kept]:
        """By load, where its data is kept for later blocks."""
        loads: dict[str, Again] = {}
        for access in (access for nest in self.kernel.nests for access in nest.loads if not access.gather):
            if set(access.dims) & self.shape.looped & self.kernel.reach.keys():
                continue  # another part of it in each program
            tiles: Array = 1.0
            for dim in set(access.dims) & self.shape.looped:
                tiles = tiles * self.shape.trips[dim]
            size = self.shape.points(access.dims) * access.dtype.bytes
            grid = frozenset(access.dims) & self.shape.layout.blocks.keys()
            loads.setdefault(f"{access.tensor}{access.index}", Again(frozenset(grid), tiles, size))
        where = kept(self.target, self.shape.layout, self.shape.layout.blocks, list(loads.values()))
        return dict(zip(loads, where, strict=True))

    def _less_what_is_kept(
        self, access: Access, leaves: tuple[Array, ...], arrives: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The parts that pass each port when what a memory inside of it keeps passes once."""
        found = self.kept.get(f"{access.tensor}{access.index}")
        if found is None or not np.any(found.port):
            return leaves, arrives
        scaled = [np.where(found.port > i, 1.0 / found.times, 1.0) for i in range(len(leaves) + 1)]
        out = tuple(share * scaled[i] for i, share in enumerate(leaves))
        # what is spread over many instances passes from the one that holds it to the others
        passed = (np.where(found.port == i, holders(self.target, i) > 1, False) for i in range(1, len(arrives)))
        into = (np.where(again, scaled[i], scaled[i - 1]) for i, again in enumerate(passed, 1))
        return out, (arrives[0], *(share * part for share, part in zip(arrives[1:], into, strict=True)))

    def _together(self, access: Access, portions: tuple[Array, ...]) -> Array:
        shared = np.any(np.stack(np.broadcast_arrays(*portions)) < 1.0, axis=0)
        return np.where(shared, self.shape.layout.reach(self._depends(access)), 0.0) if np.any(shared) else None

    def _position_varies(self, access: Access, loops: tuple[str, ...]) -> bool:
        """Whether the positions that a gather needs are loaded in the same stage, so that it waits for them there."""
        names = set(access.gather)
        sources = [a for nest in self.kernel.nests for a in nest.loads if a.tensor.split("#")[0] in names]
        return not loops or any(set(source.dims) & set(loops) for source in sources)

    def _store(self, access: Access, stage: Stage) -> None:
        shape, target = self.shape, self.target
        clocks, moved, wanted = transfer(access, target, shape)
        stage.store = stage.store + clocks
        stage.written = stage.written + moved
        stage.tasks.append(Task("store", clocks, moved))
        stage.instructions = stage.instructions + 1
        path = sum((port.read_joules + port.write_joules) * wanted for port in target.ports[1:])
        stage.joules = stage.joules + moved * target.dram.write_joules + path + wanted * target.scratch_read_joules

    def _buffers(self, nest: Nest) -> None:
        if nest.name in self.held:
            return
        self.held.add(nest.name)
        shape = self.shape
        size = shape.points(nest.dims) * nest.dtype.bytes
        users = self.readers[nest.name]
        crosses = bool(nest.stores) or nest.contraction is not None or any(u.contraction is not None for u in users)
        read_in_passing = len(users) == 1 and users[0].contraction is None and set(users[0].dims) == set(nest.dims)
        if nest.contraction is not None and not nest.stores and read_in_passing and not users[0].reductions:
            pass  # its one reader converts the sum as it reads it
        elif crosses and set(nest.dims) & shape.looped:  # made and used in the steps of a loop
            self.work.run_ahead = self.work.run_ahead + size
            self.stage.ahead = self.stage.ahead + size
            self.work.largest_ahead = np.maximum(self.work.largest_ahead, self.stage.ahead)
        elif crosses:
            self.work.turn = self.work.turn + size
        elif not self._inlined(nest, self.kernel.nests):
            self.work.fixed = self.work.fixed + size
        if nest.reductions and nest.contraction is None:
            partial = shape.points((*nest.dims, *nest.reductions)) * nest.accumulate.bytes
            self.work.fixed = self.work.fixed + np.where(self._by_lane(nest), partial, size)
        if nest.contraction is not None:  # factors that are worked out before they reach the tensor unit
            made = [some for some, _ in nest.hoisted if set(some) & set(nest.reductions)]
            self.work.turn = self.work.turn + sum(shape.points(some) * nest.accumulate.bytes for some in made)
