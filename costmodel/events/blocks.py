"""What one program instance asks of the machine: its phases, and in each the seconds it would take of every resource
alone.

The parts of a block are those of its program's text: its loops, and the straight code between and after them. Each waits for its first loads
(`fill`), computes with the loads of later trips in flight (`main`) and stores what it has to (`store`). All rates and parameters are those of
the analytic model; nothing is fitted for the simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codesign.costmodel.gpu.block import Part
from codesign.costmodel.gpu.chains import ISSUED_LANES, ChainBlock
from codesign.costmodel.gpu.chip import cache_bytes, memory_bandwidth
from codesign.costmodel.gpu.geometry import Array, Geometry, halved_l2, port_bytes_per_clock, wide_of
from codesign.costmodel.gpu.lanes import Lanes
from codesign.costmodel.gpu.occupancy import Occupancy
from codesign.costmodel.gpu.overlap import CHAINED, INNER
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.paths import BARRIER_CLOCKS, trip_depth
from codesign.costmodel.gpu.streaming import ARRIVAL, request_clocks, trip_seconds
from codesign.costmodel.gpu.timing import HIDING_WARPS, STREAM_LOAD, spilled_bytes, tensor_seconds
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine

PIPES = ("tensor", "operands", "vector", "special", "port", "requests")
"""Resources that each SM has for itself: `operands` is shared memory on the way to the tensor unit, `port` the way to
L2, `requests` the path of load and store instructions.
"""

Seconds = tuple[float, ...]


@dataclass(frozen=True)
class Phase:
    """One phase of a block.

    `pipes`: seconds of each SM pipe that it takes; `l2`: seconds of the chip's L2; `reads`: the DRAM bytes that it
    reads as a share of the block's; `writes`: bytes that DRAM must take sooner or later; `floor`: the least time that
    latency allows, whatever else is idle; `own`: the least time that computing takes with this block's warps alone.
    """

    kind: Literal["fill", "main", "store"]
    pipes: Seconds
    l2: float
    reads: float
    writes: float
    floor: float
    own: float = 0.0
    serial: bool = False
    """Waiting and working take turns and the floor holds both, so that neither slows the other down further."""
    part: int = 0
    """Which part of the block it belongs to."""

    @property
    def name(self) -> str:
        """The kind, with the number of the part from the second on."""
        return f"{self.kind} {self.part + 1}" if self.part and self.kind != "store" else self.kind

    @property
    def empty(self) -> bool:
        return not (any(self.pipes) or self.l2 or self.reads or self.writes or self.floor)

    def joined(self, other: Phase) -> Phase:
        """Both at once: work adds up, latencies overlap."""
        pipes = tuple(a + b for a, b in zip(self.pipes, other.pipes, strict=True))
        floor = max(self.floor, other.floor)
        l2, reads, writes = self.l2 + other.l2, self.reads + other.reads, self.writes + other.writes
        own = max(self.own, other.own)
        return Phase(self.kind, pipes, l2, reads, writes, floor, own, self.serial, self.part)


@dataclass(frozen=True)
class Chip:
    """Rates that blocks share, and the clock; bytes and seconds, with the parameters' efficiencies applied."""

    sms: int
    clock: float
    shared: float
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
            shared=machine.need(machine.level("shared").bandwidth, "levels.shared.bandwidth"),
            l2_bandwidth=machine.need(l2.bandwidth, "levels.l2.bandwidth") * machine.instances("l2") * p.l2_efficiency,
            read_bandwidth=bandwidth,
            write_bandwidth=bandwidth / write_effort,
            dram_latency=machine.need(dram.latency_seconds, "levels.dram.latency_seconds"),
            l2_latency=machine.need(l2.latency_seconds, "levels.l2.latency_seconds"),
            cache_bytes=cache_bytes(machine),
        )


@dataclass(frozen=True)
class Block:
    """A program instance: its phases in order, the bytes that it stores, and those of a split reduction's partial result."""

    phases: tuple[Phase, ...]
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
    chain_trips: float = 1.0
    """Trips of all parts of the chain's block."""
    gone: float = 0.0
    """Share of what a part has loaded that L2 no longer has when a later one loads it."""
    bulk: bool = False
    """Whether tiles come and go by bulk copies."""
    effort: float = 0.0
    """As what share of a block's loads more they count in L2, for those that other blocks of a wave share and those that none does."""


def block_of(
    parts: Sequence[Part],
    w: Work,
    g: Geometry,
    found: Occupancy,
    machine: Machine,
    p: Parameters,
    chip: Chip,
    knobs: Knobs,
    around: Around,
) -> Block:
    """The phases of one block of a tiling (all arguments of one schedule, so every array is a scalar): those of its `parts`, whose work is
    `w` together.

    Raises UnsupportedError when the machine has no rate for a dtype of the contraction.
    """
    split = float(g.split) > 1.0
    partial = (4.0 * float(w.accumulators) or 2.0 * float(w.store_bytes)) if split else 0.0
    known = _Known(w, found, machine, p, chip, knobs, around, split, any(part.loop for part in parts))
    shares = _read_shares(parts, around)
    phases: list[Phase] = []
    for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
        last = number == len(parts) - 1
        phases += known.phases(part, number, share, partial if last else 0.0)
    written = 0.0 if split else float(w.store_bytes) + float(w.atomic_bytes)
    return Block(tuple(phases), written, partial)


def _read_shares(parts: Sequence[Part], around: Around) -> list[float]:
    """Shares of a block's reads from DRAM that its parts make: those that are the first to load, and others as far as what was loaded before is
    gone again."""
    weights = [float(part.work.load_bytes) * (1.0 if part.fresh else around.gone) for part in parts]
    whole = sum(weights)
    return [weight / whole for weight in weights] if whole else [1.0, *(0.0 for _ in parts[1:])]


@dataclass(frozen=True)
class _Known:
    """What the phases of all parts of a block follow from. `w`: the work of the whole; `split`: its results are partial ones; `looping`: some
    part is a loop."""

    w: Work
    found: Occupancy
    machine: Machine
    p: Parameters
    chip: Chip
    knobs: Knobs
    around: Around
    split: bool
    looping: bool

    def phases(self, part: Part, number: int, share: float, partial: float) -> list[Phase]:
        """Of one part, which makes a `share` of the reads from DRAM; `partial`: bytes of a partial result that it stores."""
        w, p, chip, knobs, around = part.work, self.p, self.chip, self.knobs, self.around
        pipes, alone = self._compute(w, spills=part.loop or not self.looping)
        # contractions that feed each other take turns with the vector unit; other blocks fill the gaps
        order = CHAINED if around.chained > 1 else INNER
        tensor = (pipes[0] ** INNER + pipes[1] ** INNER) ** (1.0 / INNER)
        computing = (tensor**order + alone**order) ** (1.0 / order)
        trips, load = float(w.trips), float(w.load_bytes)
        ahead = max(knobs.pipeline - 1.0, 1.0)
        first = 0.0 if part.continues else min(ahead / trips, 1.0)
        rest = 1.0 - first
        steps = trips * float(trip_depth(w, bool(wide_of(self.machine)))) * p.step_clocks
        chain = (steps + float(w.barriers) * knobs.warps * BARRIER_CLOCKS) / chip.clock
        fill_floor = self._fill(part, number)
        asked, stored = self._requests(w)
        own, turns, waiting = computing, 0.0, False
        if around.chain is not None:
            floor = max(
                computing + float(around.chain.steps) * trips / around.chain_trips,
                float(around.chain.streamed) * load / max(float(self.w.load_bytes), 1.0),
            )
        elif float(w.tensor_k) > 0.0:  # staged through shared memory
            arrival = ARRIVAL * chip.dram_latency
            if knobs.pipeline > 1.0 or trips <= 1.0:
                floor = chain + max(trips - ahead, 0.0) * arrival / (knobs.pipeline - 0.5)
            else:  # nothing is loaded ahead: every trip waits for its operands, then computes
                floor = chain + (trips - 1.0) * arrival + computing
        elif trips > 1.0 and knobs.pipeline <= 1.0:  # a loop that waits for its loads, from memory first, from L1 then
            threads = self.found.threads
            waits = float(trip_seconds(w, threads, around.missed, chip.clock, chip.l2_latency, chip.dram_latency))
            meeting = float(w.barriers) * knobs.warps * BARRIER_CLOCKS / chip.clock
            floor = rest * waits + meeting + _beside(asked + stored, alone) - stored
            # it overlaps nothing but the waiting of other blocks: one queue for requests, computing, and the SM's share of DRAM, of which a
            # block takes what the units need, however long its own warps take
            turns = _beside(asked + stored, max(pipes[2], pipes[3])) - asked - stored
            own, waiting, pipes = 0.0, True, (0.0, 0.0, 0.0, 0.0)
            asked = asked + around.read_seconds * share
            stored = stored + around.write_seconds * _share(w.store_bytes, self.w.store_bytes)
        else:  # a thread waits for what it asked for before it asks for more
            in_flight = max(min(load, float(self.found.threads) * STREAM_LOAD), 1.0)
            fill_floor = max(fill_floor, first * load / in_flight * chip.dram_latency) if part.fresh else fill_floor
            floor = chain + rest * around.missed * load / in_flight * chip.dram_latency
        port = port_bytes_per_clock(self.machine) * chip.clock
        through = (load - float(w.shared_loads)) * (1.0 + around.effort) / chip.l2_bandwidth
        none = (0.0, 0.0, 0.0, 0.0)
        fill_pipes = (*none, first * load / port, first * asked)
        main_pipes = (*pipes, rest * load / port, rest * asked + turns)
        fill = Phase("fill", fill_pipes, first * through, first * share, 0.0, fill_floor, part=number)
        main = Phase("main", main_pipes, rest * through, rest * share, 0.0, floor, own, waiting, number)
        store = self._store(w, stored, partial, number)
        if number and not part.loop and not load:  # what only works on results, and stores them
            return [store.joined(main)] if not store.empty else [main]
        return [each for each in (fill, main, store) if not each.empty]

    def _fill(self, part: Part, number: int) -> float:
        """Seconds until the first loads of a part arrive; the first one of a block waits for its start in any case."""
        if number == 0:
            return float(self.around.chain.fill) if self.around.chain is not None else self._latency()
        if part.continues or not part.work.load_bytes:
            return 0.0
        return self._latency() * (1.0 if part.fresh else self.chip.l2_latency / self.chip.dram_latency)

    def _latency(self) -> float:
        return self.p.fill_latency * self.chip.dram_latency

    def _store(self, w: Work, stored: float, partial: float, number: int) -> Phase:
        """The stores of a part."""
        out = (partial if self.split else float(w.store_bytes)) + 2.0 * float(w.atomic_bytes)
        # a write of a product's tile goes to both halves
        both = halved_l2(self.machine) and float(self.w.tensor_k) > 0.0 and not self.split
        through_l2 = out + (float(w.store_bytes) if both else 0.0)
        written = 0.0 if self.split else float(w.store_bytes) + float(w.atomic_bytes)
        pipes = (0.0, 0.0, 0.0, 0.0, out / (port_bytes_per_clock(self.machine) * self.chip.clock), stored)
        return Phase("store", pipes, through_l2 / self.chip.l2_bandwidth, 0.0, written, 0.0, part=number)

    def _requests(self, w: Work) -> tuple[float, float]:
        """Seconds of the load/store path for a part's loads and for its stores."""
        warp, knobs = self.machine.limit("warp_size"), self.knobs
        clocks = request_clocks(w, knobs.warps * warp, knobs.access_bytes, warp, self.around.bulk)
        whole = float(clocks) / self.chip.clock
        share = _share(w.store_bytes, w.request_bytes)
        return whole * (1.0 - share), whole * share

    def _compute(self, w: Work, *, spills: bool) -> tuple[Seconds, float]:
        """Seconds of the SM's compute pipes that one part takes, and the least time that its own warps need for them."""
        machine, p, chip, knobs, chained = self.machine, self.p, self.chip, self.knobs, self.around.chained > 1
        speed = chip.clock * p.vector_efficiency
        loss = 0.0 if chained else p.tile_overhead
        overhead = 1.0 + loss * (1.0 / max(float(w.tensor_m), 1.0) + 1.0 / max(float(w.tensor_n), 1.0))
        tensor = float(tensor_seconds(w.tensor, machine, chip.sms)) * overhead / p.tensor_efficiency
        operands = float(w.operand_bytes) / chip.shared + float(w.operand_clocks) / chip.clock
        spilled = float(spilled_bytes(w, self.found)) if spills else 0.0
        spill = spilled / (port_bytes_per_clock(machine) * chip.clock)
        plain, rare = (float(clocks) / speed for clocks in Lanes.of(machine).clocks(w))
        if knobs.instructions > 0.0:
            plain = max(plain, knobs.instructions * float(w.ieee) / 2.0 / ISSUED_LANES / chip.clock)
        hidden = min(knobs.warps / HIDING_WARPS, 1.0)
        return (tensor, operands, plain + spill, rare), max(plain, rare) / hidden + spill


def _beside(first: float, second: float) -> float:
    """Seconds of two resources of one path that work at the same time."""
    return float((first**INNER + second**INNER) ** (1.0 / INNER))


def _share(part: Array, whole: Array) -> float:
    """A part of a whole, which there may be nothing of."""
    return min(float(part) / max(float(whole), 1.0), 1.0)
