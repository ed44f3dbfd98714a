"""What one program instance asks of the machine: its phases, and in each the seconds it would take of every resource
alone.

All rates and parameters are those of the analytic model; nothing is fitted for the simulation. Operands of the first
trips fill the pipeline, the loop runs with the loads of later trips in flight, the epilogue stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesign.costmodel.gpu.chains import ISSUED_LANES, ChainBlock
from codesign.costmodel.gpu.chip import cache_bytes, memory_bandwidth
from codesign.costmodel.gpu.geometry import Geometry, halved_l2, port_bytes_per_clock, wide_of
from codesign.costmodel.gpu.lanes import Lanes
from codesign.costmodel.gpu.occupancy import Occupancy
from codesign.costmodel.gpu.overlap import CHAINED, INNER
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.paths import BARRIER_CLOCKS, trip_depth
from codesign.costmodel.gpu.streaming import ARRIVAL, request_clocks, trip_seconds
from codesign.costmodel.gpu.timing import STREAM_LOAD, spilled_bytes, tensor_seconds
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine

PIPES = ("tensor", "operands", "vector", "special", "port", "requests")
"""Resources that each SM has for itself: `operands` is shared memory on the way to the tensor unit, `port` the way to
L2, `requests` the path of load and store instructions.
"""

OPERAND_BYTES_PER_CLOCK = 128.0
"""What shared memory delivers in a clock, as in the analytic model."""
WARPS_TO_SATURATE = 8.0
"""Warps that hide the latency of the SM's four vector partitions, two each."""

Seconds = tuple[float, ...]


@dataclass(frozen=True)
class Phase:
    """One phase of a block.

    `pipes`: seconds of each SM pipe that it takes; `l2`: seconds of the chip's L2; `reads`: the DRAM bytes that it
    reads as a share of the block's; `writes`: bytes that DRAM must take sooner or later; `floor`: the least time that
    latency allows, whatever else is idle; `own`: the least time that computing takes with this block's warps alone.
    """

    name: str
    pipes: Seconds
    l2: float
    reads: float
    writes: float
    floor: float
    own: float = 0.0
    serial: bool = False
    """Waiting and working take turns and the floor holds both, so that neither slows the other down further."""

    @property
    def empty(self) -> bool:
        return not (any(self.pipes) or self.l2 or self.reads or self.writes or self.floor)

    def joined(self, other: Phase) -> Phase:
        """Both at once: work adds up, latencies overlap."""
        pipes = tuple(a + b for a, b in zip(self.pipes, other.pipes, strict=True))
        floor = max(self.floor, other.floor)
        l2, reads, writes = self.l2 + other.l2, self.reads + other.reads, self.writes + other.writes
        return Phase(self.name, pipes, l2, reads, writes, floor, max(self.own, other.own), self.serial)


@dataclass(frozen=True)
class Chip:
    """Rates that blocks share, and the clock; bytes and seconds, with the parameters' efficiencies applied."""

    sms: int
    clock: float
    l2_bandwidth: float
    read_bandwidth: float
    write_bandwidth: float
    dram_latency: float
    l2_latency: float
    cache_bytes: float

    @staticmethod
    def of(machine: Machine, p: Parameters, write_effort: float = 1.0) -> Chip:
        """The chip of a machine; DRAM takes `write_effort` times as long for a byte of this kernel's writes as for one
        of a long stream.
        """
        dram, l2 = machine.level("dram"), machine.level("l2")
        bandwidth = memory_bandwidth(machine) * p.dram_efficiency
        return Chip(
            sms=machine.instances("shared"),
            clock=machine.need(machine.unit("vector").clock_hz, "units.vector.clock_hz"),
            l2_bandwidth=machine.need(l2.bandwidth, "levels.l2.bandwidth") * machine.instances("l2") * p.l2_efficiency,
            read_bandwidth=bandwidth,
            write_bandwidth=bandwidth / write_effort,
            dram_latency=machine.need(dram.latency_seconds, "levels.dram.latency_seconds"),
            l2_latency=machine.need(l2.latency_seconds, "levels.l2.latency_seconds"),
            cache_bytes=cache_bytes(machine),
        )


@dataclass(frozen=True)
class Block:
    """A program instance: its phases, the bytes that it stores, and those of a split reduction's partial result."""

    phases: tuple[Phase, Phase, Phase]
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
    access_bytes: float = 16.0
    """Bytes that a thread asks for with one load."""
    instructions: float = 0.0
    """Instructions that the vector unit issues for a multiply-add."""

    @staticmethod
    def of(columns: Mapping[str, float]) -> Knobs:
        """From the columns of one schedule."""
        return Knobs(
            warps=columns.get("warps", 4.0),
            pipeline=max(columns.get("pipeline", 1.0), 1.0),
            group=max(int(columns.get("group", 1.0)), 1),
            persistent=columns.get("persistent", 0.0) > 0.0,
            specialised=columns.get("warp_specialize", 0.0) > 0.0,
            access_bytes=columns.get("access_bytes", 16.0),
            instructions=columns.get("instructions", 0.0),
        )


@dataclass(frozen=True)
class Around:
    """What a block's own work does not say: the share of its distinct operands that L2 does not have, the seconds that
    its reads and writes take of its SM's share of DRAM, how many contractions of its kernel are chained, and the chain's own steps if it is
    one.
    """

    missed: float
    read_seconds: float
    write_seconds: float
    chained: int = 1
    chain: ChainBlock | None = None
    bulk: bool = False
    """Whether tiles come and go by bulk copies."""


def block_of(
    w: Work, g: Geometry, found: Occupancy, machine: Machine, p: Parameters, chip: Chip, knobs: Knobs, around: Around
) -> Block:
    """The phases of one block of a tiling (all arguments of one schedule, so every array is a scalar).

    Raises UnsupportedError when the machine has no rate for a dtype of the contraction.
    """
    pipes, alone = _compute(w, found, machine, p, chip, knobs, around.chained > 1)
    # contractions that feed each other take turns with the vector unit; other blocks fill the gaps
    order = CHAINED if around.chained > 1 else INNER
    tensor = (pipes[0] ** INNER + pipes[1] ** INNER) ** (1.0 / INNER)
    computing = (tensor**order + alone**order) ** (1.0 / order)
    trips, load = float(w.trips), float(w.load_bytes)
    ahead = max(knobs.pipeline - 1.0, 1.0)
    first = min(ahead / trips, 1.0)
    rest = 1.0 - first
    steps = trips * float(trip_depth(w, bool(wide_of(machine)))) * p.step_clocks
    chain = (steps + float(w.barriers) * knobs.warps * BARRIER_CLOCKS) / chip.clock
    fill_floor = p.fill_latency * chip.dram_latency
    asked, stored = _requests(w, machine, chip, knobs, around.bulk)
    own, turns, waiting = computing, 0.0, False
    if around.chain is not None:
        fill_floor = float(around.chain.fill)
        floor = max(computing + float(around.chain.steps), float(around.chain.streamed))
    elif float(w.tensor_k) > 0.0:  # staged through shared memory
        arrival = ARRIVAL * chip.dram_latency
        if knobs.pipeline > 1.0 or trips <= 1.0:
            floor = chain + max(trips - ahead, 0.0) * arrival / (knobs.pipeline - 0.5)
        else:  # nothing is loaded ahead: every trip waits for its operands, then computes
            floor = chain + (trips - 1.0) * arrival + computing
    elif trips > 1.0 and knobs.pipeline <= 1.0:  # a loop that waits for its loads, from memory first, from L1 then
        waits = float(trip_seconds(w, found.threads, around.missed, chip.clock, chip.l2_latency, chip.dram_latency))
        busy = ((asked + stored) ** INNER + alone**INNER) ** (1.0 / INNER)
        meeting = float(w.barriers) * knobs.warps * BARRIER_CLOCKS / chip.clock
        floor = rest * waits + meeting + busy - stored
        # it overlaps nothing but the waiting of other blocks: one queue for requests, computing, and the SM's share of DRAM
        own, turns, waiting, pipes = 0.0, busy - asked - stored, True, (0.0, 0.0, 0.0, 0.0)
        asked, stored = asked + around.read_seconds, stored + around.write_seconds
    else:  # a thread waits for what it asked for before it asks for more
        in_flight = max(min(load, float(found.threads) * STREAM_LOAD), 1.0)
        fill_floor = max(fill_floor, first * load / in_flight * chip.dram_latency)
        floor = chain + rest * around.missed * load / in_flight * chip.dram_latency
    split = float(g.split) > 1.0
    partial = (4.0 * float(w.accumulators) or 2.0 * float(w.store_bytes)) if split else 0.0
    out = (partial if split else float(w.store_bytes)) + 2.0 * float(w.atomic_bytes)
    both = (
        halved_l2(machine) and float(w.tensor_k) > 0.0 and not split
    )  # a write of a product's tile goes to both halves
    through_l2 = out + (float(w.store_bytes) if both else 0.0)
    written = 0.0 if split else float(w.store_bytes) + float(w.atomic_bytes)
    port = port_bytes_per_clock(machine) * chip.clock
    through = (load - float(w.shared_loads)) / chip.l2_bandwidth
    none = (0.0, 0.0, 0.0, 0.0)
    fill = Phase("fill", (*none, first * load / port, first * asked), first * through, first, 0.0, fill_floor)
    asked_later = rest * asked + turns
    main = Phase("main", (*pipes, rest * load / port, asked_later), rest * through, rest, 0.0, floor, own, waiting)
    store = Phase("store", (*none, out / port, stored), through_l2 / chip.l2_bandwidth, 0.0, written, 0.0)
    return Block((fill, main, store), written, partial)


def _requests(w: Work, machine: Machine, chip: Chip, knobs: Knobs, bulk: bool) -> tuple[float, float]:
    """Seconds of the load/store path for a block's loads and for its stores."""
    warp = machine.limit("warp_size")
    whole = float(request_clocks(w, knobs.warps * warp, knobs.access_bytes, warp, bulk)) / chip.clock
    share = min(float(w.store_bytes) / max(float(w.request_bytes), 1.0), 1.0)
    return whole * (1.0 - share), whole * share


def _compute(
    w: Work, found: Occupancy, machine: Machine, p: Parameters, chip: Chip, knobs: Knobs, chained: bool
) -> tuple[Seconds, float]:
    """Seconds of the SM's compute pipes that one block takes, and the least time that its own warps need for them."""
    speed = chip.clock * p.vector_efficiency
    loss = 0.0 if chained else p.tile_overhead
    overhead = 1.0 + loss * (1.0 / max(float(w.tensor_m), 1.0) + 1.0 / max(float(w.tensor_n), 1.0))
    tensor = float(tensor_seconds(w.tensor, machine, chip.sms)) * overhead / p.tensor_efficiency
    operands = float(w.operand_bytes) / (OPERAND_BYTES_PER_CLOCK * chip.clock)
    spill = float(spilled_bytes(w, found)) / (port_bytes_per_clock(machine) * chip.clock)
    plain, rare = (float(clocks) / speed for clocks in Lanes.of(machine).clocks(w))
    if knobs.instructions > 0.0:
        plain = max(plain, knobs.instructions * float(w.ieee) / 2.0 / ISSUED_LANES / chip.clock)
    hidden = min(knobs.warps / WARPS_TO_SATURATE, 1.0)
    return (tensor, operands, plain + spill, rare), max(plain, rare) / hidden + spill
