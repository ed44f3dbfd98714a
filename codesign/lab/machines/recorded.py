"""A workload whose answers are runs of a study: kept in its database by what they follow from, and done by whoever helps with it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codesign.costmodel.faults import fault
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule
from codesign.ir.text import print_module, print_op
from codesign.lab.crew import Crew, crew
from codesign.lab.database import Database, Run, Stretch
from codesign.lab.engine import Done, Record, Study
from codesign.lab.machines.workload import Ask, Outcome, Priced, Workload
from codesign.lab.models import captured
from codesign.lab.prices import Prices
from codesign.lab.problem import digest
from codesign.lab.rows import WrongRow, read_json
from codesign.passes.knobs import foreign
from codesign.passes.schedule.store import sources_version

HELD, CHOSEN, FUSED = "schedules held", "schedules chosen again", "fused anew"
BUDGET = "1 machine"
BEFORE = "schedule before, of "
"""What a knob of a variant is called that says which schedule a kernel had before."""


class _Part(BaseModel):
    """A kernel on a variant, as it must be in a file; `schedule`: where it is another than the workload's own."""

    model_config = ConfigDict(extra="forbid")
    seconds: float | None
    joules: float | None
    bound: str
    schedule: dict[str, Any] | None = None


class _Kept(BaseModel):
    """An outcome, as it must be in a file."""

    model_config = ConfigDict(extra="forbid")
    seconds: float | None
    joules: float | None
    why: str
    parts: list[_Part]
    kernels: dict[str, str] = Field(default_factory=dict)


class Variants:
    """Answers asks about a workload, each a run whose problem is the variant of the machine."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def pricer(self, run: Run) -> Callable[[], Prices] | None:
        """A machine has no schedules to be priced."""
        return None

    def do(self, run: Run, *, prices: Prices | None, past: Sequence[Stretch], record: Record) -> Done:
        """Price the model on the variant."""
        started = time.perf_counter()
        outcome = self.workload.outcome(ask_of(run))
        own = time.perf_counter() - started
        best = outcome.seconds if math.isfinite(outcome.seconds) else None
        kept = self._kept(outcome).model_dump(exclude_none=False)
        result = {"evaluations": 1, "best": best, "policy_seconds": own, "allowed": 1, "outcome": kept}
        return result, [Stretch(0, np.zeros(1, np.int64), np.array([outcome.seconds]), [(1, own)])]

    def _kept(self, outcome: Outcome) -> _Kept:
        parts = [
            _Part(
                seconds=_finite(part.seconds),
                joules=_finite(part.joules),
                bound=part.bound,
                schedule=None if part.schedule == own.schedule else part.schedule.to_json(),
            )
            for part, own in zip(outcome.parts, self.workload.parts, strict=bool(outcome.parts))
        ]
        return _Kept(
            seconds=_finite(outcome.seconds),
            joules=_finite(outcome.joules),
            why=outcome.why,
            parts=parts,
            kernels=dict(outcome.kernels),
        )

    def outcome(self, result: Mapping[str, Any]) -> Outcome:
        """What is kept of a run; WrongRow where that is nothing which can be read."""
        try:
            kept = _Kept.model_validate(result.get("outcome"))
        except ValidationError as error:
            raise WrongRow(f"no outcome of a variant: {fault(error, _Kept)}") from error
        own = self.workload.parts
        if len(kept.parts) != (0 if kept.why or kept.kernels else len(own)):
            raise WrongRow("an outcome of other kernels")
        parts = [
            Priced(
                name=whose.name,
                seconds=np.inf if part.seconds is None else part.seconds,
                joules=np.nan if part.joules is None else part.joules,
                schedule=whose.schedule if part.schedule is None else _schedule(part.schedule),
                bound=part.bound,
            )
            for part, whose in zip(kept.parts, own, strict=False)
        ]
        seconds = np.inf if kept.seconds is None else kept.seconds
        joules = np.nan if kept.joules is None else kept.joules
        return Outcome(seconds, joules, tuple(parts), kept.why, kept.kernels)


class Recorded(Workload):
    """A workload that asks its database first, and then its crew."""

    def __init__(self, workload: Workload, study: Study, hands: Crew) -> None:
        super().__init__(*(getattr(workload, entry.name) for entry in fields(Workload)))
        self.study = study
        self.hands = hands
        self._key = key_of(workload)

    def outcomes(self, asks: Sequence[Ask], tick: Callable[[], None] = lambda: None) -> list[Outcome]:
        """The answers in order, each evaluated once whoever asks."""
        assert isinstance(self.study.doer, Variants)
        described = [self._described(ask) for ask in asks]
        problems = [digest([self._key, description["knobs"]]) for description in described]
        runs = [
            Run(digest([problem, how]), problem, how, BUDGET, 0)
            for problem, how in zip(problems, map(_how, asks), strict=True)
        ]
        keys = [run.key for run in runs]
        database = self.study.database
        known = database.results(keys)
        for key in keys:
            if key in known:
                tick()
        if len(known) < len(set(keys)):
            rows = [
                {"key": key, "name": self.name, "machine": self.machine.name, "description": description}
                for key, description in zip(problems, described, strict=True)
            ]
            database.extend(self.study.name, rows, runs)
            self.hands.work(tick)
            known = database.results(keys)
        try:
            return [self.study.doer.outcome(known[key]) for key in keys]
        except WrongRow as error:
            raise database.wrong(str(error)) from error

    def _described(self, ask: Ask) -> dict[str, Any]:
        """A variant as the database has problems: each figure a knob of one value."""
        knobs: list[Any] = [[figure, [float(value)]] for figure, value in ask.figures.items()]
        own = {part.name: part.schedule for part in self.parts}
        knobs += [
            [BEFORE + name, [json.dumps(schedule.to_json(), sort_keys=True)]]
            for name, schedule in ask.before.items()
            if schedule != own[name]
        ]
        return {"name": self.name, "machine": self.machine.name, "knobs": knobs, "measured": False}


def _how(ask: Ask) -> str:
    return FUSED if ask.fuse else CHOSEN if ask.choose else HELD


def ask_of(run: Run) -> Ask:
    """What a run is to answer; WrongRow where it is none that answers anything."""
    assert run.description is not None
    knobs = {str(name): values for name, values in run.description["knobs"]}
    figures, before = dict[str, float](), dict[str, Schedule]()
    for name, values in knobs.items():
        if len(values) != 1 or isinstance(values[0], str) is not name.startswith(BEFORE):
            raise WrongRow(f"problems: {name[:80]!r} must be one value of a variant")
        if name.startswith(BEFORE):
            before[name.removeprefix(BEFORE)] = _schedule(read_json(values[0]))
        else:
            figures[name] = float(values[0])
    if run.policy not in (HELD, CHOSEN, FUSED):
        raise WrongRow(f"runs: {run.policy[:40]!r} answers nothing of a variant")
    return Ask(figures, run.policy == CHOSEN, run.policy == FUSED, before)


def _schedule(data: Any) -> Schedule:
    try:
        return Schedule.from_json(data)
    except ScheduleError as error:
        raise WrongRow(f"a schedule: {error.message}") from error


@contextmanager
def recorded(
    workload: Workload,
    path: Path,
    question: str,
    *,
    jobs: int = 1,
    ray: bool = False,
    address: str | None = None,
) -> Iterator[Recorded]:
    """A workload whose answers are kept in a database; `question`: what sets this study apart from others about the same workload."""
    if jobs > 1 or ray:
        workload.ready()
    database = Database(path)
    name = f"what if {workload.name} on {workload.machine.name}: {digest([key_of(workload), question])[:12]}"
    study = Study(name, Variants(workload), database)
    try:
        with crew(study, jobs=jobs, ray=ray, address=address) as hands:
            yield Recorded(workload, study, hands)
    finally:
        database.close()


def key_of(workload: Workload) -> str:
    """A hash of all that the answers follow from, besides what is asked."""
    parts = [
        [part.name, part.count, replace(part.summary, name=""), part.schedule.to_json(), dict(part.sizes)]
        for part in workload.parts
    ]
    calls = [[print_op(op), count] for op, count in workload.externals]
    text = "" if workload.file is None else print_module(captured(workload.file).captured.module)
    own = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("[vw]*.py"))]
    facts = [
        parts,
        calls,
        text,
        dict(workload.sizes),
        workload.machine.model_dump_json(),
        sources_version(),
        foreign(),
        own,
    ]
    return digest(facts)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
