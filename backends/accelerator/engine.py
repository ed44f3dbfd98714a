"""The clock of a program: when each issue starts and ends, and what follows of bytes and energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.backends.accelerator.costs import shared_joules, staged_joules, stored_joules
from codesign.backends.accelerator.flat import Flat, Ints
from codesign.backends.accelerator.loop import KINDS, NEVER, NOTHING, Run, advance_all
from codesign.backends.accelerator.routes import Routes
from codesign.backends.accelerator.semaphores import Semaphores
from codesign.backends.accelerator.timing import Classes, Gangs, on_grid
from codesign.costmodel.dataflow.space import passes
from codesign.costmodel.dataflow.target import Target
from codesign.ir.program import ENGINES, Program, Store


@dataclass(frozen=True, slots=True)
class Span:
    """One instruction on an engine, in clocks; `waited` before `start` for semaphores or memory."""

    core: int
    engine: str
    number: int
    start: float
    end: float
    waited: float


class Clock:
    """A run of a program; `advance` takes it to the end. An engine's number is `KINDS * core + kind`, an issue's that of `Flat`."""

    def __init__(self, program: Program, target: Target, flat: Flat, classes: Classes, gangs: Gangs) -> None:
        self.target, self.flat, self.cores = target, flat, flat.cores
        self.classes, self.gangs = classes, gangs
        kinds = np.array([ENGINES.index(item.source.engine) for item in flat.prepared] or [0], np.int64)
        self.core = np.repeat(np.arange(flat.cores), np.diff(flat.first))
        self.kind = kinds[flat.number]
        self.moves = np.array([fixed is None for fixed in classes.fixed] or [False])[classes.of]
        self.routes = Routes(target, classes, flat.cores)
        self.run = self._run(Semaphores(program, target, flat, kinds))

    def advance(self, *, compiled: bool = True) -> None:
        """To the last event, or to where nothing can go on; `compiled` false in Python even where there is a C compiler."""
        advance_all(self.run, compiled=compiled)

    def _run(self, semaphores: Semaphores) -> Run:
        flat, classes = self.flat, self.classes
        issues, engines = len(flat.number), KINDS * self.cores
        engine = KINDS * self.core + self.kind
        following, before, head = _queues(engine, engines, self.target.queue_depth)
        clocks = np.array(
            [timed[0] if fixed is None else fixed for fixed, timed in zip(classes.fixed, classes.timed, strict=True)]
        )
        leaves = 1 << (engines - 1).bit_length()
        gangs = int(self.gangs.of.max(initial=0)) + 1
        route = self._routes()
        return Run(
            cores=self.cores,
            depth=self.target.queue_depth,
            issues=issues,
            numbers=len(flat.prepared),
            positions=len(semaphores.needs),
            leaves=leaves,
            working=0,
            stop=flat.first[1:].astype(np.int64),
            at=flat.first[:-1].astype(np.int64),
            issued=np.zeros(self.cores),
            full=_full(self.cores, NOTHING),
            latency=self.routes.latencies(),
            number=np.ascontiguousarray(flat.number),
            engine=engine,
            next=following,
            before=before,
            gap=(flat.steps + 1) * np.float64(on_grid(self.target.issue_clocks)),
            clocks=clocks[classes.of] if issues else np.zeros(0),
            route=route,
            gang=self.gangs.of,
            members=self.gangs.members,
            needs=semaphores.needs.ravel(),
            ready=np.zeros(issues),
            start=np.zeros(issues),
            finish=np.zeros(issues),
            began=np.zeros(issues),
            unsure=semaphores.unsure,
            waited=semaphores.waited.ravel(),
            signal_end=semaphores.signal_end,
            signals=semaphores.signals,
            times_begin=semaphores.begin,
            signalled=np.zeros(len(semaphores.begin), np.int64),
            times=np.zeros(semaphores.total),
            waiters_end=semaphores.waiters_end,
            waiters=semaphores.waiters,
            route_end=np.array(self.routes.ends, np.int64),
            ways=np.array(self.routes.ways, np.int64),
            takes=np.array(self.routes.takes),
            busy=np.zeros(self.routes.count),
            head=head,
            waiting=np.zeros(engines, np.int64),
            free=np.zeros(engines),
            blocked=_full(engines, NOTHING),
            listed=np.zeros(engines, np.int64),
            work=np.zeros(engines, np.int64),
            turn=np.full(leaves, NEVER),
            asked=np.zeros(leaves, np.int64),
            winners=_tree(leaves),
            met=np.zeros(gangs, np.int64),
            last_met=_full(gangs, NOTHING),
            met_before=_full(engines, NOTHING),
        )

    def _routes(self) -> Ints:
        """The route of each issue, -1 of what computes."""
        found = _full(len(self.flat.number), NOTHING)
        alone = np.flatnonzero(self.moves & (self.gangs.of == 0))
        pairs, which = np.unique(self.classes.of[alone] * self.cores + self.core[alone], return_inverse=True)
        classes, cores = np.divmod(pairs, self.cores)
        made = [self.routes.alone(cls, cores[classes == cls].tolist()) for cls in np.unique(classes).tolist()]
        if made:
            found[alone] = np.concatenate(made)[which]
        found[self.gangs.of > 0] = self._shared_routes()
        return found

    def _shared_routes(self) -> Ints:
        """The route of each load that cores make together. A key may come again, with more or less to load."""
        self.shared: list[tuple[int, float, tuple[int, ...]]] = []
        """Of such loads: a class, how many there are, the cores."""
        together = np.flatnonzero(self.gangs.of)
        gang, core = self.gangs.of[together], self.core[together]
        who, which = np.unique(self.gangs.who[together], return_inverse=True)
        keys, one, kind, times = np.unique(
            self.classes.of[together] * len(who) + which, return_index=True, return_inverse=True, return_counts=True
        )
        by_gang = np.argsort(gang, kind="stable")
        routes = []
        for key, position, many in zip(keys.tolist(), one.tolist(), times.tolist(), strict=True):
            begin, end = np.searchsorted(gang[by_gang], [gang[position], gang[position] + 1])
            cores = tuple(np.unique(core[by_gang[begin:end]]).tolist())
            self.shared.append((key // len(who), many / len(cores), cores))
            routes.append(self.routes.together(key // len(who), cores))
        return np.array(routes, np.int64)[kind]

    @property
    def finished(self) -> bool:
        """Whether everything was issued and begun."""
        return bool((self.run.at == self.run.stop).all()) and not self.run.waiting.any()

    @property
    def end(self) -> float:
        """The clock of the last event."""
        run = self.run
        late = np.where(self.moves, run.latency[self.core], 0.0)
        return float((run.finish + late).max(initial=0.0))

    @property
    def busy(self) -> list[float]:
        """Clocks that engines of each kind worked."""
        return self._by_kind(self.run.finish - self.run.start)

    @property
    def stalled(self) -> list[float]:
        """Clocks that heads of their queues waited."""
        return self._by_kind(self.run.start - self.run.began)

    def _by_kind(self, clocks: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
        found: list[float] = np.bincount(self.kind, clocks, minlength=KINDS).tolist()
        return found

    def spans(self) -> list[Span]:
        """Every issue on its engine."""
        run = self.run
        columns = (self.core, self.kind, self.flat.number, run.start, run.finish, run.start - run.began)
        return [
            Span(core, ENGINES[kind], number, start, end, waited)
            for core, kind, number, start, end, waited in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def figures(self) -> tuple[float, list[float]]:
        """Bytes that DRAM moved, and joules by kind of engine, of a run that came to its end."""
        target, classes = self.target, self.classes
        moved, joules = 0.0, [0.0] * KINDS
        for cls, times in enumerate(np.bincount(classes.of[self.gangs.of == 0], minlength=len(classes.costs)).tolist()):
            cost, timed, outer = classes.costs[cls], classes.timed[cls], classes.outer[cls]
            each = timed[2]
            if into := classes.into[cls]:
                ones = (1,) * len(target.ports)
                each = staged_joules(target, timed, ones, ones, into, outer)
            elif outer and isinstance(cost.item.source, Store):
                each = stored_joules(target, timed[3], outer)
            elif outer:
                ones = (1,) * len(target.ports)
                each = shared_joules(cost, timed, ones, ones, 1, outer)
            moved += 0.0 if outer else times * timed[1]
            joules[ENGINES.index(cost.item.source.engine)] += times * each
        self._link_joules(joules)
        for cls, times, cores in self.shared:
            timed, outer, into = classes.timed[cls], classes.outer[cls], classes.into[cls]
            kind = ENGINES.index(classes.costs[cls].item.source.engine)
            leaves, arrives = passes(target, cores)
            linked = sum(many * net.joules for net, _, _, many in self.routes.linked(cores, outer, into))
            joules[kind] += times * linked * timed[3]
            moved += 0.0 if outer else times * timed[1] * leaves[0]
            if into:
                joules[kind] += times * staged_joules(target, timed, leaves, arrives, into, outer)
            else:
                joules[kind] += times * shared_joules(classes.costs[cls], timed, leaves, arrives, len(cores), outer)
        return moved, joules

    def _link_joules(self, joules: list[float]) -> None:
        """Add the energy of links to that of transfers that cores make alone."""
        if not any(port.network for port in self.target.ports):
            return
        alone = np.flatnonzero(self.moves & (self.gangs.of == 0))
        pairs, counts = np.unique(self.classes.of[alone] * self.cores + self.core[alone], return_counts=True)
        for pair, times in zip(pairs.tolist(), counts.tolist(), strict=True):
            cls, core = divmod(pair, self.cores)
            links = self.routes.linked((core,), self.classes.outer[cls], self.classes.into[cls])
            each = sum(many * net.joules for net, _, _, many in links)
            kind = ENGINES.index(self.classes.costs[cls].item.source.engine)
            joules[kind] += times * each * self.classes.timed[cls][3]


def _queues(engine: Ints, engines: int, depth: int) -> tuple[Ints, Ints, Ints]:
    """Of each issue the next of its engine and the one `depth` before, and the first of each engine; -1 where there is none."""
    order = np.argsort(engine, kind="stable")
    ordered = engine[order]
    following, before = _full(len(engine), NOTHING), _full(len(engine), NOTHING)
    same = ordered[1:] == ordered[:-1]
    following[order[:-1][same]] = order[1:][same]
    far = ordered[depth:] == ordered[:-depth]
    before[order[depth:][far]] = order[:-depth][far]
    head = _full(engines, NOTHING)
    begins = np.searchsorted(ordered, np.arange(engines))
    has = begins < len(ordered)
    has[has] = ordered[begins[has]] == np.flatnonzero(has)
    head[has] = order[begins[has]]
    return following, before, head


def _tree(leaves: int) -> Ints:
    """Over so many leaves, of each inner node the first leaf below it."""
    levels = [np.arange(leaves, dtype=np.int64)]
    while len(levels[-1]) > 1:
        levels.append(levels[-1][::2])
    return np.concatenate([np.zeros(1, np.int64), *reversed(levels)])


def _full(count: int, value: int) -> Ints:
    return np.full(count, value, np.int64)
