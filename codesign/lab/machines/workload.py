"""A compiled model that is priced again on variants of its machine: what does not depend on a figure is made once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from codesign.costmodel.external import external_seconds
from codesign.costmodel.machine import Machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import KernelSummary
from codesign.documents import EXTERNAL
from codesign.ir.core import Op
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.lab.machines.variants import variant
from codesign.lab.models import compiled
from codesign.passes.knobs import predict
from codesign.passes.schedule.build import space
from codesign.pipeline import Compilation
from codesign.totals import times_run

POOL = 512
"""Schedules of a kernel that are priced on every variant of the machine, before steps from the best of them."""
FRONT = 3
ROUNDS = 8
WHOLE = 1 << 18
"""Points of a space up to which the pool is taken from all of its prices."""
TIE = 1e-3
"""By how much another schedule must be better than the one before to be chosen in its stead."""


@dataclass
class Part:
    """One kernel of the model: `count` launches, and the schedule chosen for the machine as it is."""

    name: str
    count: float
    summary: KernelSummary
    schedule: Schedule
    sizes: Mapping[str, int]
    pool: ScheduleBatch | None = None


@dataclass(frozen=True)
class Priced:
    """A kernel on a variant: seconds and joules of all its launches, its schedule and what bounds it."""

    name: str
    seconds: float
    joules: float
    schedule: Schedule
    bound: str


@dataclass(frozen=True)
class Ask:
    """What may be asked of a model: its time where figures of the machine have other values, under the schedules that it has or under the
    best ones there (`choose`). A kernel stays with its schedule from `before` where that is as good as its best.

    `fuse`: compiled there from its fusion on; the kernels may be others.
    """

    figures: Mapping[str, float]
    choose: bool = False
    fuse: bool = False
    before: Mapping[str, Schedule] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A model on a variant of its machine; `seconds` is infinite where a schedule that was held does not fit.

    `why`: what is wrong with the variant, where it can't be priced at all. `kernels`: of one that was fused anew, the names of its kernels
    by what they compute; `parts` is empty then.
    """

    seconds: float
    joules: float
    parts: tuple[Priced, ...]
    why: str = ""
    kernels: Mapping[str, str] = field(default_factory=dict)

    def known(self) -> Outcome:
        """Itself; CodesignError where the variant can't be priced."""
        if self.why:
            raise CodesignError(self.why)
        return self

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The schedule of each kernel."""
        return {part.name: part.schedule for part in self.parts}


@dataclass
class Workload:
    """A model on a machine, ready to be priced on others like it. `externals`: calls that are not compiled, and how often each runs;
    `file`: where the model is from, by which it can be fused anew."""

    name: str
    machine: Machine
    parts: Sequence[Part]
    externals: Sequence[tuple[Op, float]] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    file: Path | None = None

    @staticmethod
    def of(compilation: Compilation) -> Workload:
        """From a compilation."""
        sizes = compilation.document.symbols
        counts = {kernel.name: float(kernel.count) for kernel in compilation.document.kernels}
        parts = [
            Part(
                name=name,
                count=counts[name],
                summary=info.tuned.summary,
                schedule=info.tuned.schedule,
                sizes=info.tuned.summary.sizes(sizes),
            )
            for name, info in compilation.kernels.items()
        ]
        calls = [(op, n) for op, n in times_run(compilation.tiled.main.body, sizes) if isinstance(op, EXTERNAL)]
        return Workload(compilation.document.model, compilation.machine, parts, calls, sizes)

    @cached_property
    def base(self) -> Outcome:
        """The model on the machine as it is."""
        return self.price(self.machine)

    def outcomes(self, asks: Sequence[Ask], tick: Callable[[], None] = lambda: None) -> list[Outcome]:
        """The answers in order."""
        found = []
        for ask in asks:
            found.append(self.outcome(ask))
            tick()
        return found

    def outcome(self, ask: Ask) -> Outcome:
        """The answer to one."""
        try:
            machine = variant(self.machine, ask.figures)
            return self._fused(machine) if ask.fuse else self.price(machine, choose=ask.choose, before=ask.before)
        except (CodesignError, ValueError, ZeroDivisionError, OverflowError) as error:
            return Outcome(np.inf, np.nan, (), _why(error))

    def ready(self) -> None:
        """Make what is made once, so that it is not made again by everybody whom this is handed to."""
        for part in self.parts:
            part.pool = part.pool or _pool(part, self.machine)

    def price(self, machine: Machine, *, choose: bool = False, before: Mapping[str, Schedule] | None = None) -> Outcome:
        """The model on a variant, under the schedules that it has, or under the best ones there (`choose`).

        One that is as good as its best stays with the schedule from `before`.
        """
        before = before or {}
        found = []
        for part in self.parts:
            kept = before.get(part.name, part.schedule)
            schedule = self._best(part, machine, kept) if choose else kept
            cost = _price(part, machine, ScheduleBatch.of([schedule]))
            seconds, joules = part.count * float(cost.seconds[0]), part.count * float(cost.joules[0])
            found.append(
                Priced(part.name, seconds, joules, schedule, cost.bound(0) if np.isfinite(seconds) else "does not fit")
            )
        outside = sum(n * external_seconds(op, machine, self.sizes).seconds for op, n in self.externals)
        total = sum(part.seconds for part in found) + outside
        return Outcome(total, sum(part.joules for part in found), tuple(found))

    def _fused(self, machine: Machine) -> Outcome:
        assert self.file is not None
        compilation = compiled(self.file, machine)
        kernels = {kernel.structure: kernel.name for kernel in compilation.plan.kernels}
        document = compilation.document
        joules = document.energy_joules
        return Outcome(document.seconds, math.nan if joules is None else joules, (), kernels=kernels)

    def _best(self, part: Part, machine: Machine, kept: Schedule) -> Schedule:
        """The best schedule on a variant: of the pool, then by steps from the best of it."""
        if part.pool is None:
            part.pool = _pool(part, self.machine)
        batch, cost = part.pool, _price(part, machine, part.pool)
        there = space(part.summary, machine, part.sizes)
        best_seconds, best = np.inf, kept
        seen: set[bytes] = set()
        for _ in range(ROUNDS):
            order = np.argsort(cost.seconds, kind="stable")[:FRONT]
            if cost.seconds[order[0]] >= best_seconds:
                break
            best_seconds, best = float(cost.seconds[order[0]]), batch.row(int(order[0]))
            codes = there.codes_of(batch.take(order[np.isfinite(cost.seconds[order])]))
            codes = there.neighbours(codes[(codes >= 0).all(axis=1)])
            codes = codes[[code.tobytes() not in seen for code in codes]]
            if not len(codes):
                break
            seen.update(code.tobytes() for code in codes)
            batch = there.batch(codes)
            cost = _price(part, machine, batch)
        stays = float(_price(part, machine, ScheduleBatch.of([kept])).seconds[0])
        return kept if stays <= best_seconds * (1.0 + TIE) else best


def workload(path: Path, machine: Machine) -> Workload:
    """A model from its file, compiled for a machine without building kernels."""
    return replace(Workload.of(compiled(path, machine)), file=path)


def _price(part: Part, machine: Machine, batch: ScheduleBatch) -> CostBatch:
    with np.errstate(divide="ignore", invalid="ignore"):  # of schedules that do not fit
        return predict(cost_model_for(machine), part.summary, machine, batch, part.sizes)


def _pool(part: Part, machine: Machine) -> ScheduleBatch:
    """The best schedules on the machine as it is, and others spread evenly over the rest by their price."""
    everything = space(part.summary, machine, part.sizes)
    if everything.points <= WHOLE:
        codes = np.concatenate([*everything.enumerate(), everything.start()[:0]])
    else:
        codes = everything.sample(WHOLE // 16, np.random.default_rng(0))
    seconds = _price(part, machine, everything.batch(codes)).seconds if len(codes) else np.zeros(0)
    order = np.argsort(seconds, kind="stable")
    rest = order[POOL // 2 :]
    spread = rest[np.unique(np.linspace(0, max(len(rest) - 1, 0), POOL // 2).astype(np.int64))] if len(rest) else rest
    return everything.batch(codes[np.concatenate([order[: POOL // 2], spread])])


def _why(error: Exception) -> str:
    """Why there is no price, and of which kernel."""
    if not isinstance(error, CodesignError):
        return str(error)
    return f"{error.place}: {error.message}" if error.place else error.message
