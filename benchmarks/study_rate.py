"""Schedules evaluated per second through a whole study (policy, budget, rows in the database) against the bare cost model, one core.

`OMP_NUM_THREADS=1 python benchmarks/study_rate.py`: seconds of CPU time, the best of several; each schedule of the kernel's space once.
`live`: priced when the policy asks; `tabled`: answered from the prices of the whole space, which a study takes once.
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

ROUNDS = 5


def least(works: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Seconds of CPU time that each takes in its quickest round; rounds take turns, so that a busy computer is busy for all."""
    found = dict.fromkeys(works, float("inf"))
    for number in range(ROUNDS):
        for name, work in works.items():
            started = time.process_time()
            work(number)
            found[name] = min(found[name], time.process_time() - started)
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
        works: dict[str, Callable[[int], object]] = {"bare model": lambda number: problem.priced(batch)}
        for name, table in (("live", None), ("tabled", price_all(problem))):
            runs = [Run(f"{name}{number}", problem.key, "exhaustive", "all", number) for number in range(ROUNDS)]
            described = {
                "key": problem.key,
                "name": problem.name,
                "machine": problem.machine,
                "description": problem.describe(),
            }
            database.enter(name, {}, [described], runs)

            def study(number: int, name: str = name, table: Any = table) -> None:
                run = database.claim(name)
                assert run is not None
                arena = Arena(**unknown, problem=problem, table=table, record=lambda new: database.add(run.key, new))
                database.finish(run.key, compete(Exhaustive(), arena), arena.taken())

            works[name] = study
        seconds = least(works)
        database.close()
    rates = [{"path": name, "schedules_per_second": round(len(batch) / took)} for name, took in seconds.items()]
    report = {"benchmark": "study_rate", "machine": problem.machine, "kernel": problem.name, "schedules": len(batch)}
    print(json.dumps({**report, "date": date.today().isoformat(), "rows": rates}, indent=1))


if __name__ == "__main__":
    main()
