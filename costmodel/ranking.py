"""Rank quality on tuning spaces: does the model put good schedules first?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import kendalltau

from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.machine import Machine
from codesign.costmodel.tables import TableError, kernels_of, machine_rows

MIXTURE = {"BLOCK_SIZE_M", "BLOCK_SIZE_N", "num_warps"}


def is_ranking(table: pd.DataFrame) -> bool:
    """True for tables whose rows are schedules of few kernels, and not times of many kernels."""
    return set(table.columns) >= MIXTURE


def rankings(table: pd.DataFrame, machine: Machine) -> list[dict[str, Any]]:
    """Rank quality of each space of a table."""
    picked = machine_rows(table, machine.name)
    if not len(picked):
        raise TableError(f"no rows of {machine.name} in the table")
    parameters = load_calibration(machine).parameters
    found = []
    for rows in kernels_of(picked):
        knobs = {name: column.astype(np.float64) for name, column in (rows.columns or {}).items()}
        predicted = np.broadcast_to(estimate(rows.kernel, machine, knobs, rows.sizes, parameters).total, (len(rows.seconds),))
        found.append({"op": rows.op, **_listed(rows.site, rows.seconds, predicted)})
    return found


def _listed(site: npt.NDArray[np.int64], seconds: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Among the schedules that are listed for each shape: how far the model's first choice is from the best."""
    frame = pd.DataFrame({"site": site, "seconds": seconds, "predicted": predicted})
    first = frame.loc[frame.groupby("site").predicted.idxmin()]
    best = frame.groupby("site").seconds.min()
    loss = first.set_index("site").seconds / best - 1.0
    return {"shapes": len(best), "rows": len(frame), "within_5_percent": float((loss <= 0.05).mean()), "mean_loss": float(loss.mean())}


def quality(seconds: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Kendall's tau over a space, and regret: how far the best of the model's first 1, 5 and 10 is from the best measured."""
    ran = np.isfinite(seconds) & np.isfinite(predicted)
    measured, guess = seconds[ran], predicted[ran]
    order = np.argsort(guess, kind="stable")
    best = measured.min()
    regret = {f"regret_at_{n}": float(measured[order[:n]].min() / best - 1.0) for n in (1, 5, 10)}
    return {"rows": len(measured), "kendall_tau": float(kendalltau(measured, guess).statistic), **regret}
