"""The event loop: blocks are dispatched to free places on SMs, run their phases at the rates that they get, and make
room for others.

Between two events all rates are constant. Events are ends of phases and the moment when L2 is full of data that DRAM
has yet to take. A long grid repeats itself: its first waves and its last ones are simulated, what lies between is
passed over at the pace of the first ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from codesign.costmodel.events.blocks import Phase
from codesign.costmodel.events.fluid import DRAM, NAMES, Bundle, Cohort, allocate
from codesign.costmodel.events.plan import Plan, plan
from codesign.costmodel.events.timeline import TERMS, Moment, Span, Timeline
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule

HEAD_WAVES, TAIL_WAVES = 12, 6
"""Waves that are simulated at the start and at the end of a long grid."""
DIRTY_SHARE = 0.5
"""Share of L2 that may hold data which DRAM has yet to take, as in the analytic model."""
DONE = 1e-9
TERM_OF = {
    "tensor": "tensor",
    "operands": "tensor",
    "vector": "vector",
    "special": "vector",
    "port": "l2",
    "requests": "requests",
    "l2": "l2",
    "dram": "dram",
}
LATENCY_TERM = {"fill": "fill", "main": "latency", "store": "store"}
BOUND_TERMS = ("tensor", "vector", "vector", "dram")
"""The term that each bound of the roofline belongs to."""


def simulate(
    kernel: KernelSummary,
    machine: Machine,
    schedule: Schedule,
    sizes: Mapping[str, int] | None = None,
    parameters: Parameters | None = None,
    *,
    trace: bool = True,
    compiled: bool = True,
) -> Timeline:
    """Simulate one launch of a kernel under a schedule; deterministic.

    `sizes` gives values of the kernel's size symbols; `trace=False` keeps no spans and moments; `compiled`: the code is
    this compiler's, else a library's. Raises ScheduleError when a block does not fit on an SM, UnsupportedError when
    the machine lacks a rate or the kernel has several strands, which are simulated one by one.
    """
    return simulate_plan(plan(kernel, machine, schedule, sizes, parameters, compiled), trace)


def simulate_plan(plan: Plan, trace: bool = False) -> Timeline:
    """Simulate a planned launch."""
    return _Simulation(plan, trace).run()


class _Simulation:
    def __init__(self, plan: Plan, trace: bool) -> None:
        self.plan, self.chip, self.block, self.p = plan, plan.chip, plan.block, plan.parameters
        self.grid, self.places, self.together = plan.grid, plan.places, plan.together
        self.trace = trace
        self.cohorts = [Cohort(0, self.chip.sms)]
        self.next = 0
        self.now = self.p.launch_seconds
        self.terms = dict.fromkeys(TERMS, 0.0)
        self.terms["launch"] = self.p.launch_seconds
        self.busy = [0.0] * len(NAMES)
        self.working = 0.0
        self.limit = DIRTY_SHARE * self.chip.cache_bytes
        # L2 is as the launch before left it: results that are larger than it may hold had to make room for themselves
        self.dirty = min(self.limit, max(self.grid * self.block.store_bytes - self.limit, 0.0))
        self.full = self.dirty >= self.limit
        self.events = 0
        self.first_end = self.now
        self.spans: list[Span] = []
        self.moments: list[Moment] = []
        wave = self.chip.sms * self.places * self.together
        self.mark = HEAD_WAVES // 2 * wave
        self.tail = TAIL_WAVES * wave
        self.head = HEAD_WAVES * wave if self.grid > (HEAD_WAVES + TAIL_WAVES + 1) * wave else self.grid + 1
        self.marked: _Mark | None = None
        self.steady: tuple[float, float, int] | None = None

    # -- the loop ---------------------------------------------------------------------------------------------------
    def run(self) -> Timeline:
        """Until the last block is done; then the meeting of a split reduction."""
        self._dispatch()
        while any(cohort.bundles for cohort in self.cohorts):
            self._step()
        self._longest()
        self._reduce()
        self.terms["dram"] += self.plan.helper_seconds
        self._throttle()
        drain = self._drain(self.plan.bounds)
        span = max(self.now - self.p.launch_seconds, 1e-30)
        return Timeline(
            kernel=self.plan.kernel,
            machine=self.plan.machine,
            seconds=sum(self.terms.values()),
            terms=self.terms,
            busy={name: value / span for name, value in zip(NAMES, self.busy, strict=True)},
            grid=self.grid,
            sms=self.chip.sms,
            blocks_per_sm=self.plan.resident,
            waves=self.grid / (self.chip.sms * self.plan.resident),
            idle=max(1.0 - self.working / (span * self.chip.sms), 0.0),
            dram_read_bytes=self.plan.from_dram.total,
            dram_write_bytes=self.block.store_bytes * self.grid,
            joules=self.plan.joules,
            events=self.events,
            drain=drain,
            steady=self.steady,
            spans=self.spans,
            moments=self.moments,
        )

    def _step(self) -> None:
        """Advance to the next event."""
        self.events += 1
        running = [cohort for cohort in self.cohorts if cohort.bundles]
        used = allocate(running, self.p.sharpness)
        dt = min(b.left / b.rate for cohort in running for b in cohort.bundles if b.rate > 0.0)
        spare = max(1.0 - used[DRAM], 0.0)
        made = sum(
            cohort.sms * b.blocks * b.rate * b.phase.writes
            for cohort in running
            for b in cohort.bundles
            if not self.full
        )
        growth = made - spare * self.chip.write_bandwidth
        if not self.full and growth > 0.0:
            dt = min(dt, max(self.limit - self.dirty, 0.0) / growth)
        elif self.full and growth < 0.0:
            dt = min(dt, max(self.dirty - 0.5 * self.limit, 0.0) / -growth)
        drained = min(self.dirty + made * dt, spare * self.chip.write_bandwidth * dt)
        used[DRAM] += drained / max(self.chip.write_bandwidth * dt, 1e-30)
        self._account(running, used, dt)
        self.now += dt
        self.dirty = max(self.dirty + made * dt - drained, 0.0)
        self._flip()
        freed = False
        for cohort in running:
            for b in cohort.bundles:
                b.left -= b.rate * dt
            freed |= self._advance(cohort)
        if freed:
            self._dispatch()

    def _flip(self) -> None:
        """Writes wait for DRAM from the moment when L2 holds its share of unwritten data, until half of that has
        drained.
        """
        full = (
            self.dirty >= self.limit * (1.0 - 1e-9) if not self.full else self.dirty > 0.5 * self.limit * (1.0 + 1e-9)
        )
        if full == self.full:
            return
        self.full = full
        for cohort in self.cohorts:
            for b in cohort.bundles:
                left = b.left
                b.enter(self._direct())
                b.left = left

    def _direct(self) -> float:
        return 1.0 / self.chip.write_bandwidth if self.full else 0.0

    def _advance(self, cohort: Cohort) -> bool:
        """Move bundles whose phase has ended to their next one; True when a place became free."""
        kept: list[Bundle] = []
        for b in cohort.bundles:
            if b.left > DONE:
                kept.append(b)
                continue
            self._record(cohort, b)
            b.position += 1
            while b.position < len(b.phases) and b.phase.empty:
                b.position += 1
            if b.position < len(b.phases):
                b.started = self.now
                b.enter(self._direct())
                kept.append(b)
            elif b.first == 0:
                self.first_end = self.now
        freed = len(kept) < len(cohort.bundles)
        cohort.bundles = kept
        return freed

    # -- dispatch ---------------------------------------------------------------------------------------------------
    def _dispatch(self) -> None:
        """Give the next blocks to SMs with a free place, those with the fewest blocks first."""
        while self.next < self.grid:
            if self.next >= self.mark and self.marked is None:
                self.marked = _Mark(self)
            if self.next >= self.head and self.steady is None:
                self._skip()
            free = [cohort for cohort in self.cohorts if len(cohort.bundles) < self.places]
            if not free:
                return
            cohort = min(free, key=lambda c: (c.resident, c.first))
            each, more = divmod(min(self.grid - self.next, cohort.sms * self.together), cohort.sms)
            if more:
                self._split(cohort, more)
                each += 1
            if each:
                self._start(cohort, each)

    def _split(self, cohort: Cohort, sms: int) -> None:
        """Divide a cohort: the first `sms` SMs stay, the others are a cohort of their own."""
        shift = [b.blocks * sms for b in cohort.bundles]
        others = [b.copy(first=b.first + by) for b, by in zip(cohort.bundles, shift, strict=True)]
        twin = Cohort(cohort.first + sms, cohort.sms - sms, others)
        cohort.sms = sms
        self.cohorts.insert(self.cohorts.index(cohort) + 1, twin)

    def _start(self, cohort: Cohort, blocks: int) -> None:
        count = blocks * cohort.sms
        per_block = self.plan.from_dram.per_block(self.next, count)
        slots = {b.slot for b in cohort.bundles}
        slot = next(i for i in range(self.places) if i not in slots)
        later = self.now > self.p.launch_seconds
        bundle = Bundle(blocks, self.next, self._phases(later), per_block / self.chip.read_bandwidth, self.now, slot)
        while bundle.phase.empty:
            bundle.position += 1
        bundle.enter(self._direct())
        cohort.bundles.append(bundle)
        self.next += count

    def _phases(self, later: bool) -> list[Phase]:
        """Phases of a block; a persistent program loads its next tile's operands while it ends the last tile, and with
        a warp group of its own for the epilogue stores meanwhile as well.
        """
        fill, *others = self.block.phases
        if not later:
            return [fill, *others]
        if not self.plan.knobs.persistent or not others:
            return [replace(fill, floor=fill.floor * (1.0 - self.plan.hidden_fill)), *others]
        main, *others = others
        joined = main.joined(replace(fill, writes=0.0, floor=0.0))
        if self.plan.knobs.specialised and others:
            return [joined.joined(others[-1]), *others[:-1]]
        return [joined, *others]

    def _skip(self) -> None:
        """Pass over the middle of a long grid at the pace since the mark."""
        assert self.marked is not None
        seen = self.next - self.marked.next
        count = (self.grid - self.next - self.tail) // seen * seen
        if count <= 0 or seen <= 0:
            self.steady = (self.now, self.now, 0)
            return
        before = self.plan.from_dram.per_block(self.marked.next, seen)
        ahead = self.plan.from_dram.per_block(self.next, count)
        gained = {name: self.terms[name] - self.marked.terms[name] for name in TERMS}
        repeats = count / seen
        start = self.now
        for name, value in gained.items():
            share = ahead / before if name == "dram" and before > 0.0 else 1.0
            self.terms[name] += value * repeats * share
            self.now += value * repeats * share
        # in the long run DRAM takes all that is written: neither less, as while L2 filled up, nor more, as while it emptied
        dram = count * (ahead / self.chip.read_bandwidth + self.block.store_bytes / self.chip.write_bandwidth)
        emptied = min(self.dirty - self.marked.dirty, 0.0) * repeats / self.chip.write_bandwidth
        late = max(dram - (self.now - start), emptied, -self.terms["store"])
        self.terms["store"] += late
        self.now += late
        for r in range(len(NAMES)):
            self.busy[r] += (self.busy[r] - self.marked.busy[r]) * repeats
        self.busy[DRAM] += late
        self.working += (self.working - self.marked.working) * repeats
        self.next += count
        self.working += late * self.chip.sms
        self.steady = (start, self.now, count)
        for cohort in self.cohorts:
            for b in cohort.bundles:
                b.started += self.now - start

    # -- the end ----------------------------------------------------------------------------------------------------
    def _longest(self) -> None:
        """The longest block starts first, and the kernel does not end before it: `skew` times the first of the
        simulated ones.
        """
        late = self.p.launch_seconds + self.plan.skew * (self.first_end - self.p.launch_seconds) - self.now
        if late > 0.0:
            busiest = max((name for name in TERMS if name != "launch"), key=lambda name: self.terms[name])
            self.terms[busiest] += late
            self.now += late

    def _throttle(self) -> None:
        """The clock falls until the kernel's energy fits the power limit."""
        late = self.plan.power_seconds - sum(self.terms.values())
        if late > 0.0:
            self.terms["power"] += late
            self.now += late

    def _reduce(self) -> None:
        """The parts of a split reduction meet: partial results come back from L2, the result goes out."""
        seconds = self.plan.meeting_seconds
        if seconds is None:
            if self.block.partial_bytes <= 0.0:
                return
            seconds = self.p.reduction_latency * self.chip.dram_latency
            seconds += 2.0 * self.block.partial_bytes * self.grid / self.chip.l2_bandwidth
        self.terms["reduction"] += seconds
        self.now += seconds

    def _drain(self, bounds: tuple[float, float, float, float]) -> float:
        """No kernel ends before the roofline: the operands that were found in L2 and the results left there are DRAM's
        traffic too.
        """
        total = sum(self.terms.values())
        largest = max(range(len(bounds)), key=lambda i: bounds[i])
        drain = max(bounds[largest] * (1.0 + 1e-12) - total, 0.0)
        self.terms[BOUND_TERMS[largest]] += drain
        return drain

    # -- bookkeeping ------------------------------------------------------------------------------------------------
    def _account(self, running: list[Cohort], used: list[float], dt: float) -> None:
        """Charge an interval to what was in the way: on each SM the resource that its oldest block with a bottleneck
        waits for, else latency.
        """
        sms = sum(cohort.sms for cohort in running)
        for cohort in running:
            self.terms[_term(cohort)] += dt * cohort.sms / sms
        for r, value in enumerate(used):
            share = sms / self.chip.sms if r < len(NAMES) - 2 else 1.0
            self.busy[r] += value * share * dt
        self.working += sms * dt
        if self.trace:
            self.moments.append(Moment(self.now, tuple(min(value, 1.0) for value in used), sms))

    def _record(self, cohort: Cohort, b: Bundle) -> None:
        if self.trace:
            span = Span(cohort.first, cohort.sms, b.slot, b.first, b.blocks, b.phase.name, b.started, self.now, b.limit)
            self.spans.append(span)


class _Mark:
    """What had been charged when the first half of the head was dispatched."""

    def __init__(self, simulation: _Simulation) -> None:
        self.next = simulation.next
        self.terms = dict(simulation.terms)
        self.busy = list(simulation.busy)
        self.working = simulation.working
        self.dirty = simulation.dirty


def _term(cohort: Cohort) -> str:
    for b in cohort.bundles:
        if b.limit in TERM_OF and b.rate > 0.0:
            memory = b.phase.kind == "store" and TERM_OF[b.limit] in ("l2", "dram")
            return "store" if memory else TERM_OF[b.limit]
    return LATENCY_TERM[cohort.bundles[0].phase.kind]
