"""Fidelity 1 for dataflow accelerators: engine clocks of a program instance, composed over cores and steps.

Per step of a loop the slowest of load, tensor and vector decides, or the round trip of a buffer (load, latency, use) over the number of
its slots; program instances of a core follow each other without a gap when their buffers have slots, and one by one otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.shape import Array, Shape
from codesign.costmodel.dataflow.structure import Stage, Work, work_of
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import REDUCE_MODES, ScheduleBatch

TERM_NAMES = ("launch", "fill", "tensor", "vector", "load", "store", "dram", "latency", "control", "power")
LOOPED, RESIDENT, ONLINE = (REDUCE_MODES.index(mode) for mode in ("looped", "resident", "online"))
BAND = (0.8, 1.25)
"""Interval around the prediction that holds 90 % of simulated times of random kernels and schedules (tests/costmodel/dataflow)."""


@dataclass(frozen=True)
class DataflowModel:
    """The analytic model; terms sum to seconds, energies are per access and operation."""

    fidelity: ClassVar[int] = 1

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """Cost of each schedule; see CostModel."""
        missing = [symbol for symbol in kernel.symbols if symbol not in (sizes or {})]
        if missing:
            raise ScheduleError(f"{kernel.name}: no value for size {', '.join(missing)}", hint="give sizes={...}")
        target = target_of(machine)
        count = len(schedules)
        columns = _columns(schedules, count)
        extents = {dim: int(extent.evaluate(sizes or {})) for dim, extent in kernel.extents.items()}
        patterns = _patterns(kernel, extents, columns, count)
        terms = np.zeros((count, len(TERM_NAMES)))
        joules, dram, scratch = np.zeros(count), np.zeros(count), np.zeros(count)
        reason = np.full(count, "", dtype=object)
        dataflow = str(schedules.common.extras.get("dataflow", ""))
        for pattern in np.unique(patterns):
            rows = np.flatnonzero(patterns == pattern)
            looped = frozenset(dim for i, dim in enumerate(kernel.inner) if pattern >> i & 1)
            shape = _shape(kernel, extents, {k: v[rows] for k, v in columns.items()}, looped, sizes or {})
            work = work_of(kernel, target, shape, dataflow)
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


def _patterns(
    kernel: KernelSummary, extents: Mapping[str, int], columns: Mapping[str, npt.NDArray[np.int64]], count: int
) -> npt.NDArray[np.int64]:
    """For each schedule, bit i says whether it loops over inner dim i."""
    total = np.zeros(count, dtype=np.int64)
    for i, dim in enumerate(kernel.inner):
        mode = columns.get(f"reduce.{dim}", np.full(1, LOOPED))
        tile = columns.get(f"tile.{dim}", np.ones(1, dtype=np.int64))
        total = total | (((mode != RESIDENT) & (tile < extents[dim])).astype(np.int64) << i)
    return np.broadcast_to(total, (count,))


def _shape(
    kernel: KernelSummary,
    extents: Mapping[str, int],
    columns: Mapping[str, npt.NDArray[np.int64]],
    looped: frozenset[str],
    sizes: Mapping[str, int],
) -> Shape:
    tile: dict[str, Array] = {}
    mean: dict[str, Array] = {}
    trips: dict[str, Array] = {}
    grid: Array = np.ones(1)
    for dim, extent in extents.items():
        size = columns[f"tile.{dim}"].astype(np.float64) if f"tile.{dim}" in columns else np.ones(1)
        if dim in kernel.inner and dim not in looped:
            size = np.maximum(size, float(1 << max(extent - 1, 0).bit_length()))
        steps = np.ceil(extent / size)
        tile[dim], mean[dim], trips[dim] = size, extent / steps, steps
        if dim not in kernel.inner:
            grid = grid * steps
    return Shape(
        tile,
        mean,
        trips,
        looped,
        frozenset(kernel.inner),
        grid,
        columns.get("pipeline", np.ones(1)).astype(np.float64),
        columns.get("partial", np.ones(1)).astype(np.float64),
        {name: float(value) for name, value in sizes.items()},
        extents,
    )


def _compose(target: Target, shape: Shape, work: Work, count: int) -> _Composed:
    """Time of the whole kernel from the work of one program instance."""
    cores = np.minimum(shape.grid, target.cores)
    programs = np.ceil(shape.grid / cores)
    depth = np.maximum(shape.pipeline, 1.0)
    turns = np.minimum(depth, 2.0)

    array = target.capacity.get("array", 0)
    near = work.accumulators * turns <= array
    beside = np.where(near, 0.0, work.accumulators)
    single = work.run_ahead + work.turn + work.fixed + beside
    inner = work.largest_ahead * depth + work.turn + work.fixed + beside
    full = work.largest_ahead * depth + (work.turn + beside) * turns + work.fixed
    limit = target.capacity["core"]
    turns = np.where(full <= limit, turns, 1.0)
    depth = np.where(inner <= limit, depth, 1.0)
    wave, cores = (
        cores,
        shape.grid / programs,
    )  # all cores start together, later ones drift apart and some run out of work

    load = tensor = vector = store = control = read = written = joules = np.zeros(1)
    body = looping = rounds = reuse = straight = tail = last = np.zeros(1)
    latency = target.latency_clocks
    apart: Array = np.zeros(1)
    gathers = 0
    begun = False
    for stage in work.stages:
        trips = stage.trips
        load, tensor, vector = load + stage.load * trips, tensor + stage.tensor * trips, vector + stage.vector * trips
        store, read, written = store + stage.store * trips, read + stage.read * trips, written + stage.written * trips
        control = control + (stage.instructions + 1) * target.issue_clocks * trips
        joules = joules + stage.joules * trips
        one = np.asarray(trips == 1)
        use = stage.tensor + stage.vector
        rate, trip = _step(stage, target, cores, latency)
        around = trip * (np.ceil(trips / depth) - 1.0)  # the first loads came while something else ran
        loop = np.maximum(rate * trips, around)
        opened = loop if begun else np.maximum(rate * (trips - 1.0), around)  # the first step's loads are in the fill
        body = body + np.where(one, use, opened + np.minimum(use, rate))
        begun = begun or stage.loads > 0
        looping = looping + np.where(one, use, loop)
        rounds = rounds + np.where(one, 0.0, around)
        reuse = np.maximum(reuse, np.where(one, 0.0, trip * trips / depth))
        straight = straight + np.where(one, stage.load, 0.0)
        if stage.loads:  # cores get their last operands one after the other, and store in that order
            apart = _shared(target, wave, np.zeros(1), stage.read, 0.0) / stage.loads
        crowd = _shared(target, wave, np.zeros(1), 0.0, stage.written) - apart
        together = np.where(one, np.maximum(stage.store, crowd), stage.store)
        tail = np.where(stage.store > 0, together, tail)
        last = np.where(stage.store > 0, stage.store, last)
        gathers = max(gathers, stage.gathers)
    dram = _shared(target, cores, np.zeros(1), read, written)

    arrive = latency * (1 + min(gathers, 1))
    overlaps = np.maximum(tensor, vector) < tensor + vector
    looping = np.where(overlaps & (turns > 1), np.maximum(looping - np.minimum(tensor, vector), 0.0), looping)
    loads = np.where(straight > 0, (straight + arrive + vector + tensor) / np.maximum(turns, 1.0), 0.0)
    if gathers:  # positions queue behind the loads that wait for this program's
        loads = np.maximum(loads, straight + arrive + rounds)
    stores = np.where(store > 0, (last + latency) / np.maximum(turns, 1.0), 0.0)
    waits = np.maximum(np.maximum(loads, stores), np.maximum(looping, reuse))
    busy = np.stack(np.broadcast_arrays(tensor, vector, load, store, dram, waits, control), axis=-1)
    steady = busy.max(axis=-1)
    first = _first_load(work, target, wave)
    fill = first + arrive
    once = np.maximum(body + tail + latency, dram - first)
    inward = np.where(straight > 0, straight + arrive, 0.0)
    outward = np.where(store > 0, last + latency, 0.0)
    serial = np.maximum(inward, outward) + body
    period = np.where(turns > 1, steady, np.maximum(serial, steady))
    total = fill + once + (programs - 1.0) * period

    terms = np.zeros((count, len(TERM_NAMES)))
    terms[:, 0] = target.launch_seconds
    terms[:, 1] = np.broadcast_to(fill / target.clock_hz, (count,))
    bound = np.broadcast_to(busy.argmax(axis=-1), (count,))
    rest = np.broadcast_to((total - fill) / target.clock_hz, (count,))
    terms[np.arange(count), 2 + bound] = rest

    needed = np.broadcast_to(single, (count,))
    reason = np.full(count, "", dtype=object)
    for row in np.flatnonzero(needed > limit):
        reason[row] = f"scratchpad: needs {int(needed[row]):,} B, limit {limit:,} B"
    everything = joules * shape.grid
    terms[:, 9] = target.throttled(terms.sum(axis=1), everything) - terms.sum(axis=1)
    if not np.isnan(target.static_watts):
        everything = everything + target.static_watts * terms.sum(axis=1)
    return _Composed(
        terms,
        np.broadcast_to(everything, (count,)),
        np.broadcast_to((read + written) * shape.grid, (count,)),
        np.broadcast_to(np.where(full <= limit, full, np.where(inner <= limit, inner, single)), (count,)),
        reason,
    )


def _shared(target: Target, cores: Array, clocks: Array, read: Array, written: Array) -> Array:
    """Clocks of transfers that all cores make at once: the engine's, or those of the busiest way of a port above."""
    slowest = np.asarray(clocks)
    for port in target.ports:
        users = np.minimum(cores, port.cores)
        inward = read if port.write_bytes_per_clock else read + written
        slowest = np.maximum(slowest, users * inward / port.bytes_per_clock)
        if port.write_bytes_per_clock:
            slowest = np.maximum(slowest, users * written / port.write_bytes_per_clock)
    return slowest


def _first_load(work: Work, target: Target, cores: Array) -> Array:
    """Clocks until the first operands are under way: the loads of the first stage that has any."""
    for stage in work.stages:
        if stage.loads:
            return _shared(target, cores, stage.load, stage.read, 0.0)
    return np.zeros(1)


def _step(stage: Stage, target: Target, cores: Array, latency: float) -> tuple[Array, Array]:
    """Clocks between the ends of two steps when the engines are never idle, and from a step's first load to the end of its use."""
    use = stage.tensor + stage.vector
    wait = latency * np.where(stage.load > 0, 1 + min(stage.gathers, 1), 0)
    trip = stage.load + wait + use
    shared = _shared(target, cores, stage.load, stage.read, stage.written)
    rate = np.maximum(np.maximum(stage.tensor, stage.vector), np.maximum(stage.store, shared))
    return rate, trip
