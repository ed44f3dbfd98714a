"""Where a policy meets a problem: every price goes through here, is charged to the budget, and is recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.protocol import CostBatch
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import ScheduleBatch
from codesign.lab.database import GLANCE, Stretch
from codesign.lab.memory import keep_freed_memory
from codesign.lab.prices import Prices, masked, plain
from codesign.lab.problem import Floats, Problem
from codesign.passes.schedule.context import Context
from codesign.passes.schedule.policy import Policy, asked, proposal
from codesign.passes.schedule.space import Ints

CHUNK = 1 << 18
FLUSH_SECONDS = 1.0
MARKED_MAP = 1 << 27
"""Points of a space up to which a map says which were evaluated."""


@dataclass
class Arena(Context):
    """The context of a policy in a study.

    The budget counts distinct schedules: one that is proposed again is answered from what is known, up to `patience` times the budget.
    `past`: what an earlier run of the same policy recorded, which is answered without pricing it again (seconds and whether it fits; a policy
    that reads more of a price than that, on a space too large for a table, may go on differently). `seconds_budget`: of the policy's own time.
    """

    problem: Problem = field(kw_only=True)
    table: Prices | None = None
    past: Sequence[Stretch] = ()
    record: Callable[[list[Stretch]], None] = lambda stretches: None
    seconds_budget: float | None = None
    patience: int = 20
    spent: float = 0.0
    best: float = np.inf

    def __post_init__(self) -> None:
        points = self.problem.space.points
        self._mapped = points <= MARKED_MAP
        self._known = np.zeros(points if self._mapped else 0, dtype=np.int32)
        self._seconds: dict[int, float] = {}
        self._repeats = 0
        self._fresh: list[tuple[Ints, Floats]] = []
        self._marks: list[tuple[int, float]] = []
        self._start = sum(len(stretch.numbers) for stretch in self.past)
        self._recorded = self._start
        self._flushed = time.monotonic()
        self._replayed: dict[int, float] = {}
        self._elapsed: dict[int, float] = {}
        for stretch in self.past:
            if self.table is None:
                self._replayed.update(zip(stretch.numbers.tolist(), stretch.seconds.tolist(), strict=True))
            done = stretch.start
            for count, seconds in stretch.marks:
                done += count
                self._elapsed[done] = seconds
        self._replayed.pop(GLANCE, None)

    @property
    def done(self) -> int:
        """Rows of the record so far: schedules evaluated, and what glances took in their place."""
        return self.evaluated + math.ceil(self.glanced)

    @property
    def limited(self) -> bool:
        """Whether a budget ends the search, of schedules or of seconds."""
        return super().limited or self.seconds_budget is not None

    @property
    def exhausted(self) -> bool:
        """Whether the policy may not ask again."""
        if self.seconds_budget is not None and self.spent >= self.seconds_budget:
            return True
        return self.remaining <= 0 or self._repeats > self.patience * (self.budget or 1 << 16) + 1000

    def evaluate(self, batch: ScheduleBatch, best: int = 0) -> CostBatch:
        """Prices of a batch, of all of it whatever is wanted: each is recorded. ScheduleError when it is larger than what is left of the budget."""
        if len(batch) > self.remaining:
            raise ScheduleError(
                f"a batch of {len(batch):,} schedules, but only {self.remaining:,} of the budget are left"
            )
        numbers = self.problem.numbers(batch)
        fresh = self._first(numbers)
        cost = self._prices(batch, numbers)
        count = int(np.count_nonzero(fresh))
        self._repeats += len(numbers) - count
        self.evaluated += count
        if count:
            new = cost.seconds if count == len(numbers) else cost.seconds[fresh]
            self.best = min(self.best, float(new.min()))
            self._keep(numbers if count == len(numbers) else numbers[fresh], new)
        return cost

    def glance(self, batch: ScheduleBatch) -> CostBatch:
        """Prices of a batch at the fidelity below; what they take is recorded, where it comes to a whole evaluation."""
        before = self.done
        cost = super().glance(batch)
        taken = self.done - before
        if taken:
            self._keep(np.full(taken, GLANCE), np.full(taken, np.inf))
        return cost

    def _keep(self, numbers: Ints, seconds: Floats) -> None:
        """Record the latest rows, those of them that an earlier process did not."""
        beyond = self.done - self._recorded
        if beyond > 0:
            kept = slice(max(len(numbers) - beyond, 0), None)
            self._fresh.append((numbers[kept], seconds[kept]))
            self._recorded = self.done

    def mark(self, seconds: float) -> None:
        """So much time of its own the policy took for what it proposed last."""
        self.spent = self._elapsed.get(self.done, self.spent + seconds)
        recorded = self.done - self._start - sum(count for count, _ in self._marks)
        if recorded > 0:
            self._marks.append((recorded, self.spent))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand over what is new."""
        stretches = self.taken()
        if stretches:
            self.record(stretches)
        self._flushed = time.monotonic()

    def taken(self) -> list[Stretch]:
        """What is new, which is then no longer new."""
        if not self._fresh:
            return []
        numbers = np.concatenate([numbers for numbers, _ in self._fresh])
        seconds = np.concatenate([seconds for _, seconds in self._fresh])
        stretch = Stretch(self._start, numbers, seconds, self._marks)
        self._start += len(numbers)
        self._fresh, self._marks = [], []
        return [stretch]

    def _first(self, numbers: Ints) -> npt.NDArray[np.bool_]:
        """Which schedules of the space are seen for the first time; of equal ones in the batch the first."""
        if not self._mapped:
            flags = []
            for number in numbers.tolist():
                flags.append(number >= 0 and number not in self._seconds)
                self._seconds.setdefault(number, np.nan)
            return np.array(flags, dtype=np.bool_)
        known = self._known
        fresh: npt.NDArray[np.bool_] = (numbers >= 0) & (known[numbers] == 0)
        if (numbers[1:] > numbers[:-1]).all():  # none of the batch equals another
            known[numbers if fresh.all() else numbers[fresh]] = 1
        else:
            order = np.arange(1, len(numbers) + 1, dtype=np.int32)
            known[numbers[fresh][::-1]] = order[fresh][::-1]  # the first of equal ones is written last
            fresh &= known[numbers] == order
        return fresh

    def _prices(self, batch: ScheduleBatch, numbers: Ints) -> CostBatch:
        if self.table is not None:
            return self.table.answer(numbers)
        if self._replayed:
            old = np.array([self._replayed.get(number, np.nan) for number in numbers.tolist()])
            missing = np.isnan(old)
            if not missing.all():
                if missing.any():
                    old[missing] = self.problem.priced(batch.take(np.flatnonzero(missing))).seconds
                return plain(old)
        outside = numbers < 0
        cost = self.problem.priced(batch)
        return masked(cost, outside) if outside.any() else cost


def compete(policy: Policy, arena: Arena) -> Mapping[str, Any]:
    """Let a policy search until it is done or its budget is spent; the result in short. What is new at the end is still to be taken."""
    keep_freed_memory()
    started = time.perf_counter()
    with asked(policy):
        policy.start(arena.problem.space, arena)
    own = time.perf_counter() - started
    while not arena.exhausted:
        started = time.perf_counter()
        batch = proposal(policy, min(arena.remaining, CHUNK))
        own += time.perf_counter() - started
        if batch is None or not len(batch):
            break
        cost = arena.evaluate(batch)
        started = time.perf_counter()
        with asked(policy):
            policy.observe(batch, cost)
        own += time.perf_counter() - started
        arena.mark(own)
        own = 0.0
    best = float(arena.best) if np.isfinite(arena.best) else None
    return {"evaluations": arena.evaluated, "best": best, "policy_seconds": arena.spent, "allowed": arena.budget}
