"""The time of a kernel under a schedule: resources that work at the same time, latencies that do not hide, and what is
exposed at the start and the end of a block.

Vectorised over schedules (and over rows of sizes, for calibration): every value is a number or an array that broadcasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from codesign.costmodel.gpu.block import block_work
from codesign.costmodel.gpu.chains import (
    ISSUED_LANES,
    further_launches,
    helper_seconds,
    launched,
    quantising_seconds,
)
from codesign.costmodel.gpu.chip import Chip
from codesign.costmodel.gpu.energy import power_seconds, work_joules
from codesign.costmodel.gpu.geometry import Array, Geometry, geometry
from codesign.costmodel.gpu.habits import start_seconds
from codesign.costmodel.gpu.occupancy import SCHEDULERS, Known, Occupancy, as_reported, occupancy
from codesign.costmodel.gpu.overlap import CHAINED, INNER, THREADED, THROTTLE, overlap
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.paths import Case, Computing, Moving, chained_path, plain_path
from codesign.costmodel.gpu.streaming import request_clocks, sustained_clock
from codesign.costmodel.gpu.traffic import ROTATED, Traffic, drain_seconds, traffic, undivided
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import UnsupportedError

OPERAND_CLOCKS = 25.0
"""Clocks until a thread's load from shared memory returns; the warps of an SM wait in turn."""

ABSORBED = 0.5
"""Share of a small result that L2 still holds when a kernel with bulk stores has ended; DRAM gets it under the next
kernel. Fitted (`benchmarks/constants.py`)."""

SHARED_READ, LONE_READ = 0.75, 1.25
"""What a byte of a product's operands costs L2 when several blocks of a wave load it, and when one does, over a byte in the mean: what SMs ask for
at the same time L2 reads once. Read off products on four GPUs: with one rate those of up to 64 columns, where a row of the left operand is for one
block, took 5 to 30 % longer than predicted, those of 128 to 1024 columns 5 to 20 % less."""

HIDING_WARPS = 2.0 * SCHEDULERS
"""Warps of an SM that hide the latency of dependent instructions: two for each part that issues an instruction of one warp a clock."""

VECTOR_LOAD, STREAM_LOAD = 16.0, 64.0
"""Bytes that a thread has under way: in a matrix-vector loop its next load waits for the sum, in a stream four vectors
go out at once. Tables of times hardly feel them (`benchmarks/constants.py`)."""


@dataclass
class Parts:
    """What an estimate was computed from, for its explanation: the block's `work`, the tiling and its traffic, the chip's
    figures, and the numbers between them and the seconds of each resource."""

    work: Work
    tiling: Geometry
    traffic: Traffic
    dram_bandwidth: Array
    l2_bandwidth: Array
    port: Array
    clock: Array
    busiest: Array
    """Blocks of the SM that has the most."""
    tensor_efficiency: Array
    """Share of the tensor peak, what operand delivery loses included."""
    warps_beside: Array
    """Share of the vector unit's rate that so many warps reach."""
    spilled_bytes: Array
    request_clocks: Array
    l2_bytes: Array
    l2_counted: Array
    """Bytes of L2 that would take as long one by one."""
    port_bytes: Array
    further_launches: Array
    operand_seconds: Array
    """Of the busiest SM's operands on their way from shared memory."""


@dataclass
class Estimate:
    """Seconds of each resource or phase and their total, and `joules` of the work; arrays broadcast over schedules (and
    rows of sizes)."""

    total: Array
    joules: Array
    launch: Array
    resources: dict[str, Array]
    exposed: Array
    reduction: Array
    occupancy: Occupancy
    blocks_per_sm: Array
    rounds: Array
    dram_read: Array
    dram_write: Array
    flops: Array
    grid: Array
    parts: Parts


def estimate(
    kernel: KernelSummary,
    machine: Machine,
    knobs: Mapping[str, Array],
    sizes: Mapping[str, Array],
    p: Parameters,
    order: tuple[str, ...] = (),
    compiled: bool = True,
    report: Known | None = None,
) -> Estimate:
    """Time of a kernel under schedules given as columns of knobs; `compiled` by this compiler, else a library's code. `report`: what its
    code was found to take. Raises UnsupportedError when a unit the kernel needs is unknown.

    Besides the size symbols, `sizes` may say how much longer the longest block is than the mean one (`skew`) and what
    operations of the tensor unit went before in one go (`run_operations`), which lower the clock.
    """
    c = case_of(kernel, machine, knobs, sizes, p, compiled, report)
    return timed(c, computed(c), order)


def timed(c: Case, computing: Computing, order: tuple[str, ...]) -> Estimate:
    """The time of a kernel whose blocks run in this order of dims, so many tiles of the slowest together as `group` says."""
    kernel, machine, sizes, p, chip, compiled = c.kernel, c.machine, c.sizes, c.p, c.chip, c.compiled
    t = _read_and_written(c, order)
    moving = _moving(c, t)
    path = chained_path(c, t, computing, moving) if c.chained > 1 else plain_path(c, t, computing, moving)
    w, g = c.work, c.tiling
    further = further_launches(g, c.knobs, c.idle)
    launch = p.launch_seconds + p.helper_seconds * further
    if not compiled:
        launch = launch + start_seconds(kernel, machine, sizes)
    passes = helper_seconds(t, c.knobs, sizes, p, chip.dram, chip.l2) + quantising_seconds(
        sizes, p,
        dram_bandwidth=chip.dram, l2_bandwidth=chip.l2, cache_bytes=chip.cache_bytes, halved=chip.halved,
        sm_clocks=chip.sms * chip.clock,
    )  # fmt: skip
    joules = work_joules(w, g.grid, t.read, t.write, machine, p)
    power = power_seconds(joules, machine) / c.lasting  # what is hot leaks more of the limit
    return Estimate(
        total=overlap((launch + path.busy + path.reduction + passes, power), THROTTLE),
        joules=joules,
        launch=launch,
        resources={
            "fill": path.fill,
            "tensor": computing.tensor,
            "vector": computing.vector,
            "l2": moving.l2,
            "dram": moving.read,
            "store": moving.store,
            "requests": computing.requests,
            "power": power,
            "passes": passes,
            "latency": path.chain,
        },
        exposed=path.exposed,
        reduction=path.reduction,
        occupancy=c.occupancy,
        blocks_per_sm=c.resident,
        rounds=c.rounds,
        dram_read=t.read,
        dram_write=t.write,
        flops=2.0 * (sum(w.tensor.values()) + w.ieee + w.double_products) * g.grid,
        grid=g.grid,
        parts=Parts(
            w,
            g,
            t,
            chip.dram,
            chip.l2,
            chip.port,
            chip.clock,
            c.busiest,
            computing.efficiency,
            computing.beside,
            computing.spilled_bytes,
            computing.asked,
            moving.l2_bytes,
            moving.l2_counted,
            moving.port_bytes,
            further,
            computing.operands,
        ),
    )


def case_of(
    kernel: KernelSummary,
    machine: Machine,
    knobs: Mapping[str, Array],
    sizes: Mapping[str, Array],
    p: Parameters,
    compiled: bool,
    report: Known | None,
) -> Case:
    """The block, and how many of it run where; see `estimate`."""
    sms = float(machine.instances("shared"))
    warps, pipeline = knobs.get("warps", 4.0), np.maximum(knobs.get("pipeline", 1.0), 1.0)
    knobs, idle = launched(kernel, knobs, sizes, sms)
    g = geometry(kernel, knobs, sizes, sms)
    w, held = block_work(kernel, g, machine, knobs, compiled)
    lasting = lasting_share(kernel, machine, g, w, p)
    before = sustained_clock(machine, sizes.get("run_operations", 0.0), p.profiled_clock)
    chip = Chip.of(machine, p, before * lasting)
    found = occupancy(w, machine, warps, pipeline, held)
    if report is not None:
        found = as_reported(found, report, machine)
    resident = np.maximum(found.blocks, 1.0)
    if "blocks_limit" in knobs:  # persistent kernels keep so many blocks on an SM
        resident = np.minimum(resident, knobs["blocks_limit"])
    slots = chip.sms * resident
    busiest = busiest_sm(g.grid, slots, chip.sms, sizes.get("skew", 1.0) * g.skew)
    return Case(
        kernel=kernel,
        machine=machine,
        knobs=knobs,
        sizes=sizes,
        p=p,
        compiled=compiled,
        chip=chip,
        lasting=lasting,
        chained=kernel.chained,
        idle=idle,
        tiling=g,
        work=w,
        occupancy=found,
        warps=warps,
        pipeline=pipeline,
        resident=resident,
        slots=slots,
        busiest=busiest,
        rounds=np.maximum(busiest / resident, g.skew),  # the longest block is as many mean ones
    )


def lasting_share(kernel: KernelSummary, machine: Machine, g: Geometry, w: Work, p: Parameters) -> Array:
    """Share of the clock, and of the power limit, that is left for a product of the tensor unit when it is repeated in one go, as it is timed.

    Of several in a kernel the longest counts: a chip gets as warm by them one after another, so that two kernels gain nothing here.
    """
    operations: Array = 0.0
    for nest in kernel.nests if kernel.chained == 1 and w.tensor else ():
        if nest.contraction is not None:
            points: Array = 1.0
            for dim in (*nest.dims, *nest.reductions):
                points = points * g.extents[dim]
            operations = np.maximum(operations, 2.0 * ROTATED * points)
    return sustained_clock(machine, operations, p.lasting_clock)


def _read_and_written(c: Case, order: tuple[str, ...]) -> Traffic:
    """What blocks that run in this order read from DRAM and write to it."""
    chip, p = c.chip, c.p
    absorbed = ABSORBED if chip.bulk else 0.0
    shared = chip.cache_bytes, p.warm, p.write_gap, absorbed, chip.halved
    group = c.knobs.get("group", 1.0)
    found = traffic(c.kernel, c.tiling, c.slots, group, order, *shared, c.work.sweeps)
    names = [each.name for each in fields(found)]
    return Traffic(*undivided([getattr(found, name) for name in names], group))


def computed(c: Case) -> Computing:
    """What one SM computes and is fed with."""
    w, g, p, chip, knobs = c.work, c.tiling, c.p, c.chip, c.knobs
    chained = c.chained > 1
    overhead = 0.0 if chained else p.tile_overhead  # a chain's tile of keys serves a whole tile of rows
    delivery = 1.0 + overhead * (1.0 / np.maximum(w.tensor_m, 1.0) + 1.0 / np.maximum(w.tensor_n, 1.0))
    efficiency = p.tensor_efficiency * chip.slower / delivery
    tensor = tensor_seconds(w.tensor, c.machine, chip.sms) * c.busiest / efficiency
    neighbours = np.maximum(np.minimum(c.resident, c.busiest / g.skew), 1.0)
    beside = np.minimum(neighbours * c.warps / (SCHEDULERS if c.summing else HIDING_WARPS), 1.0)
    spilled = spilled_bytes(w, c.occupancy)
    vector = c.busiest * (_vector_seconds(w, chip, p, knobs) / beside + spilled / chip.port)
    waits = (w.operand_waits * OPERAND_CLOCKS + w.cache_waits * chip.l2_latency * chip.clock) / (c.resident * c.warps)
    operands = c.busiest * (w.operand_bytes / chip.shared + (w.operand_clocks + waits) / chip.clock)
    turns_order = THREADED if g.threaded else CHAINED if chained else INNER
    compute = overlap((overlap((tensor, operands), INNER), vector), turns_order)
    copied = chip.bulk and not c.compiled  # generated code asks with its threads' loads
    asked = request_clocks(w, c.occupancy.threads, knobs.get("access_bytes", 16.0), chip.warp, copied)
    requests = c.busiest * asked / chip.clock
    return Computing(tensor, vector, operands, compute, requests, efficiency, beside, spilled, asked)


def _moving(c: Case, t: Traffic) -> Moving:
    """L2 and DRAM, which all SMs share."""
    w, g, p, chip = c.work, c.tiling, c.p, c.chip
    arriving = w.load_bytes - w.shared_loads if chip.wide == 2 else w.load_bytes  # a pair of SMs keeps half each
    both = chip.halved and c.chained > 0  # of a halved L2: streams are written where they are read next
    stored = w.store_bytes * (2.0 if both else 1.0)
    l2_bytes = g.grid * (w.load_bytes - w.shared_loads + stored + 2.0 * w.atomic_bytes)
    port_bytes = c.busiest * arriving
    counted = l2_bytes
    if c.chained == 1:
        counted = counted + shared_effort(g.grid * (w.load_bytes - w.shared_loads), t.together)
    l2 = np.maximum(counted / chip.l2, port_bytes / chip.port)
    tiled = np.greater(w.tensor_k, 0.0)
    waiting = np.greater(w.trips, 1.0) & np.logical_not(tiled) & np.less_equal(c.pipeline, 1.0)
    consumed = stages_consumed(w, chip.wide)
    in_flight_block = in_flight_bytes(w, c.knobs, c.occupancy.threads, c.pipeline - consumed)
    in_flight = np.maximum(np.minimum(g.grid, c.slots) * in_flight_block, 1.0)
    read = t.read_effort / chip.dram
    if c.chained:
        in_flight = np.maximum(in_flight * t.missed, 1.0)  # of what L2 holds, DRAM has nothing on the way
        read = read + np.maximum(chip.dram_latency * t.read / in_flight - chip.dram_latency, 0.0)
        if c.chained == 1:
            ready = in_flight * p.dram_efficiency / (chip.dram * chip.dram_latency)
            read = read + drain_seconds(read, np.maximum(g.grid / c.slots, 1.0), ready)
    else:
        behind = g.grid * w.load_bytes / in_flight  # loads that wait for each other, of a block and of those after it
        read = np.where(waiting, read, overlap((read, chip.dram_latency * behind * t.missed), INNER))
    write = t.write_effort / chip.dram
    store = np.maximum(write, g.grid * stored / chip.l2)
    return Moving(l2, read, write, store, l2_bytes, counted, port_bytes, tiled, waiting, consumed, in_flight_block)


def shared_effort(loaded: Array, distinct: Array) -> Array:
    """As how many more bytes those that a product's blocks load through L2 count, of which each wave's are `distinct`."""
    lone = np.minimum(distinct, loaded)
    return (LONE_READ - 1.0) * lone - (1.0 - SHARED_READ) * (loaded - lone)


def in_flight_bytes(w: Work, knobs: Mapping[str, Array], threads: Array, stages: Array) -> Array:
    """Bytes of operands that a block has under way: so many stages of a tiled loop, else what its threads ask for at
    once (`in_flight` bytes each where the schedule says so)."""
    tiled = np.greater(w.trips, 1.0) & np.greater(w.tensor_k, 0.0)
    each = np.where(knobs.get("vector_unit", 0.0), VECTOR_LOAD, STREAM_LOAD)
    staged = w.trip_bytes * np.minimum(np.maximum(stages, 0.5), w.trips)
    found = np.where(tiled, staged, np.minimum(w.load_bytes, threads * each))
    if "in_flight" in knobs:
        found = np.where(np.greater(knobs["in_flight"], 0.0), threads * knobs["in_flight"], found)
    return found


def stages_consumed(w: Work, wide: int) -> Array:
    """Stages of a pipeline that are being computed with, and not in flight."""
    return np.where(np.greater_equal(w.tensor_m, 64.0), 0.5, 1.0) if wide else 1.0


def busiest_sm(grid: Array, slots: Array, sms: float, skew: Array) -> Array:
    """Blocks of the SM that has the most, or the length of the longest block in mean ones where that is more."""
    whole = np.floor(grid / slots)
    busiest = whole * (slots / sms) + np.ceil((grid - whole * slots) / sms)
    return np.maximum(np.maximum(busiest, 1.0), skew)


def _vector_seconds(w: Work, chip: Chip, p: Parameters, knobs: Mapping[str, Array]) -> Array:
    """Seconds of one block on the vector and special-function units of an SM whose warps hide their latency."""
    plain, special = (clocks / chip.clock / p.vector_efficiency for clocks in chip.lanes.clocks(w))
    if "step_slots" in knobs:  # a library's product: what each of its threads issues besides multiply-adds
        further = knobs["step_slots"] * w.spill_steps + knobs["block_slots"]
        slots = w.ieee + knobs["warps"] * chip.warp * further
        return slots / chip.lanes.plain / chip.clock / knobs["issue_share"]
    if "instructions" in knobs:
        plain = np.maximum(plain, knobs["instructions"] * w.ieee / 2.0 / ISSUED_LANES / chip.clock)
    return np.maximum(plain, special)


def spilled_bytes(w: Work, found: Occupancy) -> Array:
    """Bytes that a block moves for registers that do not fit: once out and once in for each step that needs them."""
    return found.spilled * found.threads * np.maximum(4.0 * w.trips, 2.0 * w.spill_steps)


def tensor_seconds(work_by_dtype: Mapping[str, Array], machine: Machine, sms: float) -> Array:
    """Seconds of one block's multiply-adds on its SM's tensor units."""
    seconds: Array = 0.0
    for dtype, count in work_by_dtype.items():
        rate = machine.burst_rate("tensor", dtype)
        if rate is None and dtype == "f8":
            rate = machine.burst_rate("tensor", "f16")  # converted on the way in
        if rate is None:
            raise UnsupportedError(
                f"{machine.name}: no rate for {dtype} on the tensor unit",
                hint=f"add units.tensor.rate.{dtype} to the machine file",
            )
        seconds = seconds + 2.0 * count / (rate / sms)
    return seconds
