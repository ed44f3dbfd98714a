"""What one program instance asks of the machine: its phases, and in each the seconds it would take of every resource
alone.

All rates and parameters are those of the analytic model; nothing is fitted for the simulation. Operands of the first
trips fill the pipeline, the loop runs with the loads of later trips in flight, the epilogue stores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.costmodel.gpu.geometry import Geometry, Work
from codesign.costmodel.gpu.occupancy import Occupancy
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.machine import Machine
from codesign.ir.errors import UnsupportedError

PIPES = ("tensor", "vector", "special", "port")
"""Resources that each SM has for itself; `port` is its way to L2."""
SHARED = ("l2", "dram")
"""Resources that all SMs share."""
PHASES = ("fill", "main", "store")

PORT_BYTES_PER_CLOCK = 64.0
"""What one SM takes from L2 in a clock, as in the analytic model."""
WARPS_TO_SATURATE = 8.0
"""Warps that hide the latency of the SM's four vector partitions, two each."""
BARRIER_CLOCKS = 40.0


@dataclass(frozen=True)
class Phase:
    """One phase of a block: seconds of each SM pipe that it takes, seconds of the chip's L2, the DRAM bytes it reads as
    a share of the block's, and `floor`: the least time that latency allows, whatever else is idle.
    """

    name: str
    pipes: tuple[float, float, float, float]
    l2: float
    reads: float
    writes: float
    floor: float

    @property
    def empty(self) -> bool:
        return not (any(self.pipes) or self.l2 or self.reads or self.writes or self.floor)

    def joined(self, other: Phase) -> Phase:
        """Both at once: work adds up, latencies overlap."""
        pipes = tuple(a + b for a, b in zip(self.pipes, other.pipes, strict=True))
        floor = max(self.floor, other.floor)
        l2, reads, writes = self.l2 + other.l2, self.reads + other.reads, self.writes + other.writes
        return Phase(self.name, pipes, l2, reads, writes, floor)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Chip:
    """Rates that blocks share, and the clock; bytes and seconds."""

    sms: int
    clock: float
    l2_bandwidth: float
    read_bandwidth: float
    write_bandwidth: float
    dram_latency: float
    l2_latency: float
    cache_bytes: float

    @staticmethod
    def of(machine: Machine, p: Parameters) -> Chip:
        """The chip with the parameters' efficiencies applied."""
        dram, l2 = machine.level("dram"), machine.level("l2")
        bandwidth = machine.need(dram.bandwidth, "levels.dram.bandwidth")
        latency = machine.need(dram.latency_seconds, "levels.dram.latency_seconds")
        caches = machine.instances("l2")
        last = machine.level("llc") if machine.has_level("llc") else l2
        l2_latency = l2.latency_seconds
        return Chip(
            sms=machine.instances("shared"),
            clock=machine.need(machine.unit("vector").clock_hz, "units.vector.clock_hz"),
            l2_bandwidth=machine.need(l2.bandwidth, "levels.l2.bandwidth") * caches * p.l2_efficiency,
            read_bandwidth=bandwidth * p.dram_efficiency,
            write_bandwidth=bandwidth * p.write_efficiency,
            dram_latency=latency,
            l2_latency=latency if l2_latency is None else machine.need(l2_latency, "levels.l2.latency_seconds"),
            cache_bytes=machine.need(last.capacity_bytes, f"levels.{last.name}.capacity_bytes")
            * machine.instances(last.name),
        )


@dataclass(frozen=True)
class Block:
    """A program instance: its phases, the bytes that it loads (through L2) and stores, and where a split reduction
    meets.
    """

    phases: tuple[Phase, Phase, Phase]
    load_bytes: float
    store_bytes: float
    partial_bytes: float


@dataclass(frozen=True)
class Knobs:
    """The knobs of one schedule that the machine's side of a block depends on."""

    warps: float = 4.0
    pipeline: float = 1.0
    group: int = 1
    persistent: bool = False
    specialised: bool = False


def block_of(
    w: Work, g: Geometry, found: Occupancy, machine: Machine, p: Parameters, chip: Chip, knobs: Knobs
) -> Block:
    """The phases of one block of a tiling (all arguments of one schedule, so every array is a scalar).

    Raises UnsupportedError when the machine has no rate for a dtype of the contraction.
    """
    overhead = 1.0 + p.tile_overhead * (1.0 / max(float(w.tensor_m), 1.0) + 1.0 / max(float(w.tensor_n), 1.0))
    tensor = _tensor_seconds(w, machine, chip.sms) * overhead / p.tensor_efficiency
    vector = machine.unit("vector")
    lanes = machine.need(vector.rate["f32"], "units.vector.rate.f32") * vector.count
    integers = machine.need(vector.rate.get("i32", vector.rate["f32"]), "units.vector.rate.i32") * vector.count
    special = machine.unit("special")
    special_lanes = machine.need(special.rate["f32"], "units.special.rate.f32") * special.count
    speed = chip.clock * p.vector_efficiency
    port = PORT_BYTES_PER_CLOCK * chip.clock
    spill = float(found.spilled * found.threads * w.trips) / port
    vector_seconds = float((w.vector + w.ieee) / lanes + w.integer / integers) / speed
    special_seconds = float(w.special / special_lanes) / speed
    hidden = min(knobs.warps / WARPS_TO_SATURATE, 1.0)
    alone = max(vector_seconds, special_seconds) / hidden + spill

    trips, load = float(w.trips), float(w.load_bytes)
    ahead = max(knobs.pipeline - 1.0, 1.0)
    first = min(ahead / trips, 1.0)
    fill_floor = p.fill_latency * chip.dram_latency
    if trips <= 1.0:
        in_flight = min(load, float(found.threads) * 64.0)
        fill_floor = max(fill_floor, load / max(in_flight, 1.0) * chip.dram_latency)
    chain = (trips * p.step_clocks + float(w.barriers) * BARRIER_CLOCKS) / chip.clock
    latency = 0.5 * (chip.dram_latency + chip.l2_latency)
    later = trips * (1.0 - first)
    if knobs.pipeline > 1.0 or trips <= 1.0:
        floor = max(chain, alone, later * latency / ahead)
    else:  # nothing is loaded ahead: every trip waits for its operands, then computes
        floor = chain + alone + tensor + later * latency
    split = float(g.split) > 1.0
    partial = (4.0 * float(w.accumulators) or 2.0 * float(w.store_bytes)) if split else 0.0
    stored = partial if split else float(w.store_bytes)
    out = stored + 2.0 * float(w.atomic_bytes)
    written = 0.0 if split else float(w.store_bytes) + float(w.atomic_bytes)
    fill = Phase("fill", (0.0, 0.0, 0.0, first * load / port), first * load / chip.l2_bandwidth, first, 0.0, fill_floor)
    rest = 1.0 - first
    pipes = (tensor, vector_seconds + spill, special_seconds, rest * load / port)
    main = Phase("main", pipes, rest * load / chip.l2_bandwidth, rest, 0.0, floor)
    store = Phase("store", (0.0, 0.0, 0.0, out / port), out / chip.l2_bandwidth, 0.0, written, 0.0)
    return Block((fill, main, store), load, written, partial)


def _tensor_seconds(w: Work, machine: Machine, sms: int) -> float:
    """Seconds of one block's multiply-adds on its SM's tensor units at the peak."""
    seconds = 0.0
    for dtype, count in w.tensor.items():
        rate = machine.rate("tensor", dtype)
        if rate is None and dtype == "f8":
            rate = machine.rate("tensor", "f16")
        if rate is None:
            hint = f"add units.tensor.rate.{dtype} to the machine file"
            raise UnsupportedError(f"{machine.name}: no rate for {dtype} on the tensor unit", hint=hint)
        seconds += 2.0 * float(np.max(count)) / (rate / sms)
    return seconds
