"""The clock of a program: when each issue starts and ends.

What a core does follows from its own past by sums and maxima, as long as nothing passes the memories that cores share. So only transfers wait
in one queue for all cores, by the clock at which they could start (then by core, then by engine); the earliest is served, and its core is
worked out as far as it is known from there. The same queue holds those whose semaphore several engines signal: which signal is the n-th is
known only when the time has come.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from codesign.backends.accelerator.costs import shared_joules, stored_joules
from codesign.backends.accelerator.flat import Flat
from codesign.backends.accelerator.timing import Classes, Gangs, on_grid, waits_of
from codesign.costmodel.dataflow.network import Network
from codesign.costmodel.dataflow.space import passes
from codesign.costmodel.dataflow.target import Target
from codesign.ir.program import ENGINES, Program, Store

KINDS = len(ENGINES)
_SURE, _TRANSFER = 0, 1
Gang = tuple[int, tuple[int, ...], tuple[int, ...], int, float]
"""What cores load together: the class, how often it leaves each port and arrives behind it, the number of cores, and joules of a byte on links."""
Route = list[tuple[list[float], int, float]]
"""The ports in the way of a transfer, each as (when its instances are free, which one, clocks that it takes there)."""
Queue = deque[tuple[int, float, "Plan"]]
"""Issues that an engine has not begun, each with the clock at which it was ready."""


@dataclass(frozen=True, slots=True)
class Span:
    """One instruction on an engine, in clocks; `waited` before `start` for semaphores or memory."""

    core: int
    engine: str
    number: int
    start: float
    end: float
    waited: float


@dataclass(eq=False, slots=True)
class Counted:
    """A semaphore: the clocks of its signals in order, but for the first `before`, which nothing waits for any more; the engines that
    wait. `place`: its number."""

    name: str
    place: int
    times: list[float] = field(default_factory=list)
    before: int = 0
    blocked: list[int] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Plan:
    """What issues of a core that are alike do.

    `gap`: clocks of the control processor before it. `waits`: for each, what every issue needs, and the semaphore. `clocks` of the engine.
    `route` of a transfer; None of what computes.
    """

    engine: int
    gap: float
    waits: list[tuple[list[int], Counted]]
    unsure: bool
    clocks: float
    route: Route | None
    shared: bool
    signals: list[Counted]


class Clock:
    """The state of a run; `run` takes it to the end. An engine's number is `KINDS * core + kind`, an issue's that of `Flat`."""

    def __init__(
        self, program: Program, target: Target, flat: Flat, classes: Classes, gangs: Gangs, *, tracing: bool = False
    ) -> None:
        cores = flat.cores
        self.target, self.flat, self.cores = target, flat, cores
        self.classes, self.gangs = classes, gangs
        self.needs = waits_of(flat)
        self._codes()
        self._semaphores(program, [row.tolist() for row in self.needs])
        self._memories()
        self.latency = self._latencies()
        self.depth = target.queue_depth
        self.at: list[int] = flat.first[:-1].tolist()
        self.stop: list[int] = flat.first[1:].tolist()
        self.issued = [0.0] * cores
        self.full: list[int] = [-1] * cores
        self.queues: list[Queue] = [deque() for _ in range(KINDS * cores)]
        self.starts: list[deque[float]] = [deque([0.0] * self.depth, self.depth) for _ in range(KINDS * cores)]
        self.free = [0.0] * (KINDS * cores)
        self.pending = [False] * (KINDS * cores)
        self.meetings: dict[int, list[int]] = {}
        self.heap: list[tuple[float, int, int]] = []
        self.busy, self.stalled = [0.0] * KINDS, [0.0] * KINDS
        self.loaded: Counter[Gang] = Counter()
        self.routes: dict[tuple[int, tuple[int, ...]], tuple[Gang, Route]] = {}
        self.end = [0.0]
        self.spans: list[Span] | None = [] if tracing else None

    def _codes(self) -> None:
        """What each issue is, as one number: its class and the steps of the control processor before it; and what each number says."""
        flat, costs = self.flat, self.classes.costs
        span = int(flat.steps.max(initial=0)) + 1
        codes = self.classes.of * span + flat.steps
        known = np.arange(len(costs) * span)
        if len(known) > len(codes):
            known, codes = np.unique(codes, return_inverse=True)
        self.code: list[int] = codes.tolist()
        self.feature = codes + self.gangs.who
        self.class_of: list[int] = (known // span).tolist()
        self.gap_of: list[float] = ((known % span + 1) * on_grid(self.target.issue_clocks)).tolist()
        self.number_of = [costs[cls].item.number for cls in self.class_of]
        self.kind_of = [ENGINES.index(costs[cls].item.source.engine) for cls in self.class_of]
        self.plans: list[list[Plan | None]] = [[None] * len(known) for _ in range(self.cores)]

    def number(self, issue: int) -> int:
        """The instruction of an issue."""
        return self.number_of[self.code[issue]]

    def gang(self, issue: int) -> int:
        """The gang that makes a load together; 0 where a core makes it alone."""
        return int(self.gangs.of[issue])

    def _semaphores(self, program: Program, needs: list[list[int]]) -> None:
        """By core and instruction: what it waits for, and which semaphores it signals."""
        scopes = {s.name: s.scope for s in program.semaphores}
        known: dict[tuple[str, int], Counted] = {}
        self.waits: list[list[list[tuple[list[int], Counted]]]] = []
        self.signals: list[list[list[Counted]]] = []
        for core in range(self.cores):

            def find(name: str, core: int = core) -> Counted:
                key = (name, core // self.target.sharing.get(scopes[name], 1))
                if key not in known:
                    known[key] = Counted(name, len(known))
                return known[key]

            prepared = self.flat.prepared
            self.waits.append([[(needs[i], find(w.name)) for i, w in enumerate(p.source.waits)] for p in prepared])
            self.signals.append([[find(name) for name in p.source.signals] for p in prepared])
        self.semaphores = list(known.values())
        places = [[[semaphore.place for _, semaphore in waits] for waits in at] for at in self.waits]
        none = len(self.semaphores)
        self.waited = [
            np.array([[of[position] if position < len(of) else none for of in at] for at in places], np.int64)
            for position in range(len(needs))
        ]
        """For each position of a wait, by core and instruction, the number of the semaphore."""
        self.several = self._several()

    def _several(self) -> set[int]:
        """Semaphores (by id) that are not signalled in the order of one engine's work."""
        sources: dict[int, set[tuple[int, bool]]] = {}
        flat = self.flat
        for core, signals in enumerate(self.signals):
            for number in np.unique(flat.number[flat.first[core] : flat.first[core + 1]]).tolist():
                item = flat.prepared[number]
                source = (KINDS * core + ENGINES.index(item.source.engine), item.moves)
                for semaphore in signals[number]:
                    sources.setdefault(id(semaphore), set()).add(source)
        return {semaphore for semaphore, of in sources.items() if len(of) > 1}

    def _memories(self) -> None:
        """Ports: when each instance is free on the way in and out."""
        ports, cores = self.target.ports, self.cores
        self.inward = [[0.0] * -(-cores // port.cores) for port in ports]
        self.outward = [
            [0.0] * len(way) if port.write_bytes_per_clock else way
            for port, way in zip(ports, self.inward, strict=True)
        ]
        self.links = [[0.0] * (port.network.count * -(-cores // port.cores) if port.network else 0) for port in ports]

    def _latencies(self) -> list[float]:
        """Of each core, clocks from a request to the first byte out of DRAM."""
        base = sum(port.latency_clocks for port in self.target.ports)
        return [
            on_grid(base + sum(many * net.hop_clocks for net, _, _, many in self._linked((core,), 0)))
            for core in range(self.cores)
        ]

    def _linked(self, cores: tuple[int, ...], outer: int) -> list[tuple[Network, int, int, int]]:
        """The links that a transfer to some cores passes, with their network and the number of its port: once where a network sends to many,
        else for each instance that has some of them."""
        found = []
        for number, port in enumerate(self.target.ports):
            net = port.network
            if net is None or number < outer:
                continue
            for group in sorted({core // port.cores for core in cores}):
                instances = sorted({core // net.cores % net.count for core in cores if core // port.cores == group})
                ways = [net.tree(instances)] if port.multicast else [net.ways[instance] for instance in instances]
                times = Counter(link for way in ways for link in way)
                found += [(net, number, group * net.count + link, many) for link, many in sorted(times.items())]
        return found

    def _over(self, linked: list[tuple[Network, int, int, int]], moved: float) -> Route:
        return [
            (self.links[number], link, on_grid(moved * many / net.bytes_per_clock))
            for net, number, link, many in linked
        ]

    def _plan(self, core: int, code: int) -> Plan:
        number, cls = self.number_of[code], self.class_of[code]
        item, clocks = self.flat.prepared[number], self.classes.fixed[cls]
        route = None
        if clocks is None:
            stores, moved = item.source.engine == "store", self.classes.timed[cls][1]
            ways, clocks = self.outward if stores else self.inward, self.classes.timed[cls][0]
            route = [
                (
                    way,
                    core // port.cores,
                    on_grid(moved / ((stores and port.write_bytes_per_clock) or port.bytes_per_clock)),
                )
                for way, port in list(zip(ways, self.target.ports, strict=True))[self.classes.outer[cls] :]
            ]
            route += self._over(self._linked((core,), self.classes.outer[cls]), moved)
        waits = self.waits[core][number]
        return Plan(
            engine=KINDS * core + self.kind_of[code],
            gap=self.gap_of[code],
            waits=waits,
            unsure=any(id(semaphore) in self.several for _, semaphore in waits),
            clocks=clocks,
            route=route,
            shared=item.share is not None,
            signals=self.signals[core][number],
        )

    def run(self, watched: int = -1, look: Callable[[], None] = lambda: None) -> None:
        """To the last event, or to where nothing can go on; `look` is called before a transfer of the engine `watched`."""
        heap, queues, pending, free, starts = self.heap, self.queues, self.pending, self.free, self.starts
        busy, stalled, full, end, latency, settle = (
            self.busy,
            self.stalled,
            self.full,
            self.end,
            self.latency,
            self._settle,
        )
        plain = self.spans is None
        work: list[int] = []
        for core in range(self.cores):
            self._issue(core, work)
        settle(work)
        while heap:
            if heap[0][2] == watched:
                look()
            now, phase, engine = heapq.heappop(heap)
            if phase == _SURE:
                settle([engine], engine, now)
                continue
            pending[engine] = False
            queue = queues[engine]
            issue, ready, plan = queue[0]
            if plan.shared and (gang := self.gang(issue)):
                pending[engine] = True
                self._meet(gang, engine, issue, now)
                continue
            finish = now + plan.clocks
            assert plan.route is not None
            for way, place, takes in plan.route:
                served = way[place]
                served = (served if served > now else now) + takes
                way[place] = served
                if served > finish:
                    finish = served
            kind = engine % KINDS
            busy[kind] += finish - now
            stalled[kind] += now - (free[engine] if free[engine] > ready else ready)
            if not plain:
                self._trace(engine, issue, now, finish, max(ready, free[engine]))
            free[engine] = finish
            queue.popleft()
            starts[engine].append(now)
            work = [engine]
            late = finish + latency[engine // KINDS]
            if late > end[0]:
                end[0] = late
            for semaphore in plan.signals:
                _signal(semaphore, late, work)
            if full[engine // KINDS] == engine:
                self._issue(engine // KINDS, work)
            settle(work)

    def _issue(self, core: int, work: list[int]) -> None:
        """Let a control processor issue until a queue is full."""
        issue, stop, time, depth = self.at[core], self.stop[core], self.issued[core], self.depth
        codes, plans, queues, starts = self.code, self.plans[core], self.queues, self.starts
        self.full[core] = -1
        while issue < stop:
            plan = plans[codes[issue]]
            if plan is None:
                plan = plans[codes[issue]] = self._plan(core, codes[issue])
            engine = plan.engine
            queue = queues[engine]
            waiting = len(queue)
            if waiting >= depth:
                self.full[core] = engine
                break
            time += plan.gap
            room = starts[engine][waiting]
            if room > time:
                time = room
            queue.append((issue, time, plan))
            if not waiting:
                work.append(engine)
            issue += 1
        self.at[core], self.issued[core] = issue, time

    def _settle(self, work: list[int], sure: int = -1, now: float = 0.0) -> None:
        """Work out what follows for these engines, and for those that wait for them; of `sure`, all signals up to `now` are
        known."""
        queues, free, pending, starts, heap, end = (
            self.queues,
            self.free,
            self.pending,
            self.starts,
            self.heap,
            self.end,
        )
        while work:
            engine = work.pop()
            if pending[engine]:
                continue
            queue, ends = queues[engine], free[engine]
            while queue:
                issue, start, plan = queue[0]
                if ends > start:
                    start = ends
                began = start
                for needs, semaphore in plan.waits:
                    position = needs[issue] - semaphore.before
                    if position > 0:
                        times = semaphore.times
                        if position > len(times):
                            semaphore.blocked.append(engine)
                            break
                        time = times[position - 1]
                        if time > start:
                            start = time
                else:
                    if plan.unsure and (engine != sure or start > now):
                        heapq.heappush(heap, (start, _SURE, engine))
                        for _, semaphore in plan.waits:
                            semaphore.blocked.append(engine)
                        break
                    if plan.route is not None:
                        pending[engine] = True
                        heapq.heappush(heap, (start, _TRANSFER, engine))
                        break
                    sure = -1
                    ends = free[engine] = start + plan.clocks
                    if ends > end[0]:
                        end[0] = ends
                    queue.popleft()
                    starts[engine].append(start)
                    self.busy[engine % KINDS] += plan.clocks
                    self.stalled[engine % KINDS] += start - began
                    if self.spans is not None:
                        self._trace(engine, issue, start, ends, began)
                    for semaphore in plan.signals:
                        _signal(semaphore, ends, work)
                    if self.full[engine // KINDS] == engine:
                        self._issue(engine // KINDS, work)
                    continue
                break

    def _meet(self, gang: int, engine: int, issue: int, now: float) -> None:
        """An engine is ready for a load that cores make together; the last one to be so begins it."""
        group = self.meetings.setdefault(gang, [])
        group.append(engine)
        if len(group) < self.gangs.members[issue]:
            return
        del self.meetings[gang]
        cls = self.class_of[self.code[issue]]
        cores = tuple(sorted([engine // KINDS for engine in group]))
        known = self.routes.get((cls, cores))
        if known is None:
            known = self.routes[cls, cores] = self._route_together(cls, cores)
        what, route = known
        finish = now + self.classes.timed[cls][0]
        for way, place, takes in route:
            served = way[place]
            served = (served if served > now else now) + takes
            way[place] = served
            if served > finish:
                finish = served
        self.loaded[what] += 1
        self._begin_together(group, now, finish)

    def _route_together(self, cls: int, cores: tuple[int, ...]) -> tuple[Gang, Route]:
        """The ports in the way of a load that these cores make together, and the clocks that it takes at each."""
        leaves, arrives = passes(self.target, cores)
        moved = self.classes.timed[cls][1]
        route = []
        for position in range(self.classes.outer[cls], len(self.inward)):
            port = self.target.ports[position]
            takes = on_grid(moved / port.bytes_per_clock * leaves[position] / arrives[position])
            route += [(self.inward[position], place, takes) for place in sorted({core // port.cores for core in cores})]
        linked = self._linked(cores, self.classes.outer[cls])
        joules = sum(many * net.joules for net, _, _, many in linked)
        return (cls, leaves, arrives, len(cores), joules), route + self._over(linked, moved)

    def _begin_together(self, group: list[int], now: float, finish: float) -> None:
        work: list[int] = []
        for engine in group:
            late = finish + self.latency[engine // KINDS]
            self.end[0] = max(self.end[0], late)
            issue, ready, plan = self.queues[engine].popleft()
            began = max(ready, self.free[engine])
            self.busy[engine % KINDS] += finish - now
            self.stalled[engine % KINDS] += now - began
            self.pending[engine] = False
            self.starts[engine].append(now)
            self.free[engine] = finish
            if self.spans is not None:
                self._trace(engine, issue, now, finish, began)
            for semaphore in plan.signals:
                _signal(semaphore, late, work)
            work.append(engine)
        for engine in group:
            if self.full[engine // KINDS] == engine:
                self._issue(engine // KINDS, work)
        self._settle(work)

    def _trace(self, engine: int, issue: int, start: float, end: float, began: float) -> None:
        assert self.spans is not None
        core, kind = divmod(engine, KINDS)
        self.spans.append(Span(core, ENGINES[kind], self.number(issue), start, end, start - began))

    @property
    def finished(self) -> bool:
        """Whether everything was issued and begun."""
        return not any(self.queues) and all(engine < 0 for engine in self.full)

    def figures(self) -> tuple[float, list[float]]:
        """Bytes that DRAM moved, and joules by kind of engine, of a run that came to its end."""
        target, classes = self.target, self.classes
        moved, joules = 0.0, [0.0] * KINDS
        for cls, times in enumerate(np.bincount(classes.of[self.gangs.of == 0], minlength=len(classes.costs)).tolist()):
            cost, timed, outer = classes.costs[cls], classes.timed[cls], classes.outer[cls]
            each = timed[2]
            if outer and isinstance(cost.item.source, Store):
                each = stored_joules(target, timed[3], outer)
            elif outer:
                ones = (1,) * len(target.ports)
                each = shared_joules(cost, timed, ones, ones, 1, outer)
            moved += 0.0 if outer else times * timed[1]
            joules[ENGINES.index(cost.item.source.engine)] += times * each
        self._link_joules(joules)
        for (cls, leaves, arrives, cores, linked), times in self.loaded.items():
            timed, outer = classes.timed[cls], classes.outer[cls]
            joules[0] += times * linked * timed[3]
            moved += 0.0 if outer else times * timed[1] * leaves[0]
            joules[0] += times * shared_joules(classes.costs[cls], timed, leaves, arrives, cores, outer)
        return moved, joules

    def _link_joules(self, joules: list[float]) -> None:
        """Add the energy of links to that of transfers that cores make alone."""
        if not any(self.links):
            return
        alone = np.flatnonzero(self.gangs.of == 0)
        pairs = self.classes.of[alone] * self.cores + self.flat.core_of(alone)
        for pair, times in zip(*np.unique(pairs, return_counts=True), strict=True):
            cls, core = divmod(int(pair), self.cores)
            if self.classes.fixed[cls] is None:
                each = sum(many * net.joules for net, _, _, many in self._linked((core,), self.classes.outer[cls]))
                kind = ENGINES.index(self.classes.costs[cls].item.source.engine)
                joules[kind] += int(times) * each * self.classes.timed[cls][3]


def _signal(semaphore: Counted, time: float, work: list[int]) -> None:
    """Signal at a clock, which sets those to work who wait."""
    times = semaphore.times
    if times and times[-1] > time:
        insort(times, time)
    else:
        times.append(time)
    if semaphore.blocked:
        work += semaphore.blocked
        semaphore.blocked = []
