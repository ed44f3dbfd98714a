"""Fidelity 1 for dataflow accelerators: the work of each engine in a program's steps, put on a timeline of two cores.

What a step does follows from the kernel's template (`selection`, `work`), what its transfers cost from how their addresses go through memory
(`transfer`, `runs`), and when it happens from a few steps that are followed engine by engine before the loops repeat themselves (`timeline`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.common import Common
from codesign.costmodel.dataflow.course import DEEPEST, PROGRAMS
from codesign.costmodel.dataflow.following import TERM_NAMES, Floats, Laid, Plan, Rows
from codesign.costmodel.dataflow.resting import resting
from codesign.costmodel.dataflow.selection import select
from codesign.costmodel.dataflow.several import side_by_side
from codesign.costmodel.dataflow.shape import EVERY, Array, Shape
from codesign.costmodel.dataflow.space import layout
from codesign.costmodel.dataflow.stretches import steps_of
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.dataflow.timeline import STEPS
from codesign.costmodel.dataflow.turns import turns
from codesign.costmodel.dataflow.work import work_of
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import ALL, FOLLOWED, CostBatch, Limit
from codesign.costmodel.structures import Structure, structures
from codesign.costmodel.summary import KernelSummary
from codesign.costmodel.visits import Deal
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule, ScheduleBatch, ordered, walked

TOGETHER = 4096
"""Schedules whose arrays (some dozens at a time) fit the second cache of a CPU's core."""
BURSTS = "burst_seconds"
"""Among the details of a prediction: what steps take longer in which DRAM gives what a memory keeps, beyond an even pace."""
BAND = (0.905, 1.145)
"""Interval around the prediction: the 5th and 95th percentile of measured over predicted times of the products that were measured on a dataflow
machine (51 rows of a TPU v6e, `codesign.validate`), at schedules of the model's own choice. The machine's simulator is nearer: 90 % of its times of
random kernels and schedules lie between 0.962 and 1.046 of the prediction on maia100, where they lie furthest apart, and within 0.970 and 1.037
on the nine others (`python benchmarks/simulator.py --machine maia100 --groups 4`, 2026-11-30)."""


@dataclass(frozen=True)
class DataflowModel:
    """The analytic model; terms sum to seconds, energies are per access and operation.

    `limit`: what is wanted of a batch (default: all). Other schedules are priced at what they take at the least.
    """

    fidelity: ClassVar[int] = 1
    limit: Limit = ALL

    def within(self, limit: Limit) -> DataflowModel:
        """The model for who wants no more of a batch."""
        return replace(self, limit=limit)

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """Cost of each schedule; see CostModel."""
        return self._predict(kernel, target_of(machine), schedules, sizes)

    def seconds_on(
        self, kernel: KernelSummary, machines: tuple[Machine, ...], schedule: Schedule, sizes: Mapping[str, int]
    ) -> Floats:
        """Seconds of a schedule on each of several machines, those that differ in rates and latencies alone at once."""
        seconds = np.zeros(len(machines))
        for numbers, target in side_by_side(machines):
            batch = ScheduleBatch.of([schedule] * len(numbers))
            seconds[numbers] = self._predict(kernel, target, batch, sizes).seconds
        return seconds

    def _predict(
        self, kernel: KernelSummary, target: Target, schedules: ScheduleBatch, sizes: Mapping[str, int] | None
    ) -> CostBatch:
        """Cost of each schedule; of a target of several machines, each schedule on its own."""
        if kernel.strands:
            return _refused(len(schedules), "side by side: every core of an accelerator walks one loop nest")
        missing = [symbol for symbol in kernel.symbols if symbol not in (sizes or {})]
        if missing:
            raise ScheduleError(f"{kernel.name}: no value for size {', '.join(missing)}", hint="give sizes={...}")
        count = len(schedules)
        columns = _columns(schedules, count)
        extents = {dim: int(extent.evaluate(sizes or {})) for dim, extent in kernel.extents.items()}
        reason = np.full(count, "", dtype=object)
        dataflow = str(schedules.common.extras.get("dataflow", ""))
        texts = [*structures(kernel, extents, columns, count, sizes or {})]
        of = np.full(count, -1)
        for number, structure in enumerate(texts):
            reason[structure.rows] = structure.reason
            of[structure.rows] = -1 if structure.text is None else number
        alike = _alike(kernel, extents, columns, target)
        plans: list[tuple[Rows, Plan]] = []
        for rows, walk in _pieces(of, alike, schedules.common.order, columns):
            given = {k: v[rows] for k, v in columns.items()}
            looped = {dim: np.array([dim in text.looped for text in texts])[of[rows]] for dim in kernel.inner}
            common = Common(target, _shape(target, kernel, extents, given, looped, sizes or {}, walk), dataflow)
            plans += [(rows[index], plan) for index, plan in _plans(target, kernel, texts, of[rows], common)]
        terms, followed, late = self._follow(plans, count)
        joules, dram, scratch = np.zeros(count), np.zeros(count), np.zeros(count)
        for rows, plan in plans:
            seconds = terms[rows].sum(axis=1)
            joules[rows] = plan.joules + (0.0 if np.isnan(target.static_watts) else target.static_watts * seconds)
            dram[rows], scratch[rows], reason[rows] = plan.moved, plan.buffers.held, plan.reason
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
            details={
                "scratch_bytes": scratch,
                **({BURSTS: late} if np.any(late) else {}),
                **({FOLLOWED: followed | (reason != "")} if self.limit.best else {}),
            },
            remarks=() if np.isfinite(joules).all() else (f"{target.name} lacks energy figures",),
        )

    def _follow(self, plans: Sequence[tuple[Rows, Plan]], count: int) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
        """Terms of all schedules, which of them were followed (those that may be among the best, the most promising texts first), and
        what their bursts take."""
        terms, followed = np.zeros((count, len(TERM_NAMES))), np.zeros(count, dtype=np.bool_)
        late = np.zeros(count)
        limit = self.limit
        for rows, plan in sorted(plans, key=lambda one: float(one[1].least.min())):
            wanted = np.isfinite(plan.least) & (plan.least <= limit.beyond)
            if not wanted.all():
                terms[rows] = plan.least_terms()
            if wanted.any():
                terms[rows[wanted]], late[rows[wanted]] = plan.terms(np.flatnonzero(wanted))
            followed[rows[wanted]] = True
            limit = limit.after(terms[rows[wanted]].sum(axis=1))
        return terms, followed, late


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
    of: Rows, alike: npt.NDArray[np.int64], dims: Sequence[str], columns: Mapping[str, npt.NDArray[np.int64]]
) -> Iterator[tuple[Rows, _Walk]]:
    """Rows that are priced together (those of a text side by side; none without), and how they walk the grid: no more than what stays in a core's
    cache, and then those that are followed equally far."""
    rows = np.flatnonzero(of >= 0)
    order = (alike[rows], of[rows]) if len(rows) > TOGETHER else (of[rows],)
    rows = rows[np.lexsort(order)]
    places = _levels(columns, "order")
    said = [column for name, column in columns.items() if name == "joined" or ".stage." in name]
    said += [columns["order"]] if "order" in columns else []
    said += [column for at in places.values() for column in at.values()]
    said = [column for column in said if (column != column[0]).any()]
    kinds, which = np.unique(np.stack(said)[:, rows], axis=1, return_inverse=True) if said else (None, np.zeros(1))
    for number in range((1 if kinds is None else kinds.shape[1]) if len(rows) else 0):
        some = rows if kinds is None else rows[which.reshape(-1) == number]
        grid = ordered(dims, int(columns["order"][some[0]])) if "order" in columns else tuple(dims)
        walk = _Walk(
            grid,
            {place: walked(grid, {dim: int(c[some[0]]) for dim, c in at.items()}) for place, at in places.items()},
        )
        for start in range(0, len(some), TOGETHER):
            yield some[start : start + TOGETHER], walk


def _plans(
    target: Target, kernel: KernelSummary, texts: Sequence[Structure], of: Rows, common: Common
) -> Iterator[tuple[Rows, Plan]]:
    """For each text what its programs do, and under which schedules. `of`: the texts of the schedules, in ascending order."""
    laid = Laid.of(target, common.shape)
    starts = np.flatnonzero(np.diff(of, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(of)], strict=True):
        text = texts[of[start]].text
        assert text is not None
        rows = EVERY if end - start == len(of) else slice(start, end)
        work = work_of(select(text, kernel.extents, target.array), common, rows)
        yield np.arange(start, end), Plan(target, laid.cut(rows), work, end - start)


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
    looped: Mapping[str, npt.NDArray[np.bool_]],
    sizes: Mapping[str, int],
    walk: _Walk,
) -> Shape:
    tile: dict[str, Array] = {}
    mean: dict[str, Array] = {}
    trips: dict[str, Array] = {}
    programs: dict[str, Array] = {}
    for dim, extent in extents.items():
        size = columns[f"tile.{dim}"].astype(np.float64) if f"tile.{dim}" in columns else np.ones(1)
        if dim in looped:
            size = np.where(looped[dim], size, np.maximum(size, float(1 << max(extent - 1, 0).bit_length())))
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
    taken = turns(target, lay.blocks, parts, tile, _levels(columns, "tile"), walk.levels)
    deal = Deal([(turn.dim, turn.count, turn.below) for turn in taken], lay.whole, lay.gangs)
    loops = steps_of(
        kernel, sorted(kernel.inner), tile, extents, programs, deal, sizes
    )  # of one step where a symbol's value is a tile
    made, longest = (
        trips | {dim: np.where(loop, loops.all[dim][which], trips[dim]) for dim, loop in looped.items()}
        for which in (0, 1)
    )
    return Shape(
        tile,
        mean,
        trips,
        made,
        longest,
        frozenset(kernel.inner),
        grid,
        lay,
        columns.get("pipeline", np.ones(1)).astype(np.float64),
        columns.get("partial", np.ones(1)).astype(np.float64),
        {name: float(value) for name, value in sizes.items()},
        extents,
        taken,
        {place: {name: n for name, n in at.items() if name not in rests} for place, at in staged.items()},
        joined,
        rests,
        loops.parted,
    )
