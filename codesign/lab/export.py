"""Rows of a study as tables, and spaces in Kernel Tuner's formats."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from codesign.ir.errors import CodesignError
from codesign.lab.database import GLANCE, Database
from codesign.lab.measured import Measured, Value, cache_text, results_text
from codesign.lab.problem import Floats
from codesign.passes.schedule.space import Ints

LARGEST_FORMATTED = 1 << 22
"""Schedules of one space that are written as Kernel Tuner's JSON at most."""


def rows(database: Database, study: str) -> pd.DataFrame:
    """Every evaluation of a study: kernel, machine, policy, budget, seed, position in the run, the schedule, and its seconds."""
    runs = database.runs(study)
    problems = database.problems(study)  # after its runs, which another process may add to
    parts = []
    for run in runs:
        problem = problems[run.problem]
        names = [str(name) for name, _ in problem["knobs"]]
        for stretch in database.stretches(run.key):
            kept = stretch.numbers != GLANCE
            count = np.count_nonzero(kept)
            columns = _columns(database, problem, stretch.numbers[kept])
            facts = {"run": run.key, "kernel": problem["name"], "machine": problem["machine"]}
            facts |= {"policy": run.policy, "budget": run.budget, "seed": run.seed}
            schedule = [json.dumps(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]
            position = stretch.start + np.flatnonzero(kept)
            seconds = stretch.seconds[kept]
            table = {**facts, "position": position, "schedule": schedule or ["{}"] * count, "seconds": seconds}
            parts.append(pd.DataFrame(table))
    if not parts:
        raise CodesignError(f"study {study!r} has no evaluations yet", hint="python -m codesign.study run STUDY.toml")
    return pd.concat(parts, ignore_index=True).sort_values(["run", "position"], ignore_index=True)


def _columns(database: Database, problem: Mapping[str, Any], numbers: Ints) -> list[list[Value]]:
    """Values of each knob of schedules given by their numbers."""
    sizes = [len(values) for _, values in problem["knobs"]]
    if not sizes:
        return []
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < math.prod(sizes):
        raise database.wrong(f"a row is of no schedule of the space of {problem['name'][:80]}")
    found: list[list[Value]] = []
    for _, values in reversed(problem["knobs"]):  # of which there may be more than NumPy has dims
        numbers, codes = np.divmod(numbers, max(len(values), 1))
        found.insert(0, [values[at] for at in codes.tolist()])
    return found


def spaces(database: Database, study: str) -> Iterator[Measured]:
    """Each problem of a study with all prices that are known, as a space that a tuner can read."""
    runs = database.runs(study)
    for key, problem in database.problems(study).items():
        table = database.prices(key)
        if table is not None:
            numbers, seconds = table.numbers, table.seconds
        else:
            known = [part for run in runs if run.problem == key for part in database.stretches(run.key)]
            numbers = np.concatenate([np.zeros(0, np.int64), *(part.numbers for part in known)])
            seconds = np.concatenate([np.zeros(0), *(part.seconds for part in known)])[numbers != GLANCE]
            numbers = numbers[numbers != GLANCE]
        if 0 < len(numbers) <= LARGEST_FORMATTED:
            yield _measured(database, problem, numbers, seconds)


def _measured(database: Database, problem: Mapping[str, Any], numbers: Ints, seconds: Floats) -> Measured:
    keys = zip(*_columns(database, problem, numbers), strict=True)
    found: dict[tuple[Value, ...], float] = dict(zip(keys, seconds.tolist(), strict=True))
    knobs = {str(name): list(values) for name, values in problem["knobs"]}
    return Measured(str(problem["name"]), str(problem["machine"]), knobs, found, {})


def write(database: Database, study: str, form: str, folder: Path) -> list[Path]:
    """Write a study as `csv` or `parquet` rows, or its spaces as Kernel Tuner's `cache` or `t4` files; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    if form in ("csv", "parquet"):
        path = folder / f"{_stem(study)}.{form}"
        table = rows(database, study)
        table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
        return [path]
    written = []
    for measured in spaces(database, study):
        path = folder / f"{_stem(measured.kernel)}.{_stem(measured.device)}.{form}.json"
        path.write_text(cache_text(measured) if form == "cache" else results_text(measured), encoding="utf-8")
        written.append(path)
    return written


def _stem(name: str) -> str:
    """A name as part of a file's: a stranger's database must not choose where files go."""
    return (
        "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name).lstrip(".")[:100] or "study"
    )
