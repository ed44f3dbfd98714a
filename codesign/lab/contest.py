"""A study of policies: each on every kernel, machine and measured space, under every budget, with every seed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from codesign.command import Steps, need
from codesign.ir.errors import CodesignError
from codesign.lab.arena import Arena, compete
from codesign.lab.crew import crew
from codesign.lab.database import Database, Run, Stretch, usable
from codesign.lab.engine import Done, Record, Study
from codesign.lab.kernels import problems
from codesign.lab.plan import PolicyPlan, StudyPlan
from codesign.lab.prices import Prices, price_all
from codesign.lab.problem import Problem, digest
from codesign.lab.random_search import evaluations_until
from codesign.lab.rows import WrongRow
from codesign.passes.fusion.policy import policy_named
from codesign.passes.schedule.policy import POLICIES, make_policy


class Contest:
    """The runs of a plan, and how they are done; another process makes the problems for itself."""

    def __init__(self, plan: StudyPlan, made: Sequence[Problem] | None = None) -> None:
        self.plan = plan
        self.problems = {p.key: p for p in (problems(plan) if made is None else made)}
        self._runs = {run.key: run for run in self.runs()}

    def __reduce__(self) -> Any:
        return Contest, (self.plan,)

    def runs(self) -> list[Run]:
        """Every policy on every problem under every budget with every seed."""
        identities = {policy.label: identity(policy) for policy in self.plan.policies}
        found: list[Run] = []
        for problem in self.problems.values():
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

    def pricer(self, run: Run) -> Callable[[], Prices] | None:
        """How all prices of a run's problem are made, where its space is small enough."""
        problem = self.problems[self._own(run).problem]
        return partial(price_all, problem) if problem.tabulated else None

    def _own(self, run: Run) -> Run:
        """A run as the plan has it, which may call its policy otherwise than the study that entered it."""
        own = self._runs.get(run.key)
        if own is None or (own.problem, own.seed) != (run.problem, run.seed):
            raise WrongRow(f"runs: {run.key[:12]} has another problem or seed than its key says")
        return own

    def do(self, run: Run, *, prices: Prices | None, past: Sequence[Stretch], record: Record) -> Done:
        """Let the run's policy search."""
        run = self._own(run)
        problem = self.problems[run.problem]
        if problem.model is not None:
            return fuse(problem, run.policy.removeprefix("fusion "))
        policy = next(p for p in self.plan.policies if p.label == run.policy)
        budget = next(b for b in self.plan.budgets if b.label == run.budget)
        evaluations = budget.evaluations
        if budget.cutoff is not None:
            if prices is None:
                raise CodesignError(
                    f"{problem.name} on {problem.machine}: a cutoff needs all prices, of {problem.space.points:,} schedules",
                    hint="give a budget of evaluations or seconds",
                )
            evaluations = evaluations_until(prices.seconds, budget.cutoff)
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
            table=prices,
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


def fuse(problem: Problem, fusion: str) -> Done:
    """A whole model under a fusion policy: its predicted time, and the seconds that deciding and scheduling took."""
    from codesign.lab.models import compiled
    from codesign.pipeline import Options

    assert problem.model is not None
    assert problem.target is not None
    options = Options(fusion=fusion, verify=False, kernels=False, reuse=False)
    document = compiled(problem.model, problem.target, options).document
    own = document.phases.get("passes", 0.0) + document.phases.get("schedule", 0.0)
    result: Mapping[str, Any] = {"evaluations": 1, "best": document.seconds, "policy_seconds": own, "allowed": 1}
    return result, [Stretch(0, np.zeros(1, np.int64), np.array([document.seconds]), [(1, own)])]


def identity(policy: PolicyPlan) -> list[Any]:
    """What a policy's choices follow from: its name and options, and the text of one that does not ship (those that do are part of the
    version that problems are keyed by)."""
    facts: list[Any] = [policy.policy, policy.options]
    if policy.policy not in POLICIES:
        made: Any = make_policy(policy.policy, policy.options)
        own = getattr(made, "adapts", None) or made
        written = own if inspect.isroutine(own) else type(own)
        try:
            text = Path(inspect.getfile(written)).read_bytes()
        except (OSError, TypeError):
            text = written.__qualname__.encode()
        facts.append(hashlib.sha256(text).hexdigest())
    return facts


def checked(plan: StudyPlan, steps: Steps | None = None) -> list[Problem]:
    """The problems of a plan; CodesignError when a policy can't be made or a problem has no schedule that fits."""
    for policy in plan.policies:
        make_policy(policy.policy, policy.options)
    for fusion in plan.fusions:
        policy_named(fusion)
    return problems(plan, steps)


def open_study(
    plan: StudyPlan, database: Database, steps: Steps | None = None, *, made: Sequence[Problem] | None = None
) -> Study:
    """Make the problems (unless they are `made`) and enter all runs."""
    contest = Contest(plan, checked(plan, steps) if made is None else made)
    described = [
        {"key": p.key, "name": p.name, "machine": p.machine, "description": p.describe()}
        for p in contest.problems.values()
    ]
    database.enter(plan.name, plan.model_dump(mode="json"), described, contest.runs())
    return Study(plan.name, contest, database)


def run_study(
    plan: StudyPlan,
    path: Path,
    *,
    jobs: int = 1,
    steps: Steps | None = None,
    ray: bool = False,
    address: str | None = None,
) -> Database:
    """Do a study in this process and `jobs` - 1 others, which share the database; returns it with every run done.

    `ray`: with `jobs` workers of the Ray cluster at `address`, or of one started here.
    """
    if ray:
        need("ray", "ray")
    usable(path)
    steps = steps or Steps(None)
    made = checked(plan, steps)
    database = Database(path)
    study = open_study(plan, database, steps, made=made)
    with crew(study, jobs=jobs, ray=ray, address=address) as hands:
        done, total = database.progress(plan.name)
        hands.work(steps.each(f"study {plan.name}", total, done))
    return database
