"""How far errors reach beyond the residuals of calibrated regimes, learned by leaving out: `python benchmarks/left_out.py TABLE ...`.

Each calibrated machine of the tables is predicted from the parameters of each other one; implementations of attention are
predicted with the constants of what is typical. What is printed is the spread that brings the coverage of the 90 % intervals to
90 %: the figures of `costmodel/parameters/distances.toml`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from codesign.costmodel.gpu.parameters import Calibration, calibration_like, calibrations, load_calibration
from codesign.costmodel.machine import load_machine
from codesign.costmodel.tables import machine_rows, read_table
from codesign.costmodel.validation import predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=150, help="rows of each op, machine and way of leaving out")
    arguments = parser.parse_args()
    tables = [read_table(path) for path in arguments.tables]
    frames: dict[str, list[pd.DataFrame]] = {}
    for way, calibration, target, table in _left_out(tables, arguments.rows):
        found = predictions(table, load_machine(target), calibration)
        frames.setdefault(way, []).append(found)
    report = {way: _learned(pd.concat(parts)) for way, parts in frames.items()}
    print(json.dumps(report, indent=1))


def _left_out(tables: list[pd.DataFrame], rows: int) -> Iterator[tuple[str, Calibration, str, pd.DataFrame]]:
    """Ways of leaving out: which, the calibration that is left, the machine, and rows of it."""
    for target in calibrations():
        machine = load_machine(target)
        for table in tables:
            mine = machine_rows(table, target)
            if not len(mine):
                continue
            keys = [key for key in ("phase", "kernel_source", "op", "dtype") if key in mine]
            parts = [part.sample(min(len(part), rows), random_state=0) for _, part in mine.groupby(keys)]
            picked = pd.concat(parts).reset_index(drop=True)
            for donor in calibrations():
                if donor != target:
                    yield "generation", _bare(calibration_like(donor, machine)), target, picked
            if "kernel_source" in picked:
                own = load_calibration(machine)
                typical = {"typical": own.implementations["typical"]} if "typical" in own.implementations else {}
                yield "implementation", _bare(replace(own, implementations=typical)), target, picked


def _bare(calibration: Calibration) -> Calibration:
    """The calibration with intervals of their regimes alone: what distances add is what is asked for."""
    return replace(calibration, spread=_families(calibration))


def _families(calibration: Calibration) -> dict[str, tuple[float, float]]:
    donor = load_calibration(load_machine(calibration.transferred or calibration.machine))
    return {key: pair for key, pair in donor.spread.items() if key.split(":")[0] in ("contraction", "chain")}


def _learned(frame: pd.DataFrame) -> dict[str, float]:
    """The spread that covers 90 %, and the coverage without it."""
    error = np.log(frame.measured.to_numpy() / frame.predicted.to_numpy())
    side = np.where(error < 0, np.log(frame.low / frame.predicted), np.log(frame.high / frame.predicted))
    beyond = np.sqrt(np.maximum(error**2 - side**2, 0.0))
    return {
        "rows": len(frame),
        "mape": round(float(np.abs(np.expm1(-error)).mean()), 3),
        "covered": round(float((np.abs(error) <= np.abs(side)).mean()), 3),
        "spread": round(float(np.quantile(beyond, 0.9)), 3),
    }


if __name__ == "__main__":
    main()
