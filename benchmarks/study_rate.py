"""Schedules evaluated per second through a whole study (policy, budget, rows in the database) against the bare cost model, one core.

`OMP_NUM_THREADS=1 python benchmarks/study_rate.py`: seconds of CPU time, the best of several rounds in which each takes its turn; each
schedule of the kernel's space once. `live`: priced when the policy asks; `tabled`: answered from the prices of the whole space, as all runs of a
study on it but the first are; `first`: the first, for which these prices are taken and kept in the database. `over_bare_model`: what a path takes
more than the bare model, as a share of its time; the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROUNDS = 15
BARE = "bare model"

Floats = npt.NDArray[np.float64]


def in_turns(works: dict[str, Callable[[int], object]]) -> dict[str, Floats]:
    """Seconds of CPU time [ROUNDS] that each takes; they take turns, so that a busy computer is busy for all."""
    found = {name: np.zeros(ROUNDS) for name in works}
    for number in range(ROUNDS):
        for name, work in works.items():
            started = time.process_time()
            work(number)
            found[name][number] = time.process_time() - started
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="h100_sxm")
    parser.add_argument("--kernel", default="attention.4x8x4x2048x2048")
    arguments = parser.parse_args()

    from codesign.lab.arena import Arena, compete
    from codesign.lab.database import Run
    from codesign.lab.kernels import problems
    from codesign.lab.laboratory import Database, make_plan
    from codesign.lab.prices import price_all
    from codesign.passes.schedule.policy import Exhaustive

    plan = make_plan({"policies": ["exhaustive"], "kernels": [arguments.kernel], "machines": [arguments.machine]})
    (problem,) = problems(plan)
    batch = problem.space.batch(np.concatenate(list(problem.space.enumerate())))
    unknown: Any = dict.fromkeys(("summary", "machine", "model"))
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "rate.db")
        works: dict[str, Callable[[int], object]] = {
            BARE: lambda number: problem.priced(batch),
        }
        known = price_all(problem)
        described = {"name": problem.name, "machine": problem.machine, "description": problem.describe()}
        for name in ("live", "tabled", "first"):
            keys = [f"{name} {number:02}" for number in range(ROUNDS)]
            runs = [Run(key, key, "exhaustive", "all", 0) for key in keys]
            database.enter(name, {}, [{"key": key, **described} for key in keys], runs)

            def study(number: int, name: str = name) -> None:
                run = database.claim(name)
                assert run is not None
                table = known if name == "tabled" else None
                if name == "first":
                    table = database.prices(run.problem, lambda: price_all(problem))
                arena = Arena(**unknown, problem=problem, table=table, record=lambda new: database.add(run.key, new))
                database.finish(run.key, compete(Exhaustive(), arena), arena.taken())

            works[name] = study
        seconds = in_turns(works)
        database.close()
    rates = [
        {
            "path": name,
            "schedules_per_second": round(len(batch) / took.min()),
            "over_bare_model": round(float(np.median(took / seconds[BARE])) - 1.0, 3),
        }
        for name, took in seconds.items()
    ]
    report = {"benchmark": "study_rate", "machine": problem.machine, "kernel": problem.name, "schedules": len(batch)}
    print(json.dumps({**report, "date": date.today().isoformat(), "rows": rates}, indent=1))


if __name__ == "__main__":
    main()
