"""A study on a cluster: Ray's workers do the runs, and this process alone claims them and writes their rows.

Each worker makes the study's problems for itself, so model files, measured spaces and policies of one's own must be at the same paths on
every computer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from codesign.command import Steps
from codesign.ir.errors import CodesignError
from codesign.lab.database import Run, Stretch
from codesign.lab.engine import Study, outcome
from codesign.lab.kernels import problems
from codesign.lab.plan import StudyPlan
from codesign.lab.prices import Prices


class Worker:
    """Does runs of a study, one after the other."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = StudyPlan.model_validate(plan)
        self.problems = {problem.key: problem for problem in problems(self.plan)}

    def do(self, run: Run, past: Sequence[Stretch], prices: bytes | None) -> Any:
        """What `engine.outcome` gives, or the words of what is wrong with the user's study."""
        table = None if prices is None else Prices.decoded(prices)
        try:
            return outcome(self.plan, self.problems[run.problem], run, table=table, past=past)
        except KeyError:
            return "a worker's kernel or machine differs from this computer's; install the same version there"
        except CodesignError as error:
            return error.one_line()


def work(study: Study, jobs: int, address: str | None, steps: Steps) -> None:
    """Do all runs of an opened study with so many workers: of the cluster at an address, or of one that is started here."""
    database, name = study.database, study.plan.name
    done, total = database.progress(name)
    tick = steps.each(f"study {name}", total, done)
    try:
        ray.init(address=address, num_cpus=None if address else jobs, include_dashboard=False, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CodesignError(
            f"Ray: {str(error).splitlines()[0]}", hint="--ray-address, or none for a local one"
        ) from error
    running: dict[Any, tuple[Run, Any]] = {}
    try:
        make = ray.remote(num_cpus=1)(Worker)
        idle = [make.remote(study.plan.model_dump(mode="json")) for _ in range(min(jobs, max(total - done, 1)))]
        prices: dict[str, Any] = {}
        while True:
            while idle:
                run = database.claim(name, {run.key for run, _ in running.values()})
                if run is None:
                    break
                worker = idle.pop()
                ready = worker.do.remote(run, database.stretches(run.key), _prices(study, run, prices))
                running[ready] = run, worker
            if not running:
                return
            (ready,), _ = ray.wait(list(running), num_returns=1)
            run, worker = running[ready]
            database.finish(run.key, *_done(ready))
            del running[ready]
            idle.append(worker)
            tick()
    finally:
        for run, _ in running.values():
            database.release(run.key)
        ray.shutdown()


def _prices(study: Study, run: Run, shared: dict[str, Any]) -> Any:
    """All prices of a run's problem, sent to the cluster once; None where they are not had."""
    problem = study.problem(run)
    if problem.key not in shared:
        table = study.table(problem)
        shared[problem.key] = None if table is None else ray.put(table.encoded())
    return shared[problem.key]


def _done(ready: Any) -> Any:
    """What a worker made of a run; CodesignError where it failed."""
    try:
        found = ray.get(ready)
    except ray.exceptions.RayError as error:
        raise CodesignError(
            f"a worker failed: {str(error).strip().splitlines()[-1]}", hint="--jobs 1 shows why"
        ) from error
    if isinstance(found, str):
        raise CodesignError(found)
    return found
