"""Fidelity 1 for dataflow accelerators: the work of each engine in a program's steps, put on a timeline of two cores.

What a step does follows from the kernel's template (`selection`, `work`), what its transfers cost from how their addresses go through memory
(`transfer`, `runs`), and when it happens from a few steps that are followed engine by engine before the loops repeat themselves (`timeline`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.resting import resting
from codesign.costmodel.dataflow.selection import select
from codesign.costmodel.dataflow.shape import Array, Shape
from codesign.costmodel.dataflow.space import layout, users
from codesign.costmodel.dataflow.stretches import steps_of
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.dataflow.timeline import DEEPEST, PROGRAMS, STEPS, Timeline, shared_clocks
from codesign.costmodel.dataflow.turns import turns
from codesign.costmodel.dataflow.work import Work, busiest, shared_bytes, work_of
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.structures import structures
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import ScheduleBatch, ordered, walked

TERM_NAMES = ("launch", "fill", "tensor", "vector", "load", "store", "dram", "latency", "control", "power")
_ENGINES = np.array([TERM_NAMES.index(name) for name in ("tensor", "vector", "load", "store", "dram", "control")])
TOGETHER = 4096
"""Schedules whose arrays (some dozens at a time) fit the second cache of a CPU's core."""
Rows = npt.NDArray[np.int64]
MOSTLY = 0.7
"""Share of the time that the busiest engine works when it is what the time goes to; else the engines wait for each other."""
BAND = (0.88, 1.14)
"""Interval around the prediction that holds 90 % of simulated times of random kernels and schedules (tests/costmodel/dataflow)."""


@dataclass(frozen=True)
class DataflowModel:
    """The analytic model; terms sum to seconds, energies are per access and operation."""

    fidelity: ClassVar[int] = 1

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """Cost of each schedule; see CostModel."""
        if kernel.strands:
            return _refused(len(schedules), "side by side: every core of an accelerator walks one loop nest")
        missing = [symbol for symbol in kernel.symbols if symbol not in (sizes or {})]
        if missing:
            raise ScheduleError(f"{kernel.name}: no value for size {', '.join(missing)}", hint="give sizes={...}")
        target = target_of(machine)
        count = len(schedules)
        columns = _columns(schedules, count)
        extents = {dim: int(extent.evaluate(sizes or {})) for dim, extent in kernel.extents.items()}
        terms = np.zeros((count, len(TERM_NAMES)))
        joules, dram, scratch = np.zeros(count), np.zeros(count), np.zeros(count)
        reason = np.full(count, "", dtype=object)
        dataflow = str(schedules.common.extras.get("dataflow", ""))
        alike = _alike(kernel, extents, columns, target)
        for structure in structures(kernel, extents, columns, count, sizes or {}):
            if structure.text is None:
                reason[structure.rows] = structure.reason
                continue
            for rows, walk in _pieces(structure.rows, alike, schedules.common.order, columns):
                given = {k: v[rows] for k, v in columns.items()}
                shape = _shape(target, kernel, extents, given, structure.looped, sizes or {}, walk)
                work = work_of(select(structure.text, kernel.extents, target.array), target, shape, dataflow)
                found = _compose(target, shape, work, len(rows))
                terms[rows], joules[rows], dram[rows] = found.terms, found.joules, found.dram
                scratch[rows], reason[rows] = found.scratch, found.reason
        for dim in kernel.inner:
            split = columns.get(f"split.{dim}")
            if split is not None:
                reason[(split > 1) & (reason == "")] = f"split.{dim}: split reductions are separate kernels here"
        seconds = np.where(reason == "", terms.sum(axis=1), np.inf)
        return CostBatch(
            seconds=seconds,
            terms=terms,
            term_names=TERM_NAMES,
            low=seconds * BAND[0],
            high=seconds * BAND[1],
            in_domain=np.ones(count, dtype=np.bool_),
            reason=reason,
            joules=joules,
            dram_bytes=dram,
            details={"scratch_bytes": scratch},
            remarks=() if np.isfinite(joules).all() else (f"{target.name} lacks energy figures",),
        )


def _refused(count: int, reason: str) -> CostBatch:
    """The cost of schedules none of which fits."""
    never = np.full(count, np.inf)
    return CostBatch(
        seconds=never,
        terms=np.zeros((count, len(TERM_NAMES))),
        term_names=TERM_NAMES,
        low=never,
        high=never,
        in_domain=np.ones(count, dtype=np.bool_),
        reason=np.full(count, reason, dtype=object),
        joules=np.full(count, np.nan),
        dram_bytes=np.zeros(count),
    )


@dataclass(frozen=True)
class _Composed:
    terms: npt.NDArray[np.float64]
    joules: Array
    dram: Array
    scratch: Array
    reason: npt.NDArray[np.object_]


def _columns(schedules: ScheduleBatch, count: int) -> dict[str, npt.NDArray[np.int64]]:
    common = ScheduleBatch.of([schedules.common]).columns
    found = {**common, **schedules.columns}
    return {name: np.broadcast_to(np.asarray(column, dtype=np.int64), (count,)) for name, column in found.items()}


@dataclass(frozen=True)
class _Walk:
    """In which order schedules walk the grid, and at each place the tiles there: dims, slowest first."""

    grid: Sequence[str]
    levels: Mapping[str, Sequence[str]]


def _pieces(
    rows: Rows, alike: npt.NDArray[np.int64], dims: Sequence[str], columns: Mapping[str, npt.NDArray[np.int64]]
) -> Iterator[tuple[Rows, _Walk]]:
    """Rows that are priced together, and how they walk the grid: no more than what stays in a core's cache, and then those that are followed
    equally far."""
    places = _levels(columns, "order")
    said = [columns["order"]] if "order" in columns else []
    said += [column for at in places.values() for column in at.values()]
    kinds, which = np.unique(np.stack(said)[:, rows], axis=1, return_inverse=True) if said else (None, np.zeros(1))
    for number in range(1 if kinds is None else kinds.shape[1]):
        some = rows if kinds is None else rows[which.reshape(-1) == number]
        grid = ordered(dims, int(columns["order"][some[0]])) if "order" in columns else tuple(dims)
        walk = _Walk(
            grid,
            {place: walked(grid, {dim: int(c[some[0]]) for dim, c in at.items()}) for place, at in places.items()},
        )
        if len(some) > TOGETHER:
            some = some[np.argsort(alike[some], kind="stable")]
        for start in range(0, len(some), TOGETHER):
            yield some[start : start + TOGETHER], walk


def _alike(
    kernel: KernelSummary, extents: Mapping[str, int], columns: Mapping[str, npt.NDArray[np.int64]], target: Target
) -> npt.NDArray[np.int64]:
    """A number for each schedule that is the same for those whose timelines go alike: by programs of a core and steps of loops, as far as
    they are followed one by one, and by the depth of loops."""
    steps = {
        dim: -(-extent // np.maximum(columns.get(f"tile.{dim}", np.ones(1, dtype=np.int64)), 1))
        for dim, extent in extents.items()
    }
    programs = np.prod(np.broadcast_arrays(np.ones(1), *(steps[dim] for dim in kernel.outer)), axis=0)
    code = np.minimum(np.ceil(programs / target.cores), PROGRAMS + 1.0)
    for dim in kernel.inner:
        code = code * (STEPS + 2) + np.minimum(steps[dim], STEPS + 1)
    code = code * (DEEPEST + 1) + np.minimum(columns.get("pipeline", np.ones(1)), DEEPEST)
    return np.broadcast_to(code.astype(np.int64), (max(len(column) for column in columns.values()),))


def _levels(columns: Mapping[str, npt.NDArray[np.int64]], wanted: str) -> dict[str, dict[str, npt.NDArray[np.int64]]]:
    """What schedules say of levels (`split`, `tile`, `stage`): by place and by dim or operand."""
    found: dict[str, dict[str, npt.NDArray[np.int64]]] = {}
    for name, column in columns.items():
        kind, _, rest = name.partition(".")
        if kind == "levels":
            place, what, key = rest.split(".", 2)
            if what == wanted:
                found.setdefault(place, {})[key] = column
    return found


def _parts(columns: Mapping[str, npt.NDArray[np.int64]], programs: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """By place, the parts of each dim that a schedule splits; a dim of one program is not split."""
    return {
        place: {
            dim: np.where(programs[dim] > 1, column, 1).astype(np.float64)
            for dim, column in at.items()
            if dim in programs
        }
        for place, at in _levels(columns, "split").items()
    }


def _shape(
    target: Target,
    kernel: KernelSummary,
    extents: Mapping[str, int],
    columns: Mapping[str, npt.NDArray[np.int64]],
    looped: frozenset[str],
    sizes: Mapping[str, int],
    walk: _Walk,
) -> Shape:
    tile: dict[str, Array] = {}
    mean: dict[str, Array] = {}
    trips: dict[str, Array] = {}
    programs: dict[str, Array] = {}
    for dim, extent in extents.items():
        size = columns[f"tile.{dim}"].astype(np.float64) if f"tile.{dim}" in columns else np.ones(1)
        if dim in kernel.inner and dim not in looped:
            size = np.maximum(size, float(1 << max(extent - 1, 0).bit_length()))
        steps = np.ceil(extent / size)
        tile[dim], mean[dim], trips[dim] = size, extent / steps, steps
        if dim not in kernel.inner:
            programs[dim] = steps
    programs = {dim: programs[dim] for dim in dict.fromkeys((*walk.grid, *programs)) if dim in programs}
    grid: Array = np.prod(np.broadcast_arrays(np.ones(1), *programs.values()), axis=0)
    parts = _parts(columns, programs)
    lay = layout(target, programs, parts)
    staged, joined = _levels(columns, "stage"), bool(columns.get("joined", np.zeros(1))[0])  # the same in a structure
    rests = resting(target, {place: [name for name in at if at[name][0]] for place, at in staged.items()}, joined)
    loops = steps_of(
        kernel, sorted(kernel.inner), tile, extents, programs, lay, sizes
    )  # of one step where a symbol's value is a tile
    made, longest = (trips | {dim: loops.all[dim][which] for dim in looped} for which in (0, 1))
    return Shape(
        tile,
        mean,
        trips,
        made,
        longest,
        looped,
        frozenset(kernel.inner),
        grid,
        lay,
        columns.get("pipeline", np.ones(1)).astype(np.float64),
        columns.get("partial", np.ones(1)).astype(np.float64),
        {name: float(value) for name, value in sizes.items()},
        extents,
        turns(target, lay.blocks, parts, tile, _levels(columns, "tile"), walk.levels),
        {place: {name: n for name, n in at.items() if name not in rests} for place, at in staged.items()},
        joined,
        rests,
        loops.parted,
    )


def _compose(target: Target, shape: Shape, work: Work, count: int) -> _Composed:
    """Time of the whole kernel from the work of one program instance."""
    lay = shape.layout
    cores, programs, most = lay.cores, lay.rounds, users(target, lay)
    depth = np.maximum(shape.pipeline, 1.0)
    slots = np.minimum(depth, 2.0)

    array = target.capacity.get("array", 0)
    near = work.accumulators * slots <= array
    beside = np.where(near, 0.0, work.accumulators)
    turned, one = (work.turn + beside) * slots + work.fixed, work.turn + beside + work.fixed
    single = np.ones(1)
    limit = target.capacity["core"]
    needs = [  # in the order in which buffers are given up: loads apart from all else, programs in flight, steps in flight
        (work.run_ahead * depth + turned, slots, depth, True),
        (shared_bytes(work, depth, slots, near), slots, depth, False),
        (work.run_ahead * depth + one, single, depth, True),
        (shared_bytes(work, depth, single, near), single, depth, False),
        (work.run_ahead + one, single, single, True),
        (shared_bytes(work, single, single, near), single, single, False),
    ]
    fits = [need <= limit for need, *_ in needs]
    held, slots, depth, apart = (np.select(fits, [need[i] for need in needs], needs[-1][i]) for i in range(4))

    control = joules = np.zeros(1)
    read: tuple[Array, ...] = (np.zeros(1),) * len(target.ports)
    written = read
    for stage in work.stages:
        trips = stage.trips
        read, written = (
            tuple(before + more * trips for before, more in zip(total, passing or (0.0,) * len(total), strict=True))
            for total, passing in ((read, stage.read), (written, stage.written))
        )
        control = control + (stage.instructions + 1) * target.issue_clocks * trips
        joules = joules + stage.joules * trips
    dram = shared_clocks(target, most, shape.grid / programs, np.zeros(1), read, written)
    total = busiest(work.stages)
    engines = (total.get(engine, np.zeros(1)) for engine in ("tensor", "vector", "load", "store"))
    busy = np.stack(np.broadcast_arrays(*engines, dram, control), axis=-1)
    line = Timeline(target, count, cores, most, slots, depth, np.asarray(apart, dtype=np.bool_))
    clocks = np.maximum(
        line.run(work, shape.grid, programs, busy.max(axis=-1)), dram * programs + 2.0 * target.latency_clocks
    )
    fill = np.minimum(_first_load(work, target, most, cores) + target.latency_clocks, clocks)

    terms = np.zeros((count, len(TERM_NAMES)))
    terms[:, 0] = target.meeting_seconds if shape.joined else target.launch_seconds
    terms[:, 1] = np.broadcast_to(fill / target.clock_hz, (count,))
    waiting = busy.max(axis=-1) * programs < MOSTLY * (clocks - fill)
    bound = np.broadcast_to(np.where(waiting, TERM_NAMES.index("latency"), _ENGINES[busy.argmax(axis=-1)]), (count,))
    terms[np.arange(count), bound] = np.broadcast_to((clocks - fill) / target.clock_hz, (count,))

    needed = np.broadcast_to(needs[-1][0], (count,))
    reason = np.full(count, "", dtype=object)
    for row in np.flatnonzero(needed > limit):
        reason[row] = f"scratchpad: needs {int(needed[row]):,} B, limit {limit:,} B"
    for place in np.flatnonzero((reason == "") & work.unfit).tolist():
        reason[place] = work.why(place)
    everything = joules * shape.grid
    terms[:, 9] = target.throttled(terms.sum(axis=1), everything) - terms.sum(axis=1)
    if not np.isnan(target.static_watts):
        everything = everything + target.static_watts * terms.sum(axis=1)
    return _Composed(
        terms,
        np.broadcast_to(everything, (count,)),
        np.broadcast_to((read[0] + written[0]) * shape.grid, (count,)),
        np.broadcast_to(held, (count,)),
        reason,
    )


def _first_load(work: Work, target: Target, most: list[Array], cores: Array) -> Array:
    """Clocks until the first operands are under way: the loads of the first stage that has any."""
    for stage in work.stages:
        if "load" in stage.busy:
            return shared_clocks(target, most, cores, stage.busy["load"], stage.read, ())
    return np.zeros(1)
