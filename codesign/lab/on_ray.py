"""A study on a cluster: Ray's workers do the runs, and this process alone claims them and writes their rows.

A worker makes the kernels of a study of policies for itself, so model files, measured spaces and policies of one's own must be at the same
paths on every computer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from codesign.ir.errors import CodesignError
from codesign.lab.crew import Crew
from codesign.lab.database import Run, Stretch
from codesign.lab.engine import Doer, Study
from codesign.lab.prices import Prices


class Worker:
    """Does runs of a study, one after the other."""

    def __init__(self, doer: Doer) -> None:
        self.doer = doer

    def do(self, run: Run, past: Sequence[Stretch], prices: bytes | None) -> Any:
        """What the run leaves, or the words of what is wrong with the user's study."""
        table = None if prices is None else Prices.decoded(prices)
        try:
            return self.doer.do(run, prices=table, past=past, record=lambda stretches: None)
        except KeyError:
            return "a worker's kernel or machine differs from this computer's; install the same version there"
        except CodesignError as error:
            return error.one_line()


class Cluster(Crew):
    """So many workers of the cluster at an address, or of one that is started here."""

    def __init__(self, study: Study, jobs: int, address: str | None) -> None:
        super().__init__(study)
        self.jobs = jobs
        self._idle: list[Any] = []
        self._workers = 0
        self._running: dict[Any, tuple[Run, Any]] = {}
        self._shared: dict[str, Any] = {}
        try:
            ray.init(address=address, num_cpus=None if address else jobs, include_dashboard=False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "--ray-address, or none for a local one"
            raise CodesignError(f"Ray: {str(error).splitlines()[0]}", hint=hint) from error
        self._doer = ray.put(study.doer)

    def work(self, tick: Callable[[], None] = lambda: None) -> None:
        """Do all runs that are open."""
        database, name = self.study.database, self.study.name
        done, total = database.progress(name)
        make = ray.remote(num_cpus=1)(Worker)
        more = min(self.jobs, total - done) - self._workers
        self._idle += [make.remote(self._doer) for _ in range(more)]
        self._workers += max(more, 0)
        while True:
            while self._idle:
                run = database.claim(name, {run.key for run, _ in self._running.values()})
                if run is None:
                    break
                worker = self._idle.pop()
                ready = worker.do.remote(run, database.stretches(run.key), self._prices(run))
                self._running[ready] = run, worker
            if not self._running:
                break
            (ready,), _ = ray.wait(list(self._running), num_returns=1)
            run, worker = self._running[ready]
            database.finish(run.key, *_done(ready))
            del self._running[ready]
            self._idle.append(worker)
            tick()
        super().work(tick)

    def close(self) -> None:
        for run, _ in self._running.values():
            self.study.database.release(run.key)
        ray.shutdown()

    def _prices(self, run: Run) -> Any:
        """All prices of a run's problem, sent to the cluster once; None where they are not had."""
        if run.problem not in self._shared:
            table = self.study.table(run)
            self._shared[run.problem] = None if table is None else ray.put(table.encoded())
        return self._shared[run.problem]


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
