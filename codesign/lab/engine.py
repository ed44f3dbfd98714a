"""Doing a study: its runs are entered into the database, and every process that works on it claims one after the other."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from codesign.command import Steps, need
from codesign.ir.errors import CodesignError
from codesign.lab.arena import Arena, compete
from codesign.lab.database import Database, Run, Stretch
from codesign.lab.kernels import problems
from codesign.lab.plan import PolicyPlan, StudyPlan
from codesign.lab.prices import Prices, price_all
from codesign.lab.problem import Problem, digest
from codesign.lab.random_search import evaluations_until
from codesign.passes.schedule.policy import POLICIES, make_policy

WATCH_SECONDS = 0.2


@dataclass
class Study:
    """A study that is being done: its plan, its problems, and the database that its rows go to."""

    plan: StudyPlan
    problems: Sequence[Problem]
    database: Database

    @staticmethod
    def open(plan: StudyPlan, database: Database, steps: Steps | None = None) -> Study:
        """Make the problems and enter all runs; CodesignError when a policy can't be made or a problem has no schedule that fits."""
        study = Study(plan, problems(plan, steps), database)
        for policy in plan.policies:
            make_policy(policy.policy, policy.options)
        described = [
            {"key": p.key, "name": p.name, "machine": p.machine, "description": p.describe()} for p in study.problems
        ]
        database.enter(plan.name, plan.model_dump(mode="json"), described, study.runs)
        return study

    @cached_property
    def runs(self) -> list[Run]:
        """Every policy on every problem under every budget with every seed."""
        identities = {policy.label: identity(policy) for policy in self.plan.policies}
        found: list[Run] = []
        for problem in self.problems:
            if problem.model is not None:
                found.extend(
                    Run(digest([problem.key, name]), problem.key, f"fusion {name}", "1 model", 0)
                    for name in self.plan.fusions
                )
                continue
            for policy in self.plan.policies:
                for budget in self.plan.budgets:
                    for seed in self.plan.seed_list:
                        facts = [problem.key, identities[policy.label], budget.model_dump(), seed]
                        found.append(Run(digest(facts), problem.key, policy.label, budget.label, seed))
        return found

    def work(self, steps: Steps | None = None, parent: int | None = None) -> None:
        """Claim runs and do them until there are none left (or the `parent` process has gone)."""
        done, total = self.database.progress(self.plan.name)
        tick = (steps or Steps(None)).each(f"study {self.plan.name}", total, done)
        while parent is None or os.getppid() == parent:
            run = self.database.claim(self.plan.name)
            if run is None:
                break
            self.do(run)
            tick()

    def do(self, run: Run) -> None:
        """Do one run that was claimed, from where it was left."""
        problem = self.problem(run)
        try:
            done = outcome(
                self.plan,
                problem,
                run,
                table=self.table(problem),
                past=self.database.stretches(run.key),
                record=lambda stretches: self.database.add(run.key, stretches),
            )
        except BaseException:
            self.database.release(run.key)
            raise
        self.database.finish(run.key, *done)

    def problem(self, run: Run) -> Problem:
        """The problem of a run."""
        return next(p for p in self.problems if p.key == run.problem)

    def table(self, problem: Problem) -> Prices | None:
        """All prices of a problem where they can be had."""
        if not problem.tabulated:
            return None
        if problem.key not in self._tables:
            self._tables[problem.key] = self.database.prices(problem.key, lambda: price_all(problem)) or price_all(
                problem
            )
        return self._tables[problem.key]

    @cached_property
    def _tables(self) -> dict[str, Prices]:
        return {}


def outcome(
    plan: StudyPlan,
    problem: Problem,
    run: Run,
    *,
    table: Prices | None,
    past: Sequence[Stretch] = (),
    record: Callable[[list[Stretch]], None] = lambda stretches: None,
) -> tuple[Mapping[str, Any], list[Stretch]]:
    """Do a run: its result, and what it evaluated that was not handed to `record` on the way.

    `table`: all prices of the problem, where they can be had; `past`: what was recorded of the run before.
    """
    if problem.model is not None:
        return fuse(problem, run.policy.removeprefix("fusion "))
    policy = next(p for p in plan.policies if p.label == run.policy)
    budget = next(b for b in plan.budgets if b.label == run.budget)
    evaluations = budget.evaluations
    if budget.cutoff is not None:
        if table is None:
            raise CodesignError(
                f"{problem.name} on {problem.machine}: a cutoff needs all prices, of {len(problem.space):,} schedules",
                hint="give a budget of evaluations or seconds",
            )
        evaluations = evaluations_until(table.seconds, budget.cutoff)
    summary: Any = problem.summary  # measured spaces have none, and no machine
    target: Any = problem.target
    arena = Arena(
        summary=summary,
        machine=target,
        model=ProblemPrices(problem),
        sizes=problem.sizes,
        budget=evaluations,
        rng=np.random.default_rng([run.seed, int(problem.key[:8], 16)]),
        problem=problem,
        table=table,
        past=past,
        record=record,
        seconds_budget=budget.seconds,
    )
    result = compete(make_policy(policy.policy, policy.options), arena)
    return result, arena.taken()


class ProblemPrices:
    """The prices of a problem as a cost model."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.fidelity = problem.fidelity

    def predict(self, kernel: Any, machine: Any, schedules: Any, sizes: Any = None) -> Any:
        return self.problem.priced(schedules)


def fuse(problem: Problem, fusion: str) -> tuple[Mapping[str, Any], list[Stretch]]:
    """A whole model under a fusion policy: its predicted time, and the seconds that deciding and scheduling took."""
    from codesign.lab.models import compiled
    from codesign.pipeline import Options

    assert problem.model is not None
    assert problem.target is not None
    options = Options(fusion=fusion, verify=False, kernels=False, reuse=False)
    document = compiled(problem.model, problem.target, options).document
    own = document.phases.get("passes", 0.0) + document.phases.get("schedule", 0.0)
    result = {"evaluations": 1, "best": document.seconds, "policy_seconds": own, "allowed": 1}
    return result, [Stretch(0, np.zeros(1, np.int64), np.array([document.seconds]), [(1, own)])]


def identity(policy: PolicyPlan) -> list[Any]:
    """What a policy's choices follow from: its name and options, and the text of one that does not ship (those that do are part of the
    version that problems are keyed by)."""
    facts: list[Any] = [policy.policy, policy.options]
    if policy.policy not in POLICIES:
        made = type(make_policy(policy.policy, policy.options))
        try:
            text = Path(inspect.getfile(made)).read_bytes()
        except (OSError, TypeError):
            text = made.__qualname__.encode()
        facts.append(hashlib.sha256(text).hexdigest())
    return facts


def run_study(
    plan: StudyPlan,
    path: Path,
    *,
    jobs: int = 1,
    steps: Steps | None = None,
    plan_file: Path | None = None,
    ray: bool = False,
    address: str | None = None,
) -> Database:
    """Do a study in this process and `jobs` - 1 others, which share the database; returns it with every run done.

    Other processes read the plan from `plan_file`. `ray`: with `jobs` workers of the Ray cluster at `address`, or of one started here.
    """
    if ray:
        need("ray", "ray")
    database = Database(path)
    steps = steps or Steps(None)
    study = Study.open(plan, database, steps)
    if ray:
        from codesign.lab.on_ray import work

        work(study, jobs, address, steps)
        return database
    if jobs > 1 and plan_file is None:
        raise CodesignError("several jobs need the study as a file", hint="give plan_file, or jobs=1")
    others = [_spawn(plan_file, path) for _ in range(jobs - 1)] if plan_file is not None else []
    try:
        study.work(steps)
        while any(other.poll() is None for other in others):
            time.sleep(WATCH_SECONDS)
        study.work(steps)  # what a helper that died has left
    finally:
        for other in others:
            if other.poll() is None:
                other.terminate()
    for other in others:
        if other.returncode not in (0, None):
            raise CodesignError(f"a helper process failed with exit code {other.returncode}", hint="--jobs 1 shows why")
    return database


def _spawn(plan_file: Path, path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "codesign.study", "run", str(plan_file), "--database", str(path)]
    environment = {**os.environ, "CODESIGN_STUDY_PARENT": json.dumps(os.getpid())}
    return subprocess.Popen([*command, "--quiet"], env=environment, stdout=subprocess.DEVNULL)
