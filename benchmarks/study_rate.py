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

ROUNDS = 3


def least(work: Callable[[int], object]) -> float:
    """Seconds of CPU time that the quickest of several rounds takes."""
    found = []
    for number in range(ROUNDS):
        started = time.process_time()
        work(number)
        found.append(time.process_time() - started)
    return min(found)


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
        rows = [("bare model", least(lambda number: problem.priced(batch)))]
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

            rows.append((name, least(study)))
        database.close()
    rates = [{"path": name, "schedules_per_second": round(len(batch) / seconds)} for name, seconds in rows]
    report = {"benchmark": "study_rate", "machine": problem.machine, "kernel": problem.name, "schedules": len(batch)}
    print(json.dumps({**report, "date": date.today().isoformat(), "rows": rates}, indent=1))


if __name__ == "__main__":
    main()
