"""The time of a kernel under a schedule: resources that work at the same time, latencies that do not hide, and what is
exposed at the start and the end of a block.

Vectorised over schedules (and over rows of sizes, for calibration): every value is a number or an array that broadcasts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from codesign.costmodel.gpu.chains import (
    ISSUED_LANES,
    SUMS_IN_FLIGHT,
    chain_block,
    further_launches,
    helper_seconds,
    launched,
    meeting_seconds,
    quantising_seconds,
)
from codesign.costmodel.gpu.energy import power_seconds, work_joules
from codesign.costmodel.gpu.geometry import Array, Geometry, Work, geometry, halved_l2, port_bytes_per_clock, wide_of
from codesign.costmodel.gpu.issue import block_work
from codesign.costmodel.gpu.lanes import Lanes
from codesign.costmodel.gpu.occupancy import Known, Occupancy, as_reported, occupancy
from codesign.costmodel.gpu.overlap import CHAINED, INNER, THREADED, THROTTLE, overlap
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.streaming import ARRIVAL, request_clocks, sustained_clock, trip_seconds
from codesign.costmodel.gpu.traffic import Traffic, drain_seconds, traffic
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import UnsupportedError

BARRIER_CLOCKS = 10.0
"""Clocks of a reduction over a block per warp that takes part."""

OPERAND_CLOCKS = 25.0
"""Clocks until a thread's load from shared memory returns; the warps of an SM wait in turn."""

WARP_MMA_CLOCKS, GROUP_MMA_CLOCKS = 33.0, 18.0
"""Clocks until a multiply may follow the one whose sum it goes on with: warp-level mma (Sun et al., Dissecting Tensor
Cores via Microbenchmarks, 2022), warp-group mma and tensor memory (Luo et al., Benchmarking and Dissecting the Nvidia
Hopper GPU Architecture, 2024)."""

ABSORBED = 0.5
"""Share of a small result that L2 still holds when a kernel with bulk stores has ended; DRAM gets it under the next
kernel."""

HIDING_WARPS, SCHEDULERS = 8.0, 4.0
"""Warps of an SM that hide the latency of dependent instructions, and its parts that issue an instruction of one warp a clock."""

VECTOR_LOAD, STREAM_LOAD = 16.0, 64.0
"""Bytes that a thread has under way: in a matrix-vector loop its next load waits for the sum, in a stream four vectors
go out at once."""


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


@dataclass(frozen=True)
class _Chip:
    """A machine's figures as the model uses them: bytes per second of what a well-made kernel reaches at each level,
    seconds of latency, lanes of an SM. `wide`: 0 where warps multiply fragments, 1 where warp groups do, 2 with tensor
    memory; `bulk` where stores and loads are bulk copies; `halved` where L2 is in two halves."""

    sms: float
    dram: float
    l2: float
    port: float
    shared: float
    cache_bytes: float
    dram_latency: float
    l2_latency: float
    clock: Array
    slower: Array
    lanes: Lanes
    warp: float
    wide: int
    bulk: bool
    halved: bool

    @staticmethod
    def of(machine: Machine, p: Parameters, slower: Array) -> _Chip:
        """The figures at a clock that is `slower` (a share) than the highest."""
        dram, l2, vector = machine.level("dram"), machine.level("l2"), machine.unit("vector")
        clock = machine.need(vector.clock_hz, "units.vector.clock_hz") * slower
        l2_bandwidth = machine.need(l2.bandwidth, "levels.l2.bandwidth") * machine.instances("l2")
        return _Chip(
            sms=float(machine.instances("shared")),
            dram=memory_bandwidth(machine) * p.dram_efficiency,
            l2=l2_bandwidth * p.l2_efficiency * slower,
            port=port_bytes_per_clock(machine) * clock,
            shared=machine.need(machine.level("shared").bandwidth, "levels.shared.bandwidth"),
            cache_bytes=cache_bytes(machine),
            dram_latency=machine.need(dram.latency_seconds, "levels.dram.latency_seconds"),
            l2_latency=machine.need(l2.latency_seconds, "levels.l2.latency_seconds"),
            clock=clock,
            slower=slower,
            lanes=Lanes.of(machine),
            warp=machine.limit("warp_size"),
            wide=wide_of(machine),
            bulk=bool(machine.features.get("tma", False)),
            halved=halved_l2(machine),
        )


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
    chip = _Chip.of(machine, p, sustained_clock(machine, sizes.get("run_operations", 0.0), p))
    contractions = sum(nest.contraction is not None for nest in kernel.nests)
    chained = contractions > 1
    warps, pipeline = knobs.get("warps", 4.0), np.maximum(knobs.get("pipeline", 1.0), 1.0)
    knobs, idle = launched(kernel, knobs, sizes, chip.sms)
    g = geometry(kernel, knobs, sizes, chip.sms)
    w, held = block_work(kernel, g, machine, knobs, compiled)
    found = occupancy(w, machine, warps, pipeline, held)
    if report is not None:
        found = as_reported(found, report, machine)
    resident = np.maximum(found.blocks, 1.0)
    if "blocks_limit" in knobs:  # persistent kernels keep so many blocks on an SM
        resident = np.minimum(resident, knobs["blocks_limit"])
    slots = chip.sms * resident
    absorbed = ABSORBED if chip.bulk else 0.0
    group = knobs.get("group", 1.0)
    t = traffic(kernel, g, slots, group, order, chip.cache_bytes, p.warm, p.write_gap, absorbed, chip.halved)
    busiest = busiest_sm(g.grid, slots, chip.sms, sizes.get("skew", 1.0) * g.skew)
    rounds = np.maximum(busiest / resident, g.skew)  # the longest block is as many mean ones

    # what one SM computes and is fed with
    overhead = 0.0 if chained else p.tile_overhead  # a chain's tile of keys serves a whole tile of rows
    delivery = 1.0 + overhead * (1.0 / np.maximum(w.tensor_m, 1.0) + 1.0 / np.maximum(w.tensor_n, 1.0))
    efficiency = p.tensor_efficiency * chip.slower / delivery
    tensor = tensor_seconds(w.tensor, machine, chip.sms) * busiest / efficiency
    neighbours = np.maximum(np.minimum(resident, busiest / g.skew), 1.0)
    summing = "step_slots" in knobs  # a library's product whose threads each have many sums: none waits for another
    beside = np.minimum(neighbours * warps / (SCHEDULERS if summing else HIDING_WARPS), 1.0)
    spilled = spilled_bytes(w, found)
    vector = busiest * (_vector_seconds(w, chip, p, knobs) / beside + spilled / chip.port)
    waits = (w.operand_waits * OPERAND_CLOCKS + w.cache_waits * chip.l2_latency * chip.clock) / (resident * warps)
    operands = busiest * (w.operand_bytes / chip.shared + (w.operand_clocks + waits) / chip.clock)
    turns_order = THREADED if g.threaded else CHAINED if chained else INNER
    compute = overlap((overlap((tensor, operands), INNER), vector), turns_order)
    copied = chip.bulk and not compiled  # generated code asks with its threads' loads
    asked = request_clocks(w, found.threads, knobs.get("access_bytes", 16.0), chip.warp, copied)
    requests = busiest * asked / chip.clock

    # L2 and DRAM, which all SMs share
    arriving = w.load_bytes - w.shared_loads if chip.wide == 2 else w.load_bytes  # a pair of SMs keeps half each
    stored = w.store_bytes * (2.0 if chip.halved else 1.0)
    l2_bytes = g.grid * (w.load_bytes - w.shared_loads + stored + 2.0 * w.atomic_bytes)
    port_bytes = busiest * arriving
    l2 = np.maximum(l2_bytes / chip.l2, port_bytes / chip.port)
    tiled = np.greater(w.tensor_k, 0.0)
    waiting = np.greater(w.trips, 1.0) & np.logical_not(tiled) & np.less_equal(pipeline, 1.0)
    consumed = stages_consumed(w, chip.wide)
    in_flight_block = in_flight_bytes(w, knobs, found.threads, pipeline - consumed)
    in_flight = np.maximum(np.minimum(g.grid, slots) * in_flight_block, 1.0)
    read = t.read_effort / chip.dram
    if contractions:
        read = read + np.maximum(chip.dram_latency * t.read / in_flight - chip.dram_latency, 0.0)
        if not chained:
            ready = in_flight * p.dram_efficiency / (chip.dram * chip.dram_latency)
            read = read + drain_seconds(read, np.maximum(g.grid / slots, 1.0), ready)
    else:
        behind = g.grid * w.load_bytes / in_flight  # loads that wait for each other, of a block and of those after it
        read = np.where(waiting, read, overlap((read, chip.dram_latency * behind * t.missed), INNER))
    write = t.write_effort / chip.dram
    store = np.maximum(write, g.grid * stored / chip.l2)

    # what the blocks of an SM do one after the other, and what of it nothing hides
    if chained:
        block = chain_block(
            w, knobs, sizes, p,
            missed=t.missed, in_flight_bytes=in_flight_block,
            clock=chip.clock, l2_latency=chip.l2_latency, dram_latency=chip.dram_latency,
        )  # fmt: skip
        own = np.maximum(compute / busiest + block.steps, block.streamed)
        fill = block.fill * (1.0 + np.maximum(rounds - 1.0, 0.0) * block.seen)
        chain = rounds * np.maximum(own - compute / busiest, 0.0)
        moving = overlap((l2, (t.read_effort + t.write_effort) / chip.dram), INNER)
        busy = overlap((compute, moving, rounds * own + fill, requests), p.sharpness)
        exposed = fill  # part of the path
        idle_blocks = g.grid * idle / slots * block.begin
        reduction = meeting_seconds(
            kernel, g, w, knobs, idle, p,
            dram_bandwidth=chip.dram, l2_bandwidth=chip.l2, cache_bytes=chip.cache_bytes, port=chip.port,
            l2_latency=chip.l2_latency, dram_latency=chip.dram_latency,
        )  # fmt: skip
        reduction = reduction + idle_blocks
    else:
        waited = chip.l2_latency + (chip.dram_latency - chip.l2_latency) * t.missed
        arrival = waited * ARRIVAL / (pipeline - 0.5)
        step = w.trips * trip_depth(w, bool(chip.wide)) * p.step_clocks / chip.clock
        step = step + np.where(tiled, (w.trips - 1.0) * arrival, 0.0)
        turns = rounds
        if np.any(waiting):
            alone = trip_seconds(w, found.threads, t.missed, chip.clock, chip.l2_latency, chip.dram_latency)
            step, turns = np.where(waiting, alone, step), np.where(waiting, np.ceil(rounds), rounds)
        chain = turns * (step + w.barriers * warps * BARRIER_CLOCKS / chip.clock)
        if contractions:
            single = tiled & np.less_equal(pipeline - consumed, 1.0)  # one buffer: a block loads and computes in turn
            if compiled:  # what has one step has no loop, and no pipeline
                single = single & np.greater(w.trips, 1.0)
            chain = chain + np.where(single, rounds * (compute / busiest + w.trips * w.trip_bytes / chip.port), 0.0)
        else:  # blocks that follow each other in one place wait for their first loads each
            chain = chain + np.where(waiting, 0.0, (turns - 1.0) * p.fill_latency * chip.dram_latency)
        reading, moving = overlap((l2, read), INNER), overlap((l2, read + write), INNER)
        working = overlap((compute, reading, chain, requests), p.sharpness)
        together = overlap((compute, moving, chain, requests), p.sharpness)
        if np.any(waiting):  # a loop that waits for its loads overlaps nothing but the waiting of other blocks
            computing = overlap((compute, requests), INNER)
            together = np.where(waiting, computing + np.maximum(moving, chain), together)
        ahead = chip.bulk and bool(chip.wide) and not summing  # warps that only load go on during the epilogue
        fill = (1.0 if ahead else rounds) * p.fill_latency * chip.dram_latency
        serial = fill + np.where(waiting, together, working + store)
        followed = 0.0 if chip.wide == 2 and not compiled else p.exposed  # tensor memory holds two blocks' results
        share = 1.0 / rounds + (1.0 - 1.0 / rounds) * followed / resident
        exposed = share * np.maximum(serial - together, 0.0)
        busy = together + exposed
        partial = np.where(np.greater(g.split, 1.0), w.accumulators * 8.0 * g.grid, 0.0)
        met = p.reduction_latency * chip.dram_latency + g.split * chip.l2_latency / SUMS_IN_FLIGHT
        reduction = np.where(np.greater(g.split, 1.0), met + partial / chip.l2, 0.0)

    further = further_launches(g, knobs, idle)
    launch = p.launch_seconds + p.helper_seconds * further
    passes = helper_seconds(t, knobs, sizes, p, chip.dram, chip.l2) + quantising_seconds(
        sizes, p, dram_bandwidth=chip.dram, l2_bandwidth=chip.l2, cache_bytes=chip.cache_bytes, halved=chip.halved
    )
    joules = work_joules(w, g.grid, t.read, t.write, machine, p)
    power = power_seconds(joules, machine)
    return Estimate(
        total=overlap((launch + busy + reduction + passes, power), THROTTLE),
        joules=joules,
        launch=launch,
        resources={
            "fill": fill,
            "tensor": tensor,
            "vector": vector,
            "l2": l2,
            "dram": read,
            "store": store,
            "requests": requests,
            "power": power,
            "passes": passes,
            "latency": chain,
        },
        exposed=exposed,
        reduction=reduction,
        occupancy=found,
        blocks_per_sm=resident,
        rounds=rounds,
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
            busiest,
            efficiency,
            beside,
            spilled,
            asked,
            l2_bytes,
            port_bytes,
            further,
            operands,
        ),
    )


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


def _vector_seconds(w: Work, chip: _Chip, p: Parameters, knobs: Mapping[str, Array]) -> Array:
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


def memory_bandwidth(machine: Machine) -> float:
    """Bytes per second of DRAM as the chip sees it: through the last cache before it where there is one."""
    dram = machine.need(machine.level("dram").bandwidth, "levels.dram.bandwidth")
    if not machine.has_level("llc"):
        return dram
    return min(dram, machine.need(machine.level("llc").bandwidth, "levels.llc.bandwidth") * machine.instances("llc"))


def cache_bytes(machine: Machine) -> float:
    """Capacity of the largest cache before DRAM."""
    capacity = machine.need(machine.level("l2").capacity_bytes, "levels.l2.capacity_bytes") * machine.instances("l2")
    if not machine.has_level("llc"):
        return capacity
    last = machine.need(machine.level("llc").capacity_bytes, "levels.llc.capacity_bytes") * machine.instances("llc")
    return max(capacity, last)


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


def trip_depth(w: Work, wide: bool) -> Array:
    """How many times `step_clocks` a loop trip takes: warp-level multiplies over 128 bytes of k are one step, those
    of a warp group follow each other sooner; a trip of other loops is a quarter of a step."""
    share = GROUP_MMA_CLOCKS / WARP_MMA_CLOCKS if wide else 1.0
    return np.where(np.greater(w.tensor_k, 0.0), w.tensor_k * w.tensor_bits / 1024.0 * share, 0.25)
