"""How right the model is on a table: errors per op and regime, rank correlation, coverage of the intervals, worst
rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from codesign.costmodel.calibration import regimes, spread_name
from codesign.costmodel.fitting import prepare
from codesign.costmodel.gpu.intervals import distances, widened
from codesign.costmodel.gpu.model import distances_of, family_of, spread_of
from codesign.costmodel.gpu.parameters import Calibration, load_calibration
from codesign.costmodel.machine import Machine
from codesign.costmodel.rows import Rows, TableError, phase_of
from codesign.costmodel.tables import kernels_of, machine_rows

SIZES = (("1 to 16", 0, 17), ("17 to 128", 17, 129), ("129 to 1024", 129, 1025), ("over 1024", 1025, float("inf")))


def predictions(table: pd.DataFrame, machine: Machine, calibration: Calibration | None = None) -> pd.DataFrame:
    """A frame per measured row: op, measured and predicted seconds, low, high, regime, size; in the order of the
    kernels."""
    known = calibration or load_calibration(machine)
    picked = machine_rows(table, machine.name)
    if not len(picked):
        raise TableError(f"no rows of {machine.name} in the table")
    frames = [
        _predicted(rows, machine, known)
        for rows in kernels_of(picked, machine)
        if len(rows.seconds) and rows.method != "schedule"
    ]
    if not frames:
        raise TableError("the table holds schedules to rank, not times to predict")
    return pd.concat(frames, ignore_index=True)


UNIT = 300.0
"""How many times as long as predicted, or as short, times are at the median that are taken for times in another unit."""


def unit_remark(frame: pd.DataFrame) -> list[str]:
    """That measured times (a frame of `predictions`) seem not to be in seconds; none where they do."""
    ratio = float((frame["measured"] / frame["predicted"]).median())
    if 1.0 / UNIT < ratio < UNIT:
        return []
    how = f"{ratio:,.0f} times as long" if ratio > 1 else f"{1.0 / ratio:,.0f} times as short"
    return [f"half of the measured times are {how} as predicted, or more: are they in the unit that their column says?"]


def _predicted(rows: Rows, machine: Machine, calibration: Calibration) -> pd.DataFrame:
    parameters = calibration.of(rows.implementation, rows.method)
    space = prepare(rows, machine, parameters).space
    best, terms, regime = regimes(rows, machine, parameters, space)
    name = spread_name(rows)
    own = name in calibration.spread
    family = name if own else family_of(rows.kernel)
    far = list(distances_of(rows.kernel, calibration, family))
    if own:  # of what its type and kind are, its own residual tells
        far = [each for each in far if each.name in ("machine", "generation")]
    if rows.assumed:
        far.append(distances()["unknown"].widening(family_of(rows.kernel), phase_of(rows)))
    elif rows.implementation and not own:  # measured on other implementations
        far.append(distances()["implementation"].widening(family_of(rows.kernel)))
    low, high = widened(spread_of(calibration, terms, family), far)
    seconds = best.seconds * rows.launches
    return pd.DataFrame(
        {
            "op": rows.op,
            "row": rows.index,
            "measured": rows.seconds,
            "predicted": seconds,
            "low": seconds * low,
            "high": seconds * high,
            "regime": regime,
            "size": rows.regime_size if len(rows.regime_size) else np.zeros(len(rows.seconds)),
        }
    )


def report(frame: pd.DataFrame, table: pd.DataFrame, worst: int = 5) -> list[dict[str, Any]]:
    """Statistics per op, as plain data: the `ops` of the validate command."""
    ops = []
    for op, part in frame.groupby("op", sort=True):
        entry = {"op": str(op), **statistics(part)}
        entry["regimes"] = [
            {"regime": f"{name}-bound", **statistics(part[part.regime == name])}
            for name in ("launch", "memory", "compute")
            if (part.regime == name).any()
        ] + [
            {"regime": f"m {name}", **statistics(part[(part["size"] >= low) & (part["size"] < high)])}
            for name, low, high in SIZES
            if ((part["size"] >= low) & (part["size"] < high)).any()
        ]
        error = (part.predicted / part.measured - 1.0).abs()
        entry["worst"] = [_worst_row(part.loc[index], table) for index in error.nlargest(worst).index]
        ops.append(entry)
    return ops


def statistics(part: pd.DataFrame) -> dict[str, Any]:
    """Errors as fractions: mean, median and 90 % quantile of the absolute error, bias, Spearman rank correlation,
    interval coverage."""
    measured, predicted = part.measured.to_numpy(), part.predicted.to_numpy()
    error = predicted / measured - 1.0
    inside = (measured >= part.low.to_numpy()) & (measured <= part.high.to_numpy())
    rank = (
        float(spearmanr(measured, predicted).statistic)
        if len(part) > 2 and np.ptp(predicted) and np.ptp(measured)
        else None
    )
    return {
        "rows": len(part),
        "mape": _round(np.abs(error).mean()),
        "median": _round(np.median(np.abs(error))),
        "p90": _round(np.quantile(np.abs(error), 0.9)),
        "bias": _round(error.mean()),
        "spearman": None if rank is None else _round(rank),
        "coverage": _round(inside.mean()),
    }


def _round(value: Any) -> float:
    return round(float(value), 4)


def _worst_row(row: pd.Series, table: pd.DataFrame) -> dict[str, Any]:
    source = table.loc[int(row["row"])]
    sizes = {
        str(key): _plain(value)
        for key, value in source.items()
        if key not in ("seconds", "op", "machine", "lab_disagreement")
    }
    return {"measured": float(row.measured), "predicted": float(row.predicted), "row": sizes}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def as_arrays(frame: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Measured and predicted seconds, for a picture."""
    return frame.measured.to_numpy(), frame.predicted.to_numpy()
