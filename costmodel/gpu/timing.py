"""From work, occupancy and traffic to seconds: the phases of blocks on SMs and how they overlap.

A block fills its pipeline, runs its loop, and stores. Resources (tensor, vector and special units, L2, DRAM) work at
the same time within a phase and, as far as several blocks share an SM or follow each other asynchronously, across
phases. The time is the busiest SM's or the busiest shared resource's, whichever is longer, plus what is not hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.costmodel.gpu.geometry import Array, Work, geometry, work
from codesign.costmodel.gpu.occupancy import Occupancy, occupancy
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.streaming import ARRIVAL, request_clocks, sustained_clock, trip_seconds
from codesign.costmodel.gpu.traffic import drain_seconds, traffic
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import UnsupportedError

INNER = 6.0
"""Order of the norm among resources of one path (tensor unit and operand delivery): nearly the longest."""

MEMORY = 4.0
"""The same for L2 and DRAM under a contraction: what L2 answers queues among what waits for DRAM."""

BARRIER_CLOCKS = 10.0
"""Clocks of a reduction over a block per warp that takes part."""

CHAINED = 2.0
"""The same for a chain of contractions, where the vector unit works between two of them on the same tile and overlaps
only other blocks' or warp groups' work."""

OPERAND_CLOCKS = 25.0
"""Clocks until a thread's load from shared memory returns; the warps of an SM wait in turn."""

THREADED = 1.2
"""The same for schedules of single threads: a thread's multiply-adds wait for the operands that it loads itself, so the
two overlap only as far as other warps have work."""

WARP_MMA_CLOCKS, GROUP_MMA_CLOCKS = 33.0, 18.0
"""Clocks until a multiply may follow the one whose sum it goes on with: warp-level mma (Sun et al., Dissecting Tensor
Cores via Microbenchmarks, 2022), warp-group mma and tensor memory (Luo et al., Benchmarking and Dissecting the Nvidia
Hopper GPU Architecture, 2024)."""

STATIC_POWER = 0.15
"""Share of the power limit that does not follow the work: leakage, memory refresh, links."""

THROTTLE = 12.0
"""Order of the norm of a kernel's time and the time that its energy takes at the power limit: nearly the longer."""

OPERAND_BITS = {"f8": 8.0, "i8": 8.0, "f4": 4.0, "tf32": 32.0, "f32": 32.0}
"""Bits of the operands of a tensor unit's dtypes, 16 where not listed."""

ABSORBED = 0.5
"""Share of a small result that L2 still holds when a kernel with bulk stores has ended; DRAM gets it under the next
kernel."""

VECTOR_LOAD = 16.0
"""Bytes that a thread of a matrix-vector loop has under way: its next load waits for the sum."""

@dataclass
class Estimate:
    """Seconds of each resource or phase and their total; arrays broadcast over schedules (and rows of sizes)."""

    total: Array
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
    shares: dict[str, Array] = field(default_factory=dict)


def estimate(
    kernel: KernelSummary,
    machine: Machine,
    knobs: Mapping[str, Array],
    sizes: Mapping[str, Array],
    p: Parameters,
    order: tuple[str, ...] = (),
) -> Estimate:
    """Time of a kernel under schedules given as columns of knobs; raises UnsupportedError when a unit the kernel
    needs is unknown.

    Besides the size symbols, `sizes` may say how much longer the longest block is than the mean one (`skew`) and what
    operations of the tensor unit went before in one go (`run_operations`), which lower the clock.
    """
    sms = float(machine.instances("shared"))
    dram, l2 = machine.level("dram"), machine.level("l2")
    bandwidth = machine.need(dram.bandwidth, "levels.dram.bandwidth")
    l2_instances = float(machine.instances("l2"))
    l2_bandwidth = machine.need(l2.bandwidth, "levels.l2.bandwidth") * l2_instances * p.l2_efficiency
    latency = machine.need(dram.latency_seconds, "levels.dram.latency_seconds")
    l2_latency = machine.need(l2.latency_seconds, "levels.l2.latency_seconds")
    vector = machine.unit("vector")
    slower = sustained_clock(machine, sizes.get("run_operations", 0.0), p)
    clock = machine.need(vector.clock_hz, "units.vector.clock_hz") * slower
    l2_bandwidth = l2_bandwidth * slower
    port = 64.0 * clock
    shared_bandwidth = machine.need(machine.level("shared").bandwidth, "levels.shared.bandwidth")

    bulk = bool(machine.features.get("tma", False))
    wide = 2 if machine.features.get("tensor_memory") else 1 if machine.features.get("wgmma") else 0
    warps = knobs.get("warps", 4.0)
    g = geometry(kernel, knobs, sizes, sms)
    w = work(kernel, g, knobs.get("vector_unit", 0.0), warps, wide)
    pipeline = np.maximum(knobs.get("pipeline", 1.0), 1.0)
    found = occupancy(w, machine, warps, pipeline)
    resident = np.maximum(found.blocks, 1.0)
    if "blocks_limit" in knobs:  # persistent kernels keep so many blocks on an SM
        resident = np.minimum(resident, knobs["blocks_limit"])
    slots = sms * resident
    cache = cache_bytes(machine)
    t = traffic(kernel, g, slots, knobs.get("group", 1.0), order, cache, p.warm, p.write_gap, ABSORBED if bulk else 0.0)

    even = g.grid / sms
    whole = np.floor(g.grid / slots)
    busiest = whole * resident + np.ceil((g.grid - whole * slots) / sms)
    busiest = np.maximum(even + (busiest - even) * p.imbalance, 1.0)
    busiest = np.maximum(busiest, sizes.get("skew", 1.0))  # the longest block, where blocks are not alike
    rounds = np.maximum(busiest / resident, 1.0)

    tensor = tensor_seconds(w.tensor, machine, sms) * (
        1.0 + p.tile_overhead * (1.0 / np.maximum(w.tensor_m, 1.0) + 1.0 / np.maximum(w.tensor_n, 1.0))
    )
    tensor = tensor * busiest / (p.tensor_efficiency * slower)
    lanes = machine.need(vector.rate["f32"], "units.vector.rate.f32") * vector.count
    integer_lanes = machine.need(vector.rate.get("i32", vector.rate["f32"]), "units.vector.rate.i32") * vector.count
    special = machine.unit("special")
    special_lanes = machine.need(special.rate["f32"], "units.special.rate.f32") * special.count
    spill = found.spilled * found.threads * np.maximum(4.0 * w.trips, 2.0 * w.spill_steps) / port
    vector_seconds = ((w.vector + w.ieee) / lanes + w.integer / integer_lanes) / clock / p.vector_efficiency
    special_seconds = w.special / special_lanes / clock / p.vector_efficiency
    busy_warps = np.minimum(np.minimum(resident, busiest) * warps / 8.0, 1.0)
    waits = (w.operand_waits * OPERAND_CLOCKS + w.cache_waits * l2_latency * clock) / (resident * warps)
    operand_seconds = busiest * (w.operand_bytes / shared_bandwidth + (w.operand_clocks + waits) / clock)
    vector_seconds = busiest * (np.maximum(vector_seconds, special_seconds) / busy_warps + spill)

    parts = np.where(np.greater(g.split, 1.0), g.split, 0.0)
    partial_bytes = (
        0.0 if np.ndim(parts) == 0 and not parts else parts * w.accumulators * 8.0 * (g.grid / np.maximum(g.split, 1.0))
    )
    arriving = w.load_bytes - w.shared_loads if wide == 2 else w.load_bytes  # a pair of SMs keeps half each
    l2_bytes = g.grid * (w.load_bytes - w.shared_loads + w.store_bytes + 2.0 * w.atomic_bytes)
    l2_seconds = np.maximum(l2_bytes / l2_bandwidth, busiest * arriving / port)

    contractions = sum(nest.contraction is not None for nest in kernel.nests)
    tiled = np.greater(w.tensor_k, 0.0)
    waiting = np.greater(w.trips, 1.0) & np.logical_not(tiled) & np.less_equal(pipeline, 1.0)
    consumed = np.where(np.greater_equal(w.tensor_m, 64.0), 0.5, 1.0) if wide else 1.0  # stage that is not in flight
    in_flight_block = np.where(
        np.greater(w.trips, 1.0) & tiled,
        w.trip_bytes * np.minimum(np.maximum(pipeline - consumed, 0.5), w.trips),
        np.minimum(w.load_bytes, found.threads * np.where(knobs.get("vector_unit", 0.0), VECTOR_LOAD, 64.0)),
    )
    in_flight = np.maximum(np.minimum(g.grid, slots) * in_flight_block, 1.0)
    warp = machine.limit("warp_size")
    requests = busiest * request_clocks(w, found.threads, knobs.get("access_bytes", 16.0), warp) / clock
    read_seconds, behind = t.read_effort / (bandwidth * p.dram_efficiency), latency * t.read / in_flight
    if contractions:
        read_seconds = read_seconds + np.maximum(behind - latency, 0.0)
        if contractions == 1:
            ready = in_flight / (bandwidth * latency)
            read_seconds = read_seconds + drain_seconds(read_seconds, np.maximum(g.grid / slots, 1.0), ready)
    else:
        read_seconds = np.where(waiting, read_seconds, _norm((read_seconds, behind), INNER))
    write_seconds = t.write_effort / (bandwidth * p.dram_efficiency)
    store_seconds = np.maximum(write_seconds, g.grid * w.store_bytes / l2_bandwidth)
    arrival = latency * ARRIVAL / (pipeline - 0.5)
    step = w.trips * trip_depth(w, bool(wide)) * p.step_clocks / clock + np.where(tiled, (w.trips - 1.0) * arrival, 0.0)
    turns = rounds
    if np.any(waiting):
        alone = trip_seconds(w, found.threads, t.missed, clock, l2_latency, latency)
        step = np.where(waiting, alone, step)
        turns = np.where(waiting, rounds + (np.ceil(rounds) - rounds) * p.imbalance, rounds)
    chain = turns * (step + w.barriers * warps * BARRIER_CLOCKS / clock)

    order_norm = p.sharpness
    together_norm = THREADED if g.threaded else CHAINED if contractions > 1 else INNER
    compute = _norm((_norm((tensor, operand_seconds), INNER), vector_seconds), together_norm)
    memory = INNER
    if contractions == 1:  # in a chain one contraction's operands load while another computes
        memory = MEMORY
        single = tiled & np.less_equal(pipeline - consumed, 1.0)  # one buffer: a block loads and computes in turn
        chain = chain + np.where(single, rounds * (compute / busiest + w.trips * w.trip_bytes / port), 0.0)
    reading, moving = _norm((l2_seconds, read_seconds), memory), _norm((l2_seconds, read_seconds + write_seconds), memory)
    work_seconds = _norm((compute, reading, chain, requests), order_norm)
    together = _norm((compute, moving, chain, requests), order_norm)
    if np.any(waiting):  # a loop that waits for its loads overlaps nothing but the waiting of other blocks
        busy = _norm((compute, requests), INNER)
        work_seconds = np.where(waiting, busy + np.maximum(reading, chain), work_seconds)
        together = np.where(waiting, busy + np.maximum(moving, chain), together)
    ahead = bulk and bool(wide)  # warps that only load go on to the next block's operands during the epilogue
    fill = (1.0 if ahead else rounds) * p.fill_latency * latency
    serial = fill + np.where(waiting, together, work_seconds + store_seconds)
    share = 1.0 / rounds + (1.0 - 1.0 / rounds) * p.exposed / resident
    exposed = share * np.maximum(serial - together, 0.0)
    reduction = np.where(np.greater(g.split, 1.0), p.reduction_latency * latency + partial_bytes / l2_bandwidth, 0.0)
    passes = (p.extra_passes * t.online + p.extra_query_passes * (t.least_read + t.write - t.online)) / (
        bandwidth * p.dram_efficiency
    )
    power = power_seconds(w.tensor, g.grid, t.read + t.write, machine, p.tensor_joules)
    total = p.launch_seconds + _norm((together + exposed, power), THROTTLE) + reduction + passes
    flops = 2.0 * (sum(w.tensor.values()) + w.ieee) * g.grid
    return Estimate(
        total=total,
        launch=p.launch_seconds,
        resources={
            "fill": fill,
            "tensor": tensor,
            "vector": vector_seconds,
            "l2": l2_seconds,
            "dram": read_seconds,
            "store": store_seconds,
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
        flops=flops,
        grid=g.grid,
    )


def cache_bytes(machine: Machine) -> float:
    """Capacity of the last cache before DRAM."""
    if machine.has_level("llc"):
        return machine.need(machine.level("llc").capacity_bytes, "levels.llc.capacity_bytes")
    return machine.need(machine.level("l2").capacity_bytes, "levels.l2.capacity_bytes") * machine.instances("l2")


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
    """How many times `step_clocks` a loop trip takes: warp-level multiplies over 64 elements of k are one step, those
    of a warp group follow each other sooner; a trip of other loops is a quarter of a step."""
    share = GROUP_MMA_CLOCKS / WARP_MMA_CLOCKS if wide else 1.0
    return np.where(np.greater(w.tensor_k, 0.0), w.tensor_k / 64.0 * share, 0.25)


def power_seconds(
    work_by_dtype: Mapping[str, Array], grid: Array, dram_bytes: Array, machine: Machine, joules: float
) -> Array:
    """Seconds that the energy of the multiply-adds and of DRAM takes at the power limit; 0 where no limit is known.

    An operation's energy is in proportion to the width of its operands (`joules`: of 16 bits).
    """
    if machine.power_watts is None or machine.power_watts.value is None:
        return 0.0
    energy: Array = 0.0
    for dtype, count in work_by_dtype.items():
        energy = energy + 2.0 * count * grid * joules * OPERAND_BITS.get(dtype, 16.0) / 16.0
    dram = machine.level("dram").energy
    if dram is not None and dram.read_joules_per_byte.value is not None:
        energy = energy + dram_bytes * dram.read_joules_per_byte.value
    return energy / ((1.0 - STATIC_POWER) * machine.power_watts.value)


def _norm(parts: tuple[Array, ...], order: float) -> Array:
    """The norm of concurrent times: `(sum t^p)^(1/p)`, scaled by the longest so that it neither under- nor overflows."""
    top = parts[0]
    for part in parts[1:]:
        top = np.maximum(top, part)
    top = np.maximum(top, 1e-12)
    total = 0.0
    for part in parts:
        total = total + np.power(part / top, order)
    return top * np.power(total, 1.0 / order)
