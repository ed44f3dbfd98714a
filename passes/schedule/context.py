"""What a policy may see and do: the kernel, the machine, a budget of evaluations, and the only way to a cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from codesign.costmodel.machine import Machine
from codesign.costmodel.models import PRICE_OF_A_PRICE, cost_model_for
from codesign.costmodel.protocol import ALL, NEAR, CostBatch, CostModel, Limit, Selective
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tiling.domain import SMALLEST_DOT
from codesign.passes.knobs import predict

LOOKED_AT = 1024
"""Schedules of a batch among which programs that differ are looked for."""

CLOSE = 2e-3
"""A schedule is as good as any where it takes no more than this share longer than what no schedule beats."""


@dataclass(frozen=True)
class Candidate:
    """One evaluated schedule that fits."""

    schedule: Schedule
    seconds: float


@dataclass
class Context:
    """Surroundings of one search.

    `budget`: schedules that may be evaluated (None: no limit); `rng`: seeded, so searches repeat. `glanced`: what quicker prices have cost,
    in schedules evaluated. `below`: seconds that are asked for: a policy may end where it can't come below (`gave_up`). `closely`: whether the
    best schedule is asked for; else a price near it will do, and a policy may end where it comes near the `floor`, seconds that no schedule
    beats (`arrived`), or where more steps bring next to nothing (`settled`).
    """

    summary: KernelSummary
    machine: Machine
    model: CostModel
    sizes: Mapping[str, int] = field(default_factory=dict)
    budget: int | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    evaluated: int = 0
    glanced: float = 0.0
    batches: list[tuple[ScheduleBatch, CostBatch]] = field(default_factory=list)
    limit: Limit = ALL
    below: float = math.inf
    floor: float = 0.0
    closely: bool = True
    gave_up: bool = False
    settled: bool = False

    @property
    def limited(self) -> bool:
        """Whether a budget ends the search, if nothing else does."""
        return self.budget is not None

    @property
    def remaining(self) -> int:
        """Schedules that may still be evaluated (a large number when there is no limit)."""
        return 1 << 30 if self.budget is None else max(self.budget - self.evaluated - math.ceil(self.glanced), 0)

    @cached_property
    def short(self) -> tuple[str, ...]:
        """Reduced dims shorter than a side of a matrix product, and of none; none where the kernel is not known."""
        return () if self.summary is None else _short(self.summary, self.sizes)

    @property
    def quicker(self) -> int | None:
        """The fidelity below that of the search, which prices sooner and less well; None when there is none."""
        return self.model.fidelity - 1 if self.summary is not None and self.model.fidelity > 0 else None

    def glances(self, share: float) -> int:
        """How many schedules may be glanced at for a share of what is left of the budget."""
        if self.quicker is None:
            return 0
        return int(share * self.remaining * PRICE_OF_A_PRICE[self.model.fidelity] / PRICE_OF_A_PRICE[self.quicker])

    def glance(self, batch: ScheduleBatch) -> CostBatch:
        """Cost of a batch at the fidelity below, charged by what such a price takes; ScheduleError when that is more than what is left."""
        if self.quicker is None or len(batch) > self.glances(1.0):
            raise ScheduleError(f"{len(batch):,} schedules can't be glanced at, {self.glances(1.0):,} can")
        self.glanced += len(batch) * PRICE_OF_A_PRICE[self.quicker] / PRICE_OF_A_PRICE[self.model.fidelity]
        return predict(cost_model_for(self.machine, self.quicker), self.summary, self.machine, batch, self.sizes)

    def evaluate(self, batch: ScheduleBatch, best: int = 0) -> CostBatch:
        """Cost of a batch, charged to the budget; ScheduleError when it is larger than what is left.

        Where no more than the `best` ones so far are wanted (0: all), others may have what they take at the least."""
        if len(batch) > self.remaining:
            raise ScheduleError(
                f"a batch of {len(batch):,} schedules, but only {self.remaining:,} of the budget are left"
            )
        limit, model = replace(self.limit, best=best), self.model
        model = model.within(limit) if best and isinstance(model, Selective) else model
        cost = predict(model, self.summary, self.machine, batch, self.sizes)
        self.limit = limit.after(cost.seconds[cost.followed])
        self.evaluated += len(cost)
        self.batches.append((batch, cost))
        return cost

    @property
    def fastest(self) -> float:
        """Seconds of the best schedule evaluated so far."""
        return min((float(cost.seconds.min()) for _, cost in self.batches if len(cost)), default=math.inf)

    @property
    def arrived(self) -> bool:
        """Whether the best schedule so far is as good as any can be, for who asks for a price."""
        return not self.closely and self.fastest <= (1.0 + CLOSE) * self.floor

    def leanest(self) -> tuple[Schedule, float] | None:
        """Of the schedules whose time is near the best, the one that moves the fewest bytes of DRAM, with its time."""
        found: tuple[float, float, Schedule] | None = None
        best = self.fastest
        for batch, cost in self.batches:
            near = np.flatnonzero(cost.followed & (cost.seconds <= best * (1.0 + NEAR)))
            if not len(near) or not np.isfinite(best):
                continue
            row = int(near[np.lexsort((cost.seconds[near], cost.dram_bytes[near]))[0]])
            moved, seconds = float(cost.dram_bytes[row]), float(cost.seconds[row])
            if found is None or (moved, seconds) < found[:2]:
                found = (moved, seconds, batch.row(row))
        return None if found is None else (found[2], found[1])

    def top(self, count: int) -> list[Candidate]:
        """The best distinct schedules evaluated so far, fastest first."""
        return self._distinct(count, count, frozenset())

    def programs(self, count: int) -> list[Candidate]:
        """The best schedules evaluated so far, fastest first, of those that differ in the order of the grid alone the best."""
        return self._distinct(count, LOOKED_AT, frozenset({"group"}))

    def _distinct(self, count: int, looked_at: int, apart_from: frozenset[str]) -> list[Candidate]:
        """The best schedules, among so many of each batch, that differ in more than some knobs."""
        best: list[tuple[float, int, int]] = []
        for position, (_, cost) in enumerate(self.batches):
            rows = np.flatnonzero(cost.followed)
            if len(rows) > 4 * looked_at:  # only those that can be among the best, ties with the last included
                rows = rows[cost.seconds[rows] <= np.partition(cost.seconds[rows], looked_at)[looked_at]]
            rows = rows[np.argsort(cost.seconds[rows], kind="stable")][: looked_at + 1]
            best += [(float(cost.seconds[row]), position, int(row)) for row in rows if np.isfinite(cost.seconds[row])]
        found: dict[tuple[int, ...], Candidate] = {}
        for seconds, position, row in sorted(best):
            batch = self.batches[position][0]
            columns = [column for name, column in batch.columns.items() if name not in apart_from]
            key = tuple(int(column[row if len(column) > 1 else 0]) for column in columns)
            if key not in found:
                found[key] = Candidate(batch.row(row), seconds)
            if len(found) == count:
                break
        return list(found.values())

    def rejected(self) -> dict[str, tuple[int, str]]:
        """Why schedules did not fit: for each kind of reason, how many and one example in full."""
        kinds: dict[str, tuple[int, str]] = {}
        for _, cost in self.batches:
            for text in cost.reason[cost.reason != ""]:
                kind = str(text).partition(":")[0]
                count, example = kinds.get(kind, (0, str(text)))
                kinds[kind] = (count + 1, example)
        return kinds


def _short(summary: KernelSummary, sizes: Mapping[str, int]) -> tuple[str, ...]:
    products = [nest.contraction for nest in summary.nests if nest.contraction is not None]
    multiplied = {dim for one in products for dim in (*one.batch, *one.m, *one.n, *one.k)}
    extents = {dim: summary.extents[dim].evaluate(sizes) for dim in summary.inner}
    return tuple(dim for dim, extent in extents.items() if extent < SMALLEST_DOT and dim not in multiplied)
