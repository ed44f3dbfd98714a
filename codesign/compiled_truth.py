"""Schedules held to what the compiler makes of them.

What does not compile, or takes more than a block may have, is refused; what spills registers is priced again by what was reported. Where
another schedule then promises to be faster it is compiled too, a few at most and for some seconds, and the fastest by the compiler's own
numbers is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from codesign.backend import Backend
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import Reported
from codesign.document import Compiled, Tried
from codesign.ir.core import Module
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule
from codesign.ir.tile import Kernel
from codesign.passes.lowering import KernelInfo
from codesign.passes.schedule.context import Candidate
from codesign.passes.schedule.tuner import Tuned, Tuner
from codesign.passes.tile import lower

MOST_TRIED = 4
"""Schedules of a kernel that are compiled beside the first one."""

MOST_SECONDS = 30.0
"""CPU seconds of the compiler that those may take, after which none is begun. The register allocator of ptxas takes 2 s where all fits and minutes
for tens of kilobytes of spills; what it took is kept with the code, so that a run that finds the code in the cache ends with the same schedule."""

SPILLING = 1.1
"""How much slower than its price a schedule that spills is taken to be: one that does not is kept where it is priced no more than that above it.
A tenth is what prices of compiled kernels are off by (README), so that it decides between schedules that may as well be equal, and bytes are
the least that spills cost: moves stand between the instructions that they feed, and ptxas has matrix instructions of warp groups wait for each other
where registers are short."""

WORTH = 0.98
"""Another is compiled where it promises no more than this share of the best so far."""


@dataclass
class _Attempt:
    """A schedule as it was compiled."""

    kernel: Kernel
    tuned: Tuned
    outcome: Compiled

    @property
    def seconds(self) -> float:
        """By what was reported; infinite where the code can't be used."""
        return math.inf if self.outcome.error else self.tuned.seconds

    @property
    def expected(self) -> float:
        """The same, with what spills may take beyond their bytes."""
        return self.seconds * (SPILLING if self.outcome.spills else 1.0)

    @property
    def why(self) -> str:
        """What is wrong with the code; empty where nothing is."""
        if self.outcome.error:
            return self.outcome.error
        return f"{self.outcome.spills:,} B a thread spilt" if self.outcome.spills else ""


@dataclass
class _Trials:
    """A kernel, the schedules that it was compiled with, and those that may follow."""

    info: KernelInfo
    machine: Machine
    done: list[_Attempt]
    priced: dict[Schedule, float]
    rest: list[Candidate] = field(default_factory=list)

    @property
    def best(self) -> _Attempt:
        return min(self.done, key=lambda attempt: attempt.expected)

    def following(self) -> Candidate | None:
        """The next schedule to compile: one that promises more than the best so far and whose threads do not hold the same as those of one
        that spilt; once two did, one with fewer results in their registers, where there is one."""
        further = self.done[1:]
        if len(further) >= MOST_TRIED or sum(attempt.outcome.compile_seconds for attempt in further) > MOST_SECONDS:
            return None
        spilt = [attempt.tuned.schedule for attempt in self.done if attempt.outcome.spills]
        held = [_what_is_held(schedule) for schedule in spilt]
        promising = [c for c in self.rest if c.seconds <= WORTH * self.best.expected]
        self.rest = [c for c in promising if _what_is_held(c.schedule) not in held]
        smaller = [c for c in self.rest if all(self._filled(c.schedule) < self._filled(other) for other in spilt)]
        found = next(iter(smaller if len(spilt) > 1 and smaller else self.rest), None)
        if found is not None:
            self.rest.remove(found)
        return found

    def _filled(self, schedule: Schedule) -> float:
        """Results of a program for each register that it may have."""
        sides = [size for dim, size in schedule.tiles.items() if dim not in schedule.reduce]
        threads = schedule.extra("warps", 1) * self.machine.limit("warp_size")
        room = min(threads * self.machine.limit("registers_per_thread"), self.machine.limit("registers_per_sm"))
        return math.prod(sides) / room


def _what_is_held(schedule: Schedule) -> tuple[object, ...]:
    """Tiles that a program keeps whole and threads that they are spread over; whether a loop folds or goes by again is no matter."""
    resident = {dim for dim, mode in schedule.reduce.items() if mode == "resident"}
    return dict(schedule.tiles), resident, schedule.extra("warps", 1)


def build(
    module: Module, kernels: Mapping[str, KernelInfo], tuner: Tuner, backend: Backend, tick: Callable[[], None]
) -> dict[str, Compiled]:
    """Build every kernel, and those whose code is not as it was priced with other schedules too, in place; what the compiler reported.

    A replayed schedule stays: it is priced by what was reported, and nothing else is tried.
    """
    outcomes = backend.build(kernels.values(), tick)
    trials = []
    for name, outcome in outcomes.items():
        info = kernels[name]
        if outcome.error or outcome.spills:
            rest = [] if info.replayed else list(info.tuned.programs)
            priced = {info.tuned.schedule: info.tuned.seconds}
            trials.append(_Trials(info, tuner.machine, [_attempt(info, outcome, tuner)], priced, rest))
    while any(list(_round(module, trials, tuner, backend))):
        pass
    changed = [trial for trial in trials if trial.best is not trial.done[0]]
    for trial in trials:
        _settle(module, trial)
    if changed:
        outcomes.update(backend.build([trial.info for trial in changed], lambda: None))
    for trial in trials:
        outcomes[trial.info.kernel.name].tried = [
            Tried(
                schedule=attempt.tuned.schedule.to_json(),
                priced_seconds=trial.priced[attempt.tuned.schedule],
                seconds=attempt.seconds if math.isfinite(attempt.seconds) else None,
                why=attempt.why or "slower",
            )
            for attempt in trial.done
            if attempt is not trial.best
        ]
    return outcomes


def _round(module: Module, trials: list[_Trials], tuner: Tuner, backend: Backend) -> Iterator[bool]:
    """Compile the next schedule of every kernel that has one, together."""
    open_trials: dict[str, tuple[_Trials, Candidate]] = {}
    for trial in trials:
        candidate = trial.following()
        while candidate is not None:
            try:
                _apply(module, trial.info, candidate.schedule, tuner)
            except ScheduleError:  # the group as it is now has no kernel of this schedule
                candidate = trial.following()
                continue
            open_trials[trial.info.kernel.name] = trial, candidate
            break
    if not open_trials:
        return
    outcomes = backend.build([trial.info for trial, _ in open_trials.values()], lambda: None)
    for name, (trial, candidate) in open_trials.items():
        info = trial.info
        trial.priced[info.tuned.schedule] = candidate.seconds
        trial.done.append(_attempt(info, outcomes[name], tuner))
        yield True


def _apply(module: Module, info: KernelInfo, schedule: Schedule, tuner: Tuner) -> None:
    """Give a kernel another schedule."""
    tuned = tuner.predict(info.normalized, schedule, info.kernel.name)
    group, name = info.normalized, info.kernel.name
    kernel = lower(group.fusion, tuned.schedule, name=name, bounds=module.bounds(), outputs=group.outputs)
    kernel.location = info.kernel.location
    _take(module, info, kernel, tuned.searched_as(info.tuned))


def _attempt(info: KernelInfo, outcome: Compiled, tuner: Tuner) -> _Attempt:
    """A kernel's schedule at its price by what was reported of its code; with an error where the machine has no room for that."""
    tuned, reported = info.tuned, _reported(outcome)
    if reported is not None:
        try:
            again = tuner.predict(info.normalized, tuned.schedule, info.kernel.name, reported)
            spilt = f", {outcome.spills:,} B spilt" if outcome.spills else ""
            remark = f"priced as compiled: {reported.registers} registers a thread{spilt}"
            tuned = replace(again.searched_as(tuned), remarks=(*again.remarks, remark))
        except ScheduleError as error:
            outcome.error = error.one_line()
    return _Attempt(info.kernel, tuned, outcome)


def _reported(outcome: Compiled) -> Reported | None:
    if outcome.error or outcome.registers is None or outcome.shared_bytes is None or not outcome.warps:
        return None
    spilled = (outcome.spills or 0) / 2.0  # each byte is stored once and loaded once
    return Reported(outcome.registers, outcome.warps, outcome.shared_bytes, spilled)


def _settle(module: Module, trial: _Trials) -> None:
    """Take the best of what was compiled."""
    _take(module, trial.info, trial.best.kernel, trial.best.tuned)


def _take(module: Module, info: KernelInfo, kernel: Kernel, tuned: Tuned) -> None:
    info.kernel, info.tuned = kernel, tuned
    module.kernels[kernel.name] = kernel
