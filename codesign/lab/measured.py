"""Spaces that others measured: Kernel Tuner's cache files and T4 results, and tables whose columns are knobs; read and written.

Times in Kernel Tuner's files are milliseconds. Files are read as JSON or parquet and nothing in them is executed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.command import need_tables
from codesign.costmodel.protocol import CostBatch
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import ScheduleBatch
from codesign.lab.prices import plain
from codesign.lab.problem import Problem, digest
from codesign.passes.schedule.space import Columns, Constraint, Knob, Space

Value = int | float | str | bool
LARGEST_SPACE = 1 << 27
"""Points of the product of all knobs of a measured space."""


@dataclass(frozen=True)
class Measured:
    """A space as a file tells it: values of each knob in order, and for each tried configuration seconds, or infinity with why."""

    kernel: str
    device: str
    knobs: Mapping[str, Sequence[Value]]
    rows: Mapping[tuple[Value, ...], float]
    failures: Mapping[tuple[Value, ...], str]
    problem_size: Any = None


# -- reading -----------------------------------------------------------------------------------------------------------
def read_space(path: Path) -> Measured:
    """A measured space from a file of any of the formats; CodesignError says what is wrong with it."""
    if not path.is_file():
        raise CodesignError("no such file" if not path.exists() else "not a file", place=str(path))
    try:
        if path.suffix in (".parquet", ".csv"):
            return _of_table(path)
        return _of_json(path, _json(path))
    except CodesignError as error:
        raise CodesignError(error.message, place=str(path), hint=error.hint) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        kind = "Kernel Tuner's cache or T4 results"
        raise CodesignError(f"not {kind}: {type(error).__name__}: {str(error)[:80]}", place=str(path)) from None


def _json(path: Path) -> Any:
    """JSON, closed where Kernel Tuner left it open to go on later."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CodesignError(f"can't be read: {error}") from None
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return json.loads(text.rstrip(",") + "}\n}")
        except ValueError:
            raise CodesignError(f"not JSON: {error}") from None


def _of_json(path: Path, data: Any) -> Measured:
    if isinstance(data, Mapping) and "cache" in data and "tune_params_keys" in data:
        return _of_cache(data)
    if isinstance(data, Mapping) and isinstance(data.get("results"), list):
        return _of_results(path, data)
    raise CodesignError(
        "neither a cache of Kernel Tuner nor T4 results", hint="a cache has tune_params_keys, results have results"
    )


def _of_cache(data: Mapping[str, Any]) -> Measured:
    names = [str(name) for name in data["tune_params_keys"]]
    objective = data.get("objective", "time")
    if objective != "time":
        raise CodesignError(f"the objective is {str(objective)[:40]!r}, not time", hint="only times are compared here")
    rows: dict[tuple[Value, ...], float] = {}
    failures: dict[tuple[Value, ...], str] = {}
    for entry in data["cache"].values():
        key = tuple(_value(entry[name]) for name in names)
        _put(rows, failures, key, entry.get("time"), str(entry.get("__error__", entry.get("time"))))
    given = data.get("tune_params") or {}
    knobs = _knobs(names, rows, {name: given.get(name, ()) for name in names})
    name, device = str(data.get("kernel_name", "kernel")), str(data.get("device_name", "unknown"))
    return Measured(name, device, knobs, rows, failures, data.get("problem_size"))


def _of_results(path: Path, data: Mapping[str, Any]) -> Measured:
    rows: dict[tuple[Value, ...], float] = {}
    failures: dict[tuple[Value, ...], str] = {}
    names: list[str] = []
    for entry in data["results"]:
        configuration = entry["configuration"]
        names = names or [str(name) for name in configuration]
        key = tuple(_value(configuration[name]) for name in names)
        objective = (entry.get("objectives") or ["time"])[0]
        found = [m for m in entry.get("measurements", ()) if m["name"] == objective]
        factor = {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6}
        unit = str(found[0].get("unit", "ms")) if found else "ms"
        if unit not in factor:
            raise CodesignError(f"a time in {unit[:20]!r}", hint=f"known units: {', '.join(filter(None, factor))}")
        value = found[0]["value"] if found else None
        good = entry.get("invalidity", "correct") == "correct"
        time = value * factor[unit] if good and isinstance(value, int | float) else None
        _put(rows, failures, key, time, str(entry.get("invalidity")))
    metadata = data.get("metadata") or {}
    device = str(metadata.get("device", "unknown")) if isinstance(metadata, Mapping) else "unknown"
    return Measured(path.name.partition(".")[0], device, _knobs(names, rows, {}), rows, failures)


def _of_table(path: Path) -> Measured:
    need_tables(path)
    import pandas as pd

    from codesign.costmodel.tables import read_table

    table = read_table(path)
    names = [str(name) for name in table.columns if name not in ("seconds", "machine", "device")]
    if not names:
        raise CodesignError("no column besides the time", hint="each other column is a knob")
    rows: dict[tuple[Value, ...], float] = {}
    failures: dict[tuple[Value, ...], str] = {}
    columns = [[_value(value) for value in table[name].tolist()] for name in names]
    for key, seconds in zip(zip(*columns, strict=True), table["seconds"], strict=True):
        good = pd.notna(seconds) and seconds > 0
        _put(rows, failures, key, 1e3 * float(seconds) if good else None, "did not run")
    device = next((str(table[n].iloc[0]) for n in ("machine", "device") if n in table), path.stem.rpartition("_")[2])
    return Measured(path.stem, device, _knobs(names, rows, {}), rows, failures)


def _put(
    rows: dict[tuple[Value, ...], float],
    failures: dict[tuple[Value, ...], str],
    key: tuple[Value, ...],
    milliseconds: Any,
    why: str,
) -> None:
    good = isinstance(milliseconds, int | float) and math.isfinite(milliseconds) and milliseconds > 0
    if good and not isinstance(milliseconds, bool):
        rows[key] = min(float(milliseconds) * 1e-3, rows.get(key, math.inf))
        failures.pop(key, None)
    elif key not in rows:
        rows[key] = math.inf
        failures[key] = why


def _value(value: Any) -> Value:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int | float | str | bool):
        return value
    raise CodesignError(f"a knob's value must be a number or a string, got {str(value)[:40]!r}")


def _knobs(
    names: Sequence[str], rows: Mapping[tuple[Value, ...], float], given: Mapping[str, Sequence[Any]]
) -> dict[str, list[Value]]:
    """Values of each knob: those that a file lists and those that were tried, numbers ascending."""
    if not rows:
        raise CodesignError("no configurations in it")
    found: dict[str, list[Value]] = {}
    for position, name in enumerate(names):
        values = dict.fromkeys([*(_value(v) for v in given.get(name, ())), *(key[position] for key in rows)])
        numbers = all(isinstance(value, int | float) for value in values)
        found[name] = sorted(values, key=float) if numbers else sorted(values, key=str)
    return found


# -- as a problem ------------------------------------------------------------------------------------------------------
def problem_of(measured: Measured, name: str = "") -> Problem:
    """The space as one that policies search; configurations that failed are in it and do not fit."""
    knobs = {n: list(values) for n, values in measured.knobs.items()}
    points = math.prod(len(values) for values in knobs.values())
    if points > LARGEST_SPACE:
        raise CodesignError(
            f"{measured.kernel}: {points:,} points in the product of its knobs, at most {LARGEST_SPACE:,}"
        )
    exact = {n: all(isinstance(v, int) and not isinstance(v, bool) for v in values) for n, values in knobs.items()}
    places = {n: {value: at for at, value in enumerate(values)} for n, values in knobs.items()}
    sizes = [len(values) for values in knobs.values()]
    seconds = np.full(points, np.nan)
    for key, value in measured.rows.items():
        code = [places[n][v] for n, v in zip(knobs, key, strict=True)]
        seconds[int(np.ravel_multi_index(code, sizes)) if sizes else 0] = value
    shown = {n: tuple(values) if exact[n] else tuple(range(len(values))) for n, values in knobs.items()}

    def numbers(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        codes = [np.searchsorted(np.array(shown[n]), columns[n]) for n in knobs]
        return np.ravel_multi_index(np.broadcast_arrays(*codes), sizes).astype(np.int64)

    def tried(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        known: np.ndarray[tuple[int], np.dtype[np.bool_]] = ~np.isnan(seconds[numbers(columns)])
        return known

    def priced(batch: ScheduleBatch) -> CostBatch:
        found = seconds[numbers(batch.columns)]
        return plain(np.where(np.isnan(found), np.inf, found), "failed when it was measured")

    space = Space(
        tuple(Knob(n, tuple(int(v) for v in values), int(values[len(values) // 2])) for n, values in shown.items()),
        (Constraint("tried", tried, lambda row: "was never measured"),),
    )
    facts = {"knobs": knobs, "rows": [[*map(str, key), value] for key, value in measured.rows.items()]}
    labels = {n: tuple(values) for n, values in knobs.items() if not exact[n]}
    return Problem(
        name=name or measured.kernel,
        machine=measured.device,
        key=digest(facts),
        space=space,
        priced=priced,
        labels=labels,
        measured=True,
    )


# -- writing -----------------------------------------------------------------------------------------------------------
def cache_text(measured: Measured) -> str:
    """The space as Kernel Tuner's cache, which its simulation mode runs strategies on."""
    entries = {}
    for key, seconds in measured.rows.items():
        knobs = dict(zip(measured.knobs, key, strict=True))
        entries[",".join(map(str, key))] = {**knobs, **_timing(seconds, measured.failures.get(key, ""))}
    size = measured.problem_size if measured.problem_size is not None else [1]
    data = {
        "device_name": measured.device,
        "kernel_name": measured.kernel,
        "problem_size": size,
        "tune_params_keys": list(measured.knobs),
        "tune_params": {name: list(values) for name, values in measured.knobs.items()},
        "objective": "time",
        "cache": entries,
    }
    return json.dumps(data, indent=0, allow_nan=False) + "\n"


def _timing(seconds: float, why: str) -> dict[str, Any]:
    milliseconds: Any = seconds * 1e3 if math.isfinite(seconds) else _failure(why)
    spent = dict.fromkeys(
        ("compile_time", "verification_time", "benchmark_time", "strategy_time", "framework_time"), 0.0
    )
    times = {"times": [milliseconds]} if math.isfinite(seconds) else {"__error__": milliseconds}
    return {"time": milliseconds, **times, **spent}


def _failure(why: str) -> str:
    known = {"compile": "CompilationFailedConfig", "runtime": "RuntimeFailedConfig", "constraints": "InvalidConfig"}
    return why if why in known.values() else known.get(why, "RuntimeFailedConfig")


def results_text(measured: Measured) -> str:
    """The space as T4 results."""
    results = [
        {
            "configuration": dict(zip(measured.knobs, key, strict=True)),
            "times": {"compilation_time": 0.0, "runtimes": [], "framework": 0.0, "search_algorithm": 0.0, "validation": 0.0},
            "invalidity": "correct" if math.isfinite(seconds) else _invalidity(measured.failures.get(key, "")),
            "correctness": 1,
            "measurements": [{"name": "time", "value": seconds * 1e3, "unit": "ms"}] if math.isfinite(seconds) else [],
            "objectives": ["time"],
        }
        for key, seconds in measured.rows.items()
    ]  # fmt: skip
    metadata = {"timeunit": "milliseconds", "device": measured.device, "kernel": measured.kernel}
    return json.dumps({"results": results, "schema_version": "1.0.0", "metadata": metadata}, allow_nan=False) + "\n"


def _invalidity(why: str) -> str:
    known = {"CompilationFailedConfig": "compile", "RuntimeFailedConfig": "runtime", "InvalidConfig": "constraints"}
    return known.get(why, why if why in known.values() or why in ("timeout", "correctness") else "runtime")


def measured_of(problem: Problem, numbers: Iterator[int] | Sequence[int], seconds: Sequence[float]) -> Measured:
    """What was evaluated of a problem, to be written in one of the formats."""
    rows: dict[tuple[Value, ...], float] = {}
    for number, value in zip(numbers, seconds, strict=True):
        rows[tuple(problem.knobs(int(number)).values())] = float(value)
    knobs = {k.name: list(problem.labels.get(k.name, k.values)) for k in problem.space.knobs}
    return Measured(problem.name, problem.machine, knobs, rows, {})
