"""Fits the `mapping_` limits of a machine file: `python benchmarks/fit_mapping.py accel_gemmini_rtl.csv`.

Least mean absolute percentage error over the table's rows (Nelder-Mead from the file's figures); prints the figures, the error and the rank
correlation, of the fit and, over five folds of the rows, of fits that did not see them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import spearmanr

from codesign.costmodel.dataflow import target_of
from codesign.costmodel.dataflow.mapping import Figures, mapping_clocks
from codesign.costmodel.machine import load_machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from codesign.accelerator_tables import mapped_layers
from codesign.costmodel.tables import read_table

FITTED = ("request", "store", "least_pass", "switch", "tile", "hidden")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("--machine", default="gemmini_16x16")
    arguments = parser.parse_args()
    machine = load_machine(arguments.machine)
    target, start = target_of(machine), Figures.of(machine)
    table = read_table(arguments.table, target.clock_hz)
    layers = mapped_layers(table)
    measured = table["seconds"].to_numpy() * target.clock_hz

    def predicted(values: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        figures = Figures(start.request_bytes, **dict(zip(FITTED, np.abs(values[1:]).tolist(), strict=True)))
        return np.array([abs(values[0]) + mapping_clocks(target, figures, *layers[row]) for row in rows])

    def fit(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        def error(values: npt.NDArray[np.float64]) -> float:
            return float(np.mean(np.abs(predicted(values, rows) / measured[rows] - 1.0)))

        first = [target.launch_seconds * target.clock_hz, *(getattr(start, name) for name in FITTED)]
        found = minimize(error, first, method="Nelder-Mead", options={"maxfev": 1500})
        return np.asarray(np.abs(found.x), dtype=np.float64)

    every = np.arange(len(layers))
    best = fit(every)
    unseen = np.zeros(len(layers))
    folds = np.random.default_rng(0).permutation(len(layers)) % 5
    for fold in range(5):
        rows = np.flatnonzero(folds == fold)
        unseen[rows] = predicted(fit(np.flatnonzero(folds != fold)), rows)
    report = {"start_clocks": best[0], **dict(zip(FITTED, best[1:].tolist(), strict=True))}
    for name, prediction in (("fitted", predicted(best, every)), ("unseen", unseen)):
        errors = np.abs(prediction / measured - 1.0)
        report[name] = {
            "mape": float(errors.mean()),
            "p90": float(np.quantile(errors, 0.9)),
            "low": float(np.quantile(measured / prediction, 0.05)),
            "high": float(np.quantile(measured / prediction, 0.95)),
            "spearman": float(spearmanr(prediction, measured).statistic),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
