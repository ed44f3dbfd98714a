"""What the blocks of an SM do one after the other, and what of it nothing hides: of one product or none, and of chains of products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from codesign.costmodel.gpu.chains import SUMS_IN_FLIGHT, chain_block, meeting_seconds
from codesign.costmodel.gpu.chip import Chip
from codesign.costmodel.gpu.geometry import Array, Geometry
from codesign.costmodel.gpu.occupancy import Occupancy
from codesign.costmodel.gpu.overlap import INNER, overlap
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.streaming import ARRIVAL, trip_seconds
from codesign.costmodel.gpu.taking import Rows, taken
from codesign.costmodel.gpu.traffic import Traffic
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary

BARRIER_CLOCKS = 10.0
"""Clocks of a reduction over a block per warp that takes part. Fitted, but tables hardly feel it (`benchmarks/constants.py`)."""

SPREAD = 0.1
"""What the first loads of the last of e blocks take longer than those of one, in those of one: the slowest of n is later by the logarithm of n, where
times have an exponential tail. Read off small products of one wave: of 8 rows, 64 terms and 64 to 16384 columns, an A100 takes 2.85 to 4.3 us, an
H100 2.6 to 3.15, an L40S 2.1 to 2.8 (8192 columns)."""

WARP_MMA_CLOCKS, GROUP_MMA_CLOCKS = 33.0, 18.0
"""Clocks until a multiply may follow the one whose sum it goes on with: warp-level mma (Sun et al., Dissecting Tensor
Cores via Microbenchmarks, 2022), warp-group mma and tensor memory (Luo et al., Benchmarking and Dissecting the Nvidia
Hopper GPU Architecture, 2024)."""


@dataclass
class Case:
    """A kernel under schedules on a chip: the `work` of a block, the `tiling`, how many blocks are `resident` on an SM
    and in the chip's `slots`, how many the `busiest` SM has and in how many `rounds`. `idle`: blocks that have nothing to do. `chained`: the most
    contractions of which each needs the one before. `lasting`: which share of clock and power is left where it is timed over and over. Nothing of it
    depends on the order in which blocks run."""

    kernel: KernelSummary
    machine: Machine
    knobs: Mapping[str, Array]
    sizes: Mapping[str, Array]
    p: Parameters
    compiled: bool
    chip: Chip
    lasting: Array
    chained: int
    idle: Array
    tiling: Geometry
    work: Work
    occupancy: Occupancy
    warps: Array
    pipeline: Array
    resident: Array
    slots: Array
    busiest: Array
    rounds: Array

    @property
    def summing(self) -> bool:
        """A library's product whose threads each have many sums: none waits for another."""
        return "step_slots" in self.knobs

    def taken(self, rows: Rows | slice, count: int) -> Case:
        """That of some of its `count` schedules."""
        if isinstance(rows, slice) and rows == slice(0, count):
            return self
        return replace(self, **{name: taken(getattr(self, name), rows, count) for name in BY_SCHEDULE})


_BLOCK = ("knobs", "tiling", "work", "occupancy", "idle", "warps", "pipeline")
BY_SCHEDULE = (*_BLOCK, "resident", "slots", "busiest", "rounds")
"""What of a case has values by schedule."""


@dataclass
class Computing:
    """Seconds of the busiest SM's units, together (`compute`) and each, and what they follow from."""

    tensor: Array
    vector: Array
    operands: Array
    compute: Array
    requests: Array
    efficiency: Array
    beside: Array
    spilled_bytes: Array
    asked: Array


@dataclass
class Moving:
    """Seconds of L2 and DRAM, and what they follow from; `tiled` where a product is done in steps, `waiting` where a loop waits for its loads,
    stages `consumed` and bytes in flight of a block."""

    l2: Array
    read: Array
    write: Array
    store: Array
    l2_bytes: Array
    l2_counted: Array
    port_bytes: Array
    tiled: Array
    waiting: Array
    consumed: Array
    in_flight_block: Array


@dataclass
class Path:
    """Seconds until a block's first data are there (`fill`), of steps that follow each other (`chain`), of all that is `busy` with what is
    `exposed` of it, and of partial results that meet (`reduction`)."""

    fill: Array
    chain: Array
    busy: Array
    exposed: Array
    reduction: Array


def chained_path(c: Case, t: Traffic, q: Computing, m: Moving) -> Path:
    """Of a chain of products."""
    w, g, p, chip = c.work, c.tiling, c.p, c.chip
    block = chain_block(
        w, c.knobs, c.sizes, p,
        missed=t.missed, in_flight_bytes=m.in_flight_block,
        clock=chip.clock, l2_latency=chip.l2_latency, dram_latency=chip.dram_latency,
    )  # fmt: skip
    own = np.maximum(q.compute / c.busiest + block.steps, block.streamed)
    fill = block.fill * (1.0 + np.maximum(c.rounds - 1.0, 0.0) * block.seen)
    chain = c.rounds * np.maximum(own - q.compute / c.busiest, 0.0)
    moving = overlap((m.l2, (t.read_effort + t.write_effort) / chip.dram), INNER)
    busy = overlap((q.compute, moving, c.rounds * own + fill, q.requests), p.sharpness)
    idle_blocks = g.grid * c.idle / c.slots * block.begin
    reduction = meeting_seconds(
        c.kernel, g, w, c.knobs, c.idle, p,
        dram_bandwidth=chip.dram, l2_bandwidth=chip.l2, cache_bytes=chip.cache_bytes, port=chip.port,
        l2_latency=chip.l2_latency, dram_latency=chip.dram_latency,
    )  # fmt: skip
    reduction = reduction + idle_blocks
    return Path(fill, chain, busy, fill, reduction)  # what is exposed is a part of the path


def plain_path(c: Case, t: Traffic, q: Computing, m: Moving) -> Path:
    """Of one product, or of none."""
    w, g, p, chip = c.work, c.tiling, c.p, c.chip
    waited = chip.l2_latency + (chip.dram_latency - chip.l2_latency) * t.slowest
    arrival = waited * ARRIVAL / (c.pipeline - 0.5)
    step = w.trips * trip_depth(w, bool(chip.wide)) * p.step_clocks / chip.clock
    step = step + np.where(m.tiled, (w.trips - 1.0) * arrival, 0.0)
    turns = c.rounds
    if np.any(m.waiting):
        alone = trip_seconds(w, c.occupancy.threads, t.missed, chip.clock, chip.l2_latency, chip.dram_latency)
        step, turns = np.where(m.waiting, alone, step), np.where(m.waiting, np.ceil(c.rounds), c.rounds)
    chain = turns * (step + w.barriers * c.warps * BARRIER_CLOCKS / chip.clock)
    if c.chained:
        single = m.tiled & np.less_equal(c.pipeline - m.consumed, 1.0)  # one buffer: a block loads and computes in turn
        if c.compiled:  # what has one step has no loop, and no pipeline
            single = single & np.greater(w.trips, 1.0)
        chain = chain + np.where(single, c.rounds * (q.compute / c.busiest + w.trips * w.trip_bytes / chip.port), 0.0)
    else:  # blocks that follow each other in one place wait for their first loads each
        chain = chain + np.where(m.waiting, 0.0, (turns - 1.0) * p.fill_latency * chip.dram_latency)
    reading, moving = overlap((m.l2, m.read), INNER), overlap((m.l2, m.read + m.write), INNER)
    working = overlap((q.compute, reading, chain, q.requests), p.sharpness)
    together = overlap((q.compute, moving, chain, q.requests), p.sharpness)
    if np.any(m.waiting):  # a loop that waits for its loads overlaps nothing but the waiting of other blocks
        computing = overlap((q.compute, q.requests), INNER)
        together = np.where(m.waiting, computing + np.maximum(moving, chain), together)
    # a product's warps that only load go on during the epilogue
    ahead = c.chained > 0 and chip.bulk and bool(chip.wide) and not c.summing
    first = p.fill_latency * chip.dram_latency
    fill = (1.0 if ahead else c.rounds) * first
    unhidden = np.where(m.waiting, 0.0, working + m.store - together)
    followed = 0.0 if chip.wide == 2 and not c.compiled else p.exposed  # tensor memory holds two blocks' results
    alone = np.maximum(c.rounds * first + unhidden, 0.0) / c.rounds
    exposed = alone + (1.0 - 1.0 / c.rounds) * followed / c.resident * np.maximum(fill + unhidden, 0.0)
    late = late_seconds(g.grid, p, chip.dram_latency) if c.chained else 0.0
    fill, exposed = fill + late, exposed + late
    busy = together + exposed + ragged_seconds(c)
    partial = np.where(np.greater(g.split, 1.0), w.accumulators * 8.0 * g.grid, 0.0)
    met = p.reduction_latency * chip.dram_latency + g.split * chip.l2_latency / SUMS_IN_FLIGHT
    reduction = np.where(np.greater(g.split, 1.0), met + partial / chip.l2, 0.0)
    return Path(fill, chain, busy, exposed, reduction)


def late_seconds(blocks: Array, p: Parameters, dram_latency: float) -> Array:
    """By how many seconds the first loads of the last of a product's blocks come after those of a single one."""
    return SPREAD * np.log(np.maximum(blocks, 1.0)) * p.fill_latency * dram_latency


def ragged_seconds(c: Case) -> Array:
    """What the blocks of the last rows of a product wait for rows that it does not have, of libraries whose blocks ask L2 for them."""
    if "missing_reads" not in c.sizes:
        return 0.0
    (product,) = (nest.contraction for nest in c.kernel.nests if nest.contraction is not None)
    dim, g, w = product.m[-1], c.tiling, c.work
    missing = g.tile[dim] * g.blocks[dim] - c.kernel.extents[dim].evaluate(c.sizes)
    each = w.trips * w.tensor_k * w.tensor_bits / 8.0
    together = np.maximum(g.cluster.get(product.n[-1], 1.0), 1.0)  # blocks that get the rows by one read
    return c.sizes["missing_reads"] * missing * each * g.grid / g.blocks[dim] / together / c.chip.l2


def trip_depth(w: Work, wide: bool) -> Array:
    """How many times `step_clocks` a loop trip takes: warp-level multiplies over 128 bytes of k are one step, those
    of a warp group follow each other sooner; a trip of other loops is a quarter of a step."""
    share = GROUP_MMA_CLOCKS / WARP_MMA_CLOCKS if wide else 1.0
    return np.where(np.greater(w.tensor_k, 0.0), w.tensor_k * w.tensor_bits / 1024.0 * share, 0.25)
