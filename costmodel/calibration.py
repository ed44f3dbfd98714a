"""Calibration of a machine: which tables fit which parameters, cross-validated errors, and intervals from the rows
held out.

The machine's fifteen parameters come from library GEMMs and from profiled transformer kernels. A serving system's
attention keeps constants of its own (helper kernels, passes over the cache, shares of the peaks): those are fitted
per implementation on top of the machine's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from codesign.costmodel.fitting import Floats, Prepared, cross_validate, fit, prepare, weight_of
from codesign.costmodel.gpu.library import Best, chosen, library
from codesign.costmodel.gpu.model import cells, family_of, ledger, regime_of
from codesign.costmodel.gpu.parameters import (
    FITTED,
    PRODUCT,
    TYPICAL,
    Calibration,
    Parameters,
    generated_share,
)
from codesign.costmodel.gpu.scales import watts_per_operation
from codesign.costmodel.machine import Machine
from codesign.costmodel.rows import Rows, TableError
from codesign.costmodel.tables import kernels_of, machine_rows

LIBRARY_FIT = tuple(name for name in FITTED if not name.startswith("profiled") and name != "vector_efficiency")
PROFILED_FIT = ("vector_efficiency", "profiled_launch_seconds", "profiled_fill_latency", "profiled_clock")
IMPLEMENTATION_FIT = (
    "fill_latency",
    "step_clocks",
    "token_seconds",
    "extra_query_passes",
    "tensor_efficiency",
    "helper_seconds",
)
"""What is fitted for each implementation of attention: a block's latency, what a step waits for, the work of helper
kernels a token, a pass over the queries and a launch, and the share of the tensor rate that it reaches."""

GENERATED_FIT = ("fill_latency", "step_clocks", "tensor_efficiency", "extra_query_passes")
"""The same where a compiler of tiles made the kernel: its share of the tensor rate is its own."""

QUANTISED_FIT = (
    "quantise_seconds",
    "quantise_passes",
    "token_seconds",
    "result_passes",
    "tensor_efficiency",
    "tile_overhead",
    "step_clocks",
    "write_gap",
)
"""The same for a product of quantised operands: its small kernels before it, and what its own multiplies and stores
reach."""

IMPLEMENTED = {"vector_efficiency": 1.0, "extra_passes": 2.0}
"""Held for every implementation: special functions at their peak; new keys and values are read and written once more
when they are appended."""

EXPECTED = {"fill_latency": 8.0, "step_clocks": 350.0, "token_seconds": 2e-9, "extra_query_passes": 0.5}
"""The values that fits of implementations are pulled towards."""


GENERATED_EXPECTED = {"tensor_efficiency": 0.3, "step_clocks": 100.0}
"""The same where a compiler of tiles made the kernel: its share of the tensor rate of `GENERATED_RATE` operations a clock and SM."""

GENERATED_RATE = 1024.0


def constants_of(rows: Sequence[Rows], parameters: Parameters, machine: Machine) -> tuple[tuple[str, ...], Parameters]:
    """Which constants of an implementation are fitted on a machine, and all parameters to begin with."""
    if "quantised" in rows[0].sizes:
        return QUANTISED_FIT, replace(parameters, result_passes=1.0)
    first = replace(parameters, **IMPLEMENTED, **EXPECTED)
    if rows[0].generated:
        share = generated_share(GENERATED_EXPECTED["tensor_efficiency"], GENERATED_RATE, machine)
        return GENERATED_FIT, replace(first, **GENERATED_EXPECTED | {"tensor_efficiency": share})
    return IMPLEMENTATION_FIT, first


@dataclass(frozen=True)
class Fitted:
    """What was fitted to which kernels: names of `parameters`, of which all are here."""

    what: str
    names: tuple[str, ...]
    parameters: Parameters
    prepared: list[Prepared]
    weight: float
    """How much a row's squared error counts against the pull towards the prior."""


@dataclass
class Calibrated:
    """The result of calibrating: the calibration, per op the rows, in-sample and cross-validated mean absolute
    percentage errors, and each fit."""

    calibration: Calibration
    ops: list[dict[str, Any]] = field(default_factory=list)
    fits: list[Fitted] = field(default_factory=list)


def calibrate(
    machine: Machine,
    tables: Sequence[pd.DataFrame],
    start: Calibration,
    *,
    folds: int = 5,
    limit: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> Calibrated:
    """Fit a machine to tables; parameters that no table speaks of keep their starting values."""
    everything = [
        rows for table in tables for rows in kernels_of(machine_rows(table, machine.name), machine) if len(rows.seconds)
    ]
    if not everything:
        raise TableError(f"no rows of {machine.name} in the tables given")
    parameters = start.parameters
    measured = {rows.implementation for rows in everything if rows.implementation}
    implementations = _still_run(start.implementations, measured)
    ops: list[dict[str, Any]] = []
    fits: list[Fitted] = []
    held: list[tuple[Prepared, Floats, Calibration]] = []
    plain = [rows for rows in everything if not rows.implementation and rows.method != "schedule"]
    for method, names in (("graph", LIBRARY_FIT), ("profiled", PROFILED_FIT)):
        group = [prepare(rows, machine, parameters) for rows in plain if rows.method == method]
        if not group:
            continue
        _say(progress, f"fitting {len(names)} parameters to {', '.join(sorted({entry.rows.op for entry in group}))}")
        if method == "graph":  # begin where the power limit is felt
            parameters = replace(parameters, tensor_joules=watts_per_operation(machine))
        found = fit(group, machine, parameters, names, limit=limit, progress=progress)
        _say(progress, "cross-validating by site")
        out = cross_validate(group, machine, found.parameters, names, folds=folds, limit=limit, progress=progress)
        parameters = found.parameters
        fits.append(Fitted(f"{method} kernels", names, parameters, group, weight_of(group, limit)))
        now = Calibration(machine.name, parameters, {}, {})
        for entry, predicted in zip(group, out, strict=True):
            held.append((entry, predicted, now))
        errors = [_errors(*pair, machine, parameters) for pair in zip(group, out, strict=True)]
        names_of = dict.fromkeys(error["op"] for error in errors)
        ops += [_merged([error for error in errors if error["op"] == op]) for op in names_of]
    served: list[dict[str, Any]] = []
    prefill: set[str] = set()  # implementations written by hand and fitted to more than decoding: what is typical
    for name in sorted(measured):
        mine = [rows for rows in everything if rows.implementation == name]
        names, first = constants_of(mine, parameters, machine)
        if names == IMPLEMENTATION_FIT and any(np.any(rows.regime_size > 1.0) for rows in mine):
            prefill.add(name)
        group = [prepare(rows, machine, first) for rows in mine]
        _say(progress, f"fitting {len(names)} constants of {name}")
        found = fit(group, machine, first, names, limit=limit, evaluations=18, prior=first, progress=progress)
        out = cross_validate(
            group, machine, found.parameters, names, folds=folds, limit=limit // 2, prior=first, progress=progress
        )
        fits.append(Fitted(name, names, found.parameters, group, weight_of(group, limit)))
        kept = dict.fromkeys(names if names == QUANTISED_FIT else (*names, *EXPECTED, *IMPLEMENTED))
        implementations[name] = {key: float(f"{getattr(found.parameters, key):.5g}") for key in kept}
        now = Calibration(machine.name, found.parameters, {}, {})
        errors = [
            _errors(entry, predicted, machine, found.parameters) for entry, predicted in zip(group, out, strict=True)
        ]
        served += errors
        held += [(entry, predicted, now) for entry, predicted in zip(group, out, strict=True)]
    if middle := [implementations[name] for name in sorted(prefill)]:
        implementations[TYPICAL] = {key: float(f"{np.median([own[key] for own in middle]):.5g}") for key in middle[0]}
    for op in dict.fromkeys(error["op"] for error in served):
        ops.append(_merged([error for error in served if error["op"] == op]))
    before = {key: pair for key, pair in start.spread.items() if key.split(":")[0] not in start.far}
    spread = {key: pair for key, pair in before.items() if not key.startswith("eager ")} | _spread(machine, held)
    rounded = Parameters(**{key: float(f"{value:.5g}") for key, value in asdict(parameters).items()})
    return Calibrated(Calibration(machine.name, rounded, spread, {}, "", implementations), ops, fits)


def _still_run(known: Mapping[str, dict[str, float]], measured: set[str]) -> dict[str, dict[str, float]]:
    """Constants of implementations before a fit, without kernels that a source of attention that is fitted no longer runs."""
    sources = {name.split()[0] for name in measured if not name.startswith(PRODUCT)}
    return {name: own for name, own in known.items() if name in measured or name.split()[0] not in sources}


def _say(progress: Callable[[str], None] | None, text: str) -> None:
    if progress is not None:
        progress(text)


def _errors(entry: Prepared, held: Floats, machine: Machine, parameters: Parameters) -> dict[str, Any]:
    seconds = entry.rows.seconds
    inside = np.abs(entry.predict(machine, parameters) / seconds - 1.0)
    outside = np.abs(held / seconds - 1.0)
    return {
        "op": entry.rows.op,
        "rows": len(seconds),
        "mape": float(inside.mean()),
        "mape_cross_validated": float(outside.mean()),
    }


def _merged(errors: list[dict[str, Any]]) -> dict[str, Any]:
    rows = sum(error["rows"] for error in errors)
    mean = {key: sum(error[key] * error["rows"] for error in errors) / rows for key in ("mape", "mape_cross_validated")}
    return {"op": errors[0]["op"], "rows": rows, **mean}


def regimes(
    rows: Rows, machine: Machine, parameters: Parameters, space: Any
) -> tuple[Best, Floats, npt.NDArray[np.object_]]:
    """The best schedules of the rows, the terms of their predictions, and the regime that each row is in."""
    best = library(rows.kernel, machine, rows.sizes, parameters, space)
    found = chosen(rows.kernel, machine, rows.sizes, parameters, space, best)
    terms = ledger(found, len(rows.seconds))
    return best, terms, regime_of(terms)


def spread_name(rows: Rows) -> str:
    """Under which name the interval of some rows is kept: an implementation's op, else their kernel's family, times
    from a profiler apart from those of replayed graphs."""
    family = family_of(rows.kernel)
    return rows.op if rows.implementation else family if rows.method == "graph" else f"{rows.method} {family}"


LEAST_ROWS = 100
"""Rows of an op that a cell needs to count in it."""

TAIL = 0.045
"""Share of the held-out rows beyond each end of an interval that is to cover 90 % of others: a tenth less than half of
10 %, since the held-out sites are about ten and quantiles of so few are too narrow."""


def _spread(machine: Machine, held: list[tuple[Prepared, Floats, Calibration]]) -> dict[str, tuple[float, float]]:
    """Quantiles of measured over held-out predicted time, by cell, by family and regime, and by family; in each, every
    op weighs the same."""
    ratios: dict[str, dict[str, list[Floats]]] = {}
    for entry, predicted, calibration in held:
        if entry.space is None:
            continue
        rows = entry.rows
        _, terms, _ = regimes(rows, machine, calibration.of(method=rows.method), entry.space)
        ratio = rows.seconds / predicted
        shared = rows.implementation and "quantised" not in rows.sizes  # a family's own intervals are of what is alike
        names = {spread_name(rows)} | ({family_of(rows.kernel)} if shared else set())
        for family in names:
            cell = cells(family, terms).astype(str)
            for name in np.unique(cell):
                part = ratio[cell == name]
                for key in (name, name.rsplit(":", 1)[0], family):
                    ratios.setdefault(key, {}).setdefault(rows.op, []).append(part)
    found = {}
    for key, ops in ratios.items():
        parts = [np.concatenate(parts) for parts in ops.values()]
        if enough := [_sampled(part) for part in parts if len(part) >= LEAST_ROWS]:
            found[key] = _quantiles(np.concatenate(enough))
    return found


def _sampled(ratio: Floats, count: int = 2000) -> Floats:
    return np.random.default_rng(0).choice(ratio, count)


def _quantiles(ratio: Floats) -> tuple[float, float]:
    low, high = np.quantile(ratio, [TAIL, 1.0 - TAIL])
    return float(f"{low:.4g}"), float(f"{high:.4g}")
