"""Steady states are found and skipped: what repeats to the last bit is worked out once.

A state is what the future follows from: how far each core is, what is under way, and every time that lies ahead of now, seen from now. Where
it comes again, a period later, and the cores' next issues are those of that period (same classes, waits moved on by the signals of a
period), it comes again for as long as they are. All times move on by so many periods; nothing is estimated. Memories that are contended
are part of the state, so a steady contention is skipped too.

Times that lie before now decide nothing any more (all starts are at now or later), but for the one from which the wait of the head of a queue is
counted: it moves on or stays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from codesign.backends.accelerator.engine import KINDS, Clock, Gang
from codesign.backends.accelerator.flat import Ints
from codesign.backends.accelerator.timing import LONGEST
from codesign.ir.program import ENGINES

_KEPT = 256
"""States that are remembered at most."""
_SELDOM, _OFTEN = 24, 8
"""Transfers of a core between states that are remembered unasked, and where the core looks as it has before: writing one down costs about
one transfer of each core."""
_PATIENCE = 5
"""After so many states that looked as before and were not, only each 16th is looked at."""
_WORTH = 12
"""Issues of a core that must be skipped at least for what it takes to be worth it."""
_LOAD, _STORE = ENGINES.index("load"), ENGINES.index("store")

Mark = tuple[object, ...]
"""What one core looks like, and how far all transfers are: where it differs, so do the states."""


@dataclass(frozen=True)
class State:
    """Everything at `now`. `shape`: what is where, without times; `strict`: times that must repeat or stay; `loose`: times that count only if
    they lie ahead. `signals`: so far, by semaphore."""

    now: float
    shape: tuple[object, ...]
    strict: npt.NDArray[np.float64]
    loose: npt.NDArray[np.float64]
    at: Ints
    signals: Ints
    busy: list[float]
    stalled: list[float]
    loaded: Counter[Gang]
    end: float


def run_steadily(clock: Clock) -> None:
    """To the last event, as `Clock.run`, with steady states skipped."""
    watch = _Watch(clock)
    clock.run(watch.engine, watch.look)


class _Watch:
    """Compares states at the transfers of one engine: of the core that has most to do, the one that has most to move."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.core = int(np.argmax(np.diff(clock.flat.first)))
        codes = clock.code[clock.flat.first[self.core] : clock.flat.first[self.core + 1]]
        kinds = Counter(clock.kind_of[code] for code in codes)
        self.engine = KINDS * self.core + max((_LOAD, _STORE), key=lambda kind: kinds[kind])
        self.states: dict[Mark, State] = {}
        self.seen: set[Mark] = set()
        self.passed = 0
        self.repeats: dict[int, tuple[int, int]] = {}
        """By period, the last stretch of issues that repeat with it."""
        self.pause = self.failures = 0

    def look(self) -> None:
        """Skip what repeats from here on, or remember how it is here."""
        clock = self.clock
        now = clock.heap[0][0]
        if now > LONGEST:
            return
        self.passed += 1
        if self.pause:
            self.pause -= 1
            return
        mark = self._mark(now)
        old = self.states.get(mark)
        if old is not None:
            issue = clock.queues[self.engine][0][0]
            period = clock.at[self.core] - int(old.at[self.core])
            if period and self._ahead(issue - period, period) - clock.at[self.core] >= max(period, _WORTH):
                new = state_of(clock, now)
                times = repetitions(clock, old, new)
                if times > 0:
                    _skip(clock, old, new, times)
                    self.failures = 0
                else:
                    self._remember(mark, new)
                    self.failures = min(self.failures + 1, _PATIENCE)
                    self.pause = (1 << self.failures) >> 1
        elif self.passed >= _SELDOM or (self.passed >= _OFTEN and mark in self.seen):
            self._remember(mark, state_of(clock, now))
        self.seen.add(mark)

    def _ahead(self, begin: int, period: int) -> int:
        """Up to where the core's issues from `begin` on repeat with a period."""
        first, end = self.repeats.get(period, (0, -1))
        if not first <= begin <= end:
            feature, stop = self.clock.feature, self.clock.stop[self.core] - period
            end, width = max(begin, 0), 4 * period
            while end < stop:
                high = min(end + width, stop)
                same = feature[end:high] == feature[end + period : high + period]
                if not same.all():
                    end += int(np.argmin(same))
                    break
                end, width = high, 2 * width
            self.repeats[period] = (begin, end)
        return end + period

    def _remember(self, mark: Mark, state: State) -> None:
        self.states.pop(mark, None)
        self.states[mark] = state
        if len(self.states) > _KEPT:
            del self.states[next(iter(self.states))]
        self.passed = 0

    def _mark(self, now: float) -> Mark:
        clock, base = self.clock, KINDS * self.core
        engines = range(base, base + KINDS)
        return (
            clock.feature[clock.queues[self.engine][0][0]],
            *(len(clock.queues[engine]) for engine in engines),
            *(max(clock.free[engine] - now, 0.0) for engine in engines),
            len(clock.heap),
            sum([entry[0] for entry in clock.heap]) - now * len(clock.heap),
        )


def state_of(clock: Clock, now: float) -> State:
    """The state before what could start at `now`."""
    for semaphore in clock.semaphores:
        past = bisect_right(semaphore.times, now)
        if past:
            del semaphore.times[:past]
            semaphore.before += past
    pending = sorted(clock.heap, key=itemgetter(1, 2))
    shape = (
        [len(queue) for queue in clock.queues],
        [entry[1:] for entry in pending],
        clock.full[:],
        [len(semaphore.times) for semaphore in clock.semaphores],
        sorted(clock.meetings.values()),
        [free > now for free in clock.free],
    )
    strict = np.array(_strict(clock))
    loose = np.array([entry[0] for entry in pending] + _loose(clock, now))
    signals = np.array([semaphore.before + len(semaphore.times) for semaphore in clock.semaphores], np.int64)
    at = np.array(clock.at, np.int64)
    figures = (clock.busy[:], clock.stalled[:], clock.loaded.copy(), clock.end[0])
    return State(now, shape, strict, loose, at, signals, *figures)


def _strict(clock: Clock) -> list[float]:
    """Since when engines with something to do could have begun it."""
    return [max(free, queue[0][1]) for free, queue in zip(clock.free, clock.queues, strict=True) if queue]


def _loose(clock: Clock, now: float) -> list[float]:
    """When engines and ports are free, what is queued was ready, queues had room, control processors go on, and signals come."""
    found = clock.free[:]
    found += [ready for queue in clock.queues for _, ready, _ in queue]
    for free, starts in zip(clock.free, clock.starts, strict=True):
        if free > now:
            found += starts
    for core, issue in enumerate(clock.at):
        found.append(clock.issued[core] + (clock.gap_of[clock.code[issue]] if issue < clock.stop[core] else 0.0))
    for semaphore in clock.semaphores:
        found += semaphore.times
    for way in _ways(clock):
        found += way
    return found


def _ways(clock: Clock) -> list[list[float]]:
    """The ports, each once."""
    return list({id(way): way for way in (*clock.inward, *clock.outward, *clock.links)}.values())


def repetitions(clock: Clock, old: State, new: State) -> int:
    """How often the time from one state to the other will come again, exactly."""
    if old.shape != new.shape or len(old.strict) != len(new.strict) or len(old.loose) != len(new.loose):
        return 0
    moved = new.strict - new.now == old.strict - old.now
    stayed = (new.strict == old.strict) & (new.strict <= old.now)
    ahead = np.maximum(new.loose - new.now, 0.0) == np.maximum(old.loose - old.now, 0.0)
    if not (np.all(moved | stayed) and np.all(ahead)):
        return 0
    most = int((LONGEST - new.now) / (new.now - old.now))
    begin = new.at.copy()
    for engine, queue in enumerate(clock.queues):
        if queue:
            begin[engine // KINDS] = min(begin[engine // KINDS], queue[0][0])
    each = new.at - old.at
    for period in np.unique(each[each > 0]).tolist():
        cores = np.flatnonzero(each == period)
        most = min(most, periods(clock, cores, (begin - each)[cores], new.at[cores], period, new.signals - old.signals))
        if most <= 0:
            return 0
    return most


def periods(clock: Clock, cores: Ints, begin: Ints, at: Ints, period: int, signalled: Ints) -> int:
    """How many periods of issues follow each other on all of these cores, from `begin` on, beyond those that were issued up to `at`.

    `signalled`: by how much each semaphore moves on in one.
    """
    stop = clock.flat.first[cores + 1]
    begin = np.maximum(begin, clock.flat.first[cores])
    reach, width = 0, 4 * period
    while True:
        issues = begin[:, None] + np.arange(reach, reach + width)
        inside = issues + period < stop[:, None]
        issues = np.where(inside, issues, begin[:, None])
        later = np.where(inside, issues + period, begin[:, None])
        same = inside & (clock.feature[issues] == clock.feature[later])
        same &= _waits_move(clock, cores, issues, later, signalled)
        if not same.all():
            first = np.where(same.all(axis=1), width, np.argmin(same, axis=1))
            return int(np.min((begin + reach + first + period - 1 - at) // period))
        reach, width = reach + width, 2 * width


def _waits_move(clock: Clock, cores: Ints, issues: Ints, later: Ints, signalled: Ints) -> npt.NDArray[np.bool_]:
    """Whether each issue waits, a period later, for as many signals more as a period brings."""
    same = np.ones(issues.shape, np.bool_)
    number = clock.flat.number[issues]
    more = np.append(signalled, 0)
    for needs, semaphores in zip(clock.needs, clock.waited, strict=True):
        same &= needs[later] - needs[issues] == more[semaphores[cores[:, None], number]]
    return same


def _skip(clock: Clock, old: State, new: State, times: int) -> None:
    """Move on by so many periods."""
    further = times * (new.now - old.now)
    issues = (times * (new.at - old.at)).tolist()
    moved = new.strict - new.now == old.strict - old.now
    stays = iter((~moved).tolist())
    for engine, queue in enumerate(clock.queues):
        held = bool(queue) and next(stays)
        if queue:
            more = issues[engine // KINDS]
            later = [(issue + more, ready + further, plan) for issue, ready, plan in queue]
            if held:  # ready and free as long ago as it was
                later[0] = (later[0][0], queue[0][1], queue[0][2])
            clock.queues[engine] = deque(later)
        clock.free[engine] += 0.0 if held else further
        clock.starts[engine] = deque([start + further for start in clock.starts[engine]], clock.depth)
    clock.at[:] = [at + more for at, more in zip(clock.at, issues, strict=True)]
    clock.issued[:] = [issued + further for issued in clock.issued]
    for semaphore, more in zip(clock.semaphores, (new.signals - old.signals).tolist(), strict=True):
        semaphore.times[:] = [time + further for time in semaphore.times]
        semaphore.before += times * more
    for way in _ways(clock):
        way[:] = [free + further for free in way]
    clock.heap[:] = [(time + further, phase, engine) for time, phase, engine in clock.heap]
    clock.meetings = {clock.gang(clock.queues[group[0]][0][0]): group for group in clock.meetings.values()}
    clock.busy[:] = [b + times * (b - a) for a, b in zip(old.busy, new.busy, strict=True)]
    clock.stalled[:] = [b + times * (b - a) for a, b in zip(old.stalled, new.stalled, strict=True)]
    for gang, count in (new.loaded - old.loaded).items():
        clock.loaded[gang] += times * count
    clock.end[0] += further if new.end > old.end else 0.0
