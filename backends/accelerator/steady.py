"""Steady states are found and skipped: what repeats to the last bit is worked out once.

A state is what the future follows from: how far each core is, what is under way, and every time that lies ahead of now, seen from now. Where
it comes again, a period later, and the cores' next issues are those of that period (same classes, waits moved on by the signals of a
period), it comes again for as long as they are. All times move on by so many periods; nothing is estimated. Memories that are contended
are part of the state, so a steady contention is skipped too.

Times that lie before now decide nothing any more (all starts are at now or later), but for those of what is queued already: the time that it
was ready, from which its wait is counted, moves on or stays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.backends.accelerator.engine import KINDS, Clock, Gang
from codesign.backends.accelerator.timing import LONGEST
from codesign.ir.program import ENGINES

_KEPT = 256
"""States that are remembered at most."""
_SELDOM, _OFTEN = 16, 4
"""Transfers of a core between states that are remembered unasked, and where the core looks as it has before: writing one down costs about
one transfer of each core."""
_LOAD, _STORE = ENGINES.index("load"), ENGINES.index("store")

Mark = tuple[object, ...]
"""What one core looks like: where it differs, so do the states."""


@dataclass(frozen=True)
class State:
    """Everything at `now`. `shape`: what is where, without times; `strict`: times that must repeat or stay; `loose`: times that count only if
    they lie ahead. `signals`: so far, by semaphore."""

    now: float
    shape: tuple[object, ...]
    strict: npt.NDArray[np.float64]
    loose: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]
    signals: npt.NDArray[np.int64]
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

    def look(self) -> None:
        """Skip what repeats from here on, or remember how it is here."""
        clock = self.clock
        now = clock.heap[0][0]
        if now > LONGEST:
            return
        self.passed += 1
        mark = self._mark(now)
        old = self.states.get(mark)
        if old is not None:
            at = clock.at[self.core]
            issue = clock.queues[self.engine][0][0]
            period = at - int(old.at[self.core])
            if _periods(clock, self.core, issue - period, period, None, at) > 0:
                new = state_of(clock, now)
                times = repetitions(clock, old, new)
                if times > 0:
                    _skip(clock, old, new, times)
                else:
                    self._remember(mark, new)
        elif self.passed >= _SELDOM or (self.passed >= _OFTEN and mark in self.seen):
            self._remember(mark, state_of(clock, now))
        self.seen.add(mark)

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
        )


def state_of(clock: Clock, now: float) -> State:
    """The state before what could start at `now`."""
    for semaphore in clock.semaphores:
        past = bisect_right(semaphore.times, now)
        if past:
            del semaphore.times[:past]
            semaphore.before += past
    pending = sorted(clock.heap, key=lambda entry: entry[1:])
    shape = (
        [len(queue) for queue in clock.queues],
        [entry[1:] for entry in pending],
        clock.full[:],
        [len(semaphore.times) for semaphore in clock.semaphores],
        sorted(clock.meetings.values()),
        [free > now for free in clock.free],
    )
    strict = np.fromiter(_strict(clock), np.float64)
    loose = np.fromiter(_loose(clock, now), np.float64)
    signals = np.array([semaphore.before + len(semaphore.times) for semaphore in clock.semaphores], np.int64)
    at = np.array(clock.at, np.int64)
    figures = (clock.busy[:], clock.stalled[:], clock.loaded.copy(), clock.end[0])
    return State(now, shape, strict, loose, at, signals, *figures)


def _strict(clock: Clock) -> Iterator[float]:
    for engine, queue in enumerate(clock.queues):
        if queue:
            yield clock.free[engine]
            for _, ready, _ in queue:
                yield ready


def _loose(clock: Clock, now: float) -> Iterator[float]:
    for entry in sorted(clock.heap, key=lambda entry: entry[1:]):
        yield entry[0]
    for engine, queue in enumerate(clock.queues):
        if not queue:
            yield clock.free[engine]
        if clock.free[engine] > now:
            yield from clock.starts[engine]
    for core, issue in enumerate(clock.at):
        yield clock.issued[core] + (clock.gap_of[clock.code[issue]] if issue < clock.stop[core] else 0.0)
    for semaphore in clock.semaphores:
        yield from semaphore.times
    for way in (*clock.inward, *(way for way in clock.outward if all(way is not other for other in clock.inward))):
        yield from way


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
    signalled = new.signals - old.signals
    for core, (before, at) in enumerate(zip(old.at.tolist(), new.at.tolist(), strict=True)):
        if at == before:
            continue
        begin = min([queue[0][0] for queue in clock.queues[KINDS * core : KINDS * core + KINDS] if queue] + [at])
        most = min(most, _periods(clock, core, begin - (at - before), at - before, signalled, at))
        if most <= 0:
            return 0
    return most


def _periods(
    clock: Clock, core: int, begin: int, period: int, signalled: npt.NDArray[np.int64] | None, at: int | None = None
) -> int:
    """How many periods of issues follow each other from `begin` on, beyond those that were issued up to `at`.

    `signalled`: by how much each semaphore moves on in one; None leaves the waits alone.
    """
    if period <= 0:
        return 0
    stop = clock.stop[core]
    begin = max(begin, int(clock.flat.first[core]))
    done = begin if at is None else at
    reach, width = begin, 4 * period
    while reach + period < stop:
        high = min(reach + width, stop - period)
        same = clock.feature[reach:high] == clock.feature[reach + period : high + period]
        if signalled is not None:
            same &= _waits_move(clock, core, reach, high, period, signalled)
        if not same.all():
            reach += int(np.argmin(same))
            break
        reach, width = high, 2 * width
    return (reach + period - 1 - done) // period


def _waits_move(
    clock: Clock, core: int, low: int, high: int, period: int, signalled: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether each issue waits, a period later, for as many signals more as a period brings."""
    same = np.ones(high - low, np.bool_)
    number = clock.flat.number[low:high]
    for position, needs in enumerate(clock.needs):
        by_number = np.array(
            [signalled[waits[position][1].place] if position < len(waits) else 0 for waits in clock.waits[core]],
            np.int64,
        )
        same &= needs[low + period : high + period] - needs[low:high] == by_number[number]
    return same


def _skip(clock: Clock, old: State, new: State, times: int) -> None:
    """Move on by so many periods."""
    further = times * (new.now - old.now)
    issues = (times * (new.at - old.at)).tolist()
    moved = new.strict - new.now == old.strict - old.now
    strict = iter(np.where(moved, new.strict + further, new.strict).tolist())
    for engine, queue in enumerate(clock.queues):
        if queue:
            clock.free[engine] = next(strict)
            clock.queues[engine] = deque(
                (issue + issues[engine // KINDS], next(strict), plan) for issue, _, plan in queue
            )
        else:
            clock.free[engine] += further
        clock.starts[engine] = deque((start + further for start in clock.starts[engine]), clock.depth)
    clock.at[:] = [at + more for at, more in zip(clock.at, issues, strict=True)]
    clock.issued[:] = [issued + further for issued in clock.issued]
    for semaphore, more in zip(clock.semaphores, (new.signals - old.signals).tolist(), strict=True):
        semaphore.times[:] = [time + further for time in semaphore.times]
        semaphore.before += times * more
    ways = {id(way): way for way in (*clock.inward, *clock.outward)}
    for way in ways.values():
        way[:] = [free + further for free in way]
    clock.heap[:] = [(time + further, phase, engine) for time, phase, engine in clock.heap]
    clock.meetings = {clock.gang(clock.queues[group[0]][0][0]): group for group in clock.meetings.values()}
    clock.busy[:] = [b + times * (b - a) for a, b in zip(old.busy, new.busy, strict=True)]
    clock.stalled[:] = [b + times * (b - a) for a, b in zip(old.stalled, new.stalled, strict=True)]
    for gang, count in (new.loaded - old.loaded).items():
        clock.loaded[gang] += times * count
    clock.end[0] += further if new.end > old.end else 0.0
