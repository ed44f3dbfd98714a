"""What tables of measured times say about the constants of the GPU model that are no figures of a machine and not fitted for one.

`python benchmarks/constants.py TABLE:MACHINE ... [--rows N] [--only NAME ...]`: the mean absolute error of sampled rows with each constant as it
is and multiplied by the factors of `FACTORS`, all else as it ships. A constant that is right where it is has its least error near 1; one that no
row feels is said to be unmoved. Prints one JSON document on stdout, a line for each constant on stderr.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.tables import machine_rows, read_table
from codesign.costmodel.validation import predictions

FACTORS = (0.5, 0.8, 1.25, 2.0)
GPU = "codesign.costmodel.gpu"
CONSTANTS = {
    "OPERAND_CLOCKS": "timing",
    "ABSORBED": "timing",
    "SHARED_READ": "timing",
    "LONE_READ": "timing",
    "HIDING_WARPS": "timing",
    "VECTOR_LOAD": "timing",
    "STREAM_LOAD": "timing",
    "ARRIVAL": "streaming",
    "ALU_CLOCKS": "streaming",
    "SPECIAL_CLOCKS": "streaming",
    "L1_CLOCKS": "streaming",
    "TRIP_CLOCKS": "streaming",
    "REQUEST_CLOCKS": "streaming",
    "POWER_DELAY": "streaming",
    "POWER_SETTLING": "streaming",
    "INNER": "overlap",
    "CHAINED": "overlap",
    "THROTTLE": "overlap",
    "BARRIER_CLOCKS": "paths",
    "SPREAD": "paths",
    "LOOKUPS": "chains",
    "SUMS_IN_FLIGHT": "chains",
    "PARTS_IN_FLIGHT": "chains",
    "STREAM_KEPT": "traffic",
    "KEPT": "traffic",
    "READ_GAP": "traffic",
    "READ_OF_WRITE": "traffic",
    "APART": "traffic",
    "EPILOGUE": "library_work",
    "DIVISION_INTEGER": "library_work",
    "DIVISION_SPECIAL": "library_work",
}
"""The room of each."""

MOVED = 1e-6
"""Change of the mean error from which on rows feel a constant."""


@contextmanager
def changed(name: str, value: float) -> Iterator[None]:
    """The constant with another value, wherever it was imported to."""
    home = importlib.import_module(f"{GPU}.{CONSTANTS[name]}")
    before = getattr(home, name)
    rooms = [
        room for title, room in sys.modules.items() if title.startswith("codesign.") and vars(room).get(name) is before
    ]
    for room in rooms:
        setattr(room, name, value)
    try:
        yield
    finally:
        for room in rooms:
            setattr(room, name, before)


def error(sample: list[tuple[pd.DataFrame, Machine]]) -> float:
    """The mean absolute percentage error of the rows of all tables."""
    found: list[Any] = []
    for table, machine in sample:
        rows = predictions(table, machine)
        found.append(np.abs(rows["predicted"] / rows["measured"] - 1.0))
    return 100.0 * float(np.concatenate(found).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="TABLE:MACHINE")
    parser.add_argument("--rows", type=int, default=300, help="of each table, sampled")
    parser.add_argument("--only", nargs="*", choices=CONSTANTS, default=list(CONSTANTS))
    arguments = parser.parse_args()
    sample = []
    for text in arguments.tables:
        path, _, name = text.rpartition(":")
        table = machine_rows(read_table(path), name)
        sample.append((table.sample(min(arguments.rows, len(table)), random_state=0).sort_index(), load_machine(name)))
    whole = error(sample)
    rows = []
    for name in arguments.only:
        value = getattr(importlib.import_module(f"{GPU}.{CONSTANTS[name]}"), name)
        errors = {1.0: whole}
        for factor in FACTORS:
            with changed(name, value * factor):
                errors[factor] = error(sample)
            if abs(errors[factor] - whole) <= MOVED and factor == FACTORS[0]:
                break  # half of it is felt by no row
        moved = max(errors.values()) - min(errors.values()) > MOVED
        best = min(errors, key=lambda factor: errors[factor]) if moved else None
        rows.append({"constant": name, "value": value, "moved": moved, "best": best, "errors": errors})
        told = " ".join(f"x{factor:g} {errors[factor]:.2f}" for factor in sorted(errors))
        print(f"{name:17s} {value:8g} {told if moved else 'unmoved'}", file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "benchmark": "constants",
                "tables": [Path(text).name for text in arguments.tables],
                "rows": rows,
                "rows_of_each_table": arguments.rows,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
