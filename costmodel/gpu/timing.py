"""From work, occupancy and traffic to seconds: the phases of blocks on SMs and how they overlap.

A block fills its pipeline, runs its loop, and stores. Resources (tensor, vector and special units, L2, DRAM) work at
the same time within a phase and, as far as several blocks share an SM or follow each other asynchronously, across
phases. The time is the busiest SM's or the busiest shared resource's, whichever is longer, plus what is not hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.costmodel.gpu.geometry import Array, geometry, work
from codesign.costmodel.gpu.launch import MEET_ALWAYS, MEET_INSIDE, MEET_LAUNCHED, launched
from codesign.costmodel.gpu.occupancy import Occupancy, occupancy
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.traffic import traffic
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import UnsupportedError

INNER = 6.0
"""Order of the norm among resources of one path (L2 and DRAM; tensor unit and operand delivery): nearly the longest."""

REQUEST_CLOCKS = 4.0
"""Clocks that a warp's load or store takes in the load/store path: 512 bytes at 128 bytes a clock, and no less for
narrower ones."""

ARRIVAL = 1.5
"""DRAM latencies until a stage of loads has arrived under load."""

ISSUED_LANES = 128.0
"""Lanes of an SM that get an instruction in a clock: four schedulers, a warp each."""

LOOKUPS = 3.0
"""Further times that a block with work looks up its sequence: warps that load, compute and store do so for themselves."""

SUMS_IN_FLIGHT = 8.0
"""Parts of a split reduction that the last block of a kernel, which sums them, loads at a time."""

PARTS_IN_FLIGHT = 2.0
"""The same for the threads of a kernel that does nothing else."""

L1_CLOCKS = 40.0
"""Clocks until a load that hits L1 returns."""

BARRIER_CLOCKS = 10.0
"""Clocks of a reduction over a block per warp that takes part."""

CHAINED = 2.0
"""The same for a chain of contractions, where the vector unit works between two of them on the same tile and overlaps
only other blocks' or warp groups' work."""

TERMS = ("launch", "fill", "tensor", "vector", "l2", "dram", "store", "requests", "latency", "reduction")


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
    needs is unknown."""
    sms = float(machine.instances("shared"))
    dram, l2 = machine.level("dram"), machine.level("l2")
    bandwidth = machine.need(dram.bandwidth, "levels.dram.bandwidth")
    l2_instances = float(machine.instances("l2"))
    l2_bandwidth = machine.need(l2.bandwidth, "levels.l2.bandwidth") * l2_instances * p.l2_efficiency
    latency = machine.need(dram.latency_seconds, "levels.dram.latency_seconds")
    vector = machine.unit("vector")
    clock = machine.need(vector.clock_hz, "units.vector.clock_hz")
    port = 64.0 * clock
    shared_bandwidth = machine.need(machine.level("shared").bandwidth, "levels.shared.bandwidth")

    wide = 2 if machine.features.get("tensor_memory") else 1 if machine.features.get("wgmma") else 0
    warps = knobs.get("warps", 4.0)
    knobs, idle = launched(kernel, knobs, sizes, sms)
    g = geometry(kernel, knobs, sizes)
    w = work(kernel, g, knobs.get("vector_unit", 0.0), warps, wide)
    pipeline = np.maximum(knobs.get("pipeline", 1.0), 1.0)
    found = occupancy(w, machine, warps, pipeline)
    resident = np.maximum(found.blocks, 1.0)
    if "blocks_limit" in knobs:  # persistent kernels keep so many blocks on an SM
        resident = np.minimum(resident, knobs["blocks_limit"])
    slots = sms * resident
    cache = cache_bytes(machine)
    t = traffic(kernel, g, slots, knobs.get("group", 1.0), order, cache, p.warm, p.write_gap)

    even = g.grid / sms
    whole = np.floor(g.grid / slots)
    busiest = whole * resident + np.ceil((g.grid - whole * slots) / sms)
    busiest = np.maximum(even + (busiest - even) * p.imbalance, 1.0)
    busiest = np.maximum(busiest, sizes.get("skew", 1.0))  # the longest block, where blocks are not alike
    rounds = np.maximum(busiest / resident, 1.0)

    tensor = tensor_seconds(w.tensor, machine, sms) * (
        1.0 + p.tile_overhead * (1.0 / np.maximum(w.tensor_m, 1.0) + 1.0 / np.maximum(w.tensor_n, 1.0))
    )
    tensor = tensor * busiest / p.tensor_efficiency
    lanes = machine.need(vector.rate["f32"], "units.vector.rate.f32") * vector.count
    integer_lanes = machine.need(vector.rate.get("i32", vector.rate["f32"]), "units.vector.rate.i32") * vector.count
    special = machine.unit("special")
    special_lanes = machine.need(special.rate["f32"], "units.special.rate.f32") * special.count
    chained = sum(nest.contraction is not None for nest in kernel.nests) > 1
    spill = found.spilled * found.threads * np.maximum(4.0 * w.trips, 2.0 * w.spill_steps) / port
    vector_seconds = ((w.vector + w.ieee) / lanes + w.integer / integer_lanes) / clock / p.vector_efficiency
    special_seconds = w.special / special_lanes / clock / p.vector_efficiency
    if "instructions" in knobs:
        issued = knobs["instructions"] * w.ieee / 2.0 / ISSUED_LANES / clock
        vector_seconds = np.maximum(vector_seconds, issued)
    busy_warps = np.minimum(np.minimum(resident, busiest) * warps / 8.0, 1.0)
    operand_seconds = busiest * (w.operand_bytes / shared_bandwidth + w.operand_clocks / clock)
    vector_seconds = busiest * (np.maximum(vector_seconds, special_seconds) / busy_warps + spill)

    parts = np.where(np.greater(g.split, 1.0), g.split, 0.0)
    partial_bytes = (
        0.0 if np.ndim(parts) == 0 and not parts else parts * w.accumulators * 8.0 * (g.grid / np.maximum(g.split, 1.0))
    )
    arriving = w.load_bytes - w.shared_loads if wide == 2 else w.load_bytes  # a pair of SMs keeps half each
    l2_bytes = g.grid * (w.load_bytes - w.shared_loads + w.store_bytes + 2.0 * w.atomic_bytes)
    l2_seconds = np.maximum(l2_bytes / l2_bandwidth, busiest * arriving / port)

    tiled = np.greater(w.tensor_k, 0.0)
    waiting = np.greater(w.trips, 1.0) & np.logical_not(tiled) & np.less_equal(pipeline, 1.0)
    in_flight_block = np.where(
        np.greater(w.trips, 1.0) & tiled,
        w.trip_bytes * np.minimum(np.maximum(pipeline - (0.5 if wide else 1.0), 0.5), w.trips),
        np.minimum(w.load_bytes, found.threads * 64.0),
    )
    in_flight = np.maximum(np.minimum(g.grid, slots) * in_flight_block, 1.0)
    request = knobs.get("access_bytes", 16.0) * machine.limit("warp_size")
    requests = busiest * w.request_bytes / request * REQUEST_CLOCKS / clock
    read_seconds = t.read_effort / (bandwidth * p.dram_efficiency) + np.where(
        waiting, 0.0, latency * np.maximum(t.read / in_flight - 1.0, 0.0)
    )
    write_seconds = t.write_effort / (bandwidth * p.dram_efficiency)
    store_seconds = np.maximum(write_seconds, g.grid * w.store_bytes / l2_bandwidth)
    arrival = latency * ARRIVAL / (pipeline - 0.5)
    l2_latency = machine.need(l2.latency_seconds, "levels.l2.latency_seconds")
    depth = np.where(tiled, w.tensor_k / 64.0, 0.25)
    step = w.trips * depth * p.step_clocks / clock + np.where(tiled, (w.trips - 1.0) * arrival, 0.0)
    step = step + np.where(
        waiting,
        w.first_trips * (l2_latency + (latency - l2_latency) * t.missed) + w.again_trips * L1_CLOCKS / clock,
        0.0,
    )
    chain = rounds * (step + w.barriers * warps * BARRIER_CLOCKS / clock)

    order_norm = p.sharpness
    if chained:  # each tile of keys serves a whole tile of rows from shared memory: the loss to delivery is small
        tensor = tensor_seconds(w.tensor, machine, sms) * busiest / p.tensor_efficiency
    compute = _norm((_norm((tensor, operand_seconds), INNER), vector_seconds), CHAINED if chained else INNER)
    reading, moving = _norm((l2_seconds, read_seconds), INNER), _norm((l2_seconds, read_seconds + write_seconds), INNER)
    work_seconds = _norm((compute, reading, chain, requests), order_norm)
    together = _norm((compute, moving, chain, requests), order_norm)
    if np.any(waiting):  # a loop that waits for its loads overlaps nothing but the waiting of other blocks
        busy = _norm((compute, requests), INNER)
        work_seconds = np.where(waiting, busy + np.maximum(reading, chain), work_seconds)
        together = np.where(waiting, busy + np.maximum(moving, chain), together)
    fill = rounds * p.fill_latency * latency
    serial = fill + np.where(waiting, together, work_seconds + store_seconds)
    share = 1.0 / rounds + (1.0 - 1.0 / rounds) * p.exposed / resident
    exposed = share * np.maximum(serial - together, 0.0)
    reduction = np.where(np.greater(g.split, 1.0), p.reduction_latency * latency + partial_bytes / l2_bandwidth, 0.0)
    if chained:
        if "in_flight" in knobs:
            plain = np.greater(knobs["in_flight"], 0.0)
            in_flight_block = np.where(plain, found.threads * knobs["in_flight"], in_flight_block)
        streamed = w.load_bytes / np.maximum(in_flight_block, 1.0) * (l2_latency + (latency - l2_latency) * t.missed)
        own = np.maximum(compute / busiest + 2.0 * w.trips * p.step_clocks / clock, streamed)
        lookup = knobs.get("lookup_clocks", 0.0) * sizes.get("sequences", 0.0) / clock
        begins = p.fill_latency * latency + lookup
        seen = knobs.get("exposed", 0.0)
        seen = np.where(np.greater(seen, 0.0), seen, p.exposed)
        filled = (begins + LOOKUPS * lookup) * (1.0 + np.maximum(rounds - 1.0, 0.0) * seen)
        streams = (t.read_effort + t.write_effort) / (bandwidth * p.dram_efficiency)
        path = rounds * own + filled
        together = _norm((compute, _norm((l2_seconds, streams), INNER), path, requests), order_norm)
        chain, exposed, fill = rounds * np.maximum(own - compute / busiest, 0.0), 0.0, filled
    if chained:  # each part leaves its results in single precision, those without any keys too
        parted, meet = np.greater(g.split * (1.0 + idle), 1.0), knobs.get("split.meet", MEET_INSIDE)
        partial = g.grid * (1.0 + idle) * w.store_bytes * (4.0 / result_bytes(kernel))
        rate = np.where(np.greater(partial, cache), bandwidth * p.dram_efficiency, l2_bandwidth)
        waited = np.where(np.equal(meet, MEET_ALWAYS), 0.0, p.reduction_latency * latency)
        each = w.store_bytes / port + l2_latency / SUMS_IN_FLIGHT
        summed = g.split * np.where(np.equal(meet, MEET_INSIDE), each, l2_latency / PARTS_IN_FLIGHT)
        reduction = np.where(parted, waited + 2.0 * partial / rate + summed, 0.0)
    around = t.least_read + t.write - t.online
    passes = p.extra_passes * t.online * sizes.get("appended", 1.0)
    passes = passes + (p.extra_query_passes + p.convert_passes * knobs.get("converts", 0.0)) * around
    passes = passes / (bandwidth * p.dram_efficiency) + p.token_seconds * sizes.get("tokens", 0.0)
    further = knobs.get("launches", 1.0) - 1.0
    if "split.meet" in knobs:
        further = further + (np.greater(g.split * (1.0 + idle), 1.0) & np.equal(knobs["split.meet"], MEET_LAUNCHED))
    launch = p.launch_seconds + p.helper_seconds * further
    total = launch + together + exposed + reduction + passes
    if chained:
        total = total + g.grid * idle / slots * begins  # blocks without any keys
        exposed = filled  # part of the path
    flops = 2.0 * (sum(w.tensor.values()) + w.ieee) * g.grid
    return Estimate(
        total=total,
        launch=launch,
        resources={
            "fill": fill,
            "tensor": tensor,
            "vector": vector_seconds,
            "l2": l2_seconds,
            "dram": read_seconds,
            "store": store_seconds,
            "requests": requests,
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


def result_bytes(kernel: KernelSummary) -> float:
    """Bytes of an element of what a kernel stores last."""
    return float([access.dtype.bytes for nest in kernel.nests for access in nest.stores][-1])


def cache_bytes(machine: Machine) -> float:
    """Capacity of the last cache before DRAM."""
    if machine.has_level("llc"):
        return machine.need(machine.level("llc").capacity_bytes, "levels.llc.capacity_bytes")
    return machine.need(machine.level("l2").capacity_bytes, "levels.l2.capacity_bytes") * machine.instances("l2")


def tensor_seconds(work_by_dtype: Mapping[str, Array], machine: Machine, sms: float) -> Array:
    """Seconds of one block's multiply-adds on its SM's tensor units."""
    seconds: Array = 0.0
    for dtype, count in work_by_dtype.items():
        rate = machine.rate("tensor", dtype)
        if rate is None and dtype == "f8":
            rate = machine.rate("tensor", "f16")  # converted on the way in
        if rate is None:
            raise UnsupportedError(
                f"{machine.name}: no rate for {dtype} on the tensor unit",
                hint=f"add units.tensor.rate.{dtype} to the machine file",
            )
        seconds = seconds + 2.0 * count / (rate / sms)
    return seconds


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
