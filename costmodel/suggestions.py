"""Which products to measure on a machine: the rows of a table that `codesign.calibrate` reads, without their times."""

from __future__ import annotations

from itertools import product as cartesian

import numpy as np
import pandas as pd

from codesign.costmodel.calibration import LIBRARY_FIT, Fitted
from codesign.costmodel.fitting import prepare
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.information import design, known_of, slopes
from codesign.costmodel.machine import Machine
from codesign.costmodel.tables import kernels_of

ROWS = (1, 2, 8, 16, 17, 48, 64, 128, 129, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384)
SITES = (64, 256, 512, 1024, 1536, 2048, 3072, 4096, 5120, 8192, 14336, 28672)
"""Rows (with some just past a tile's edge), columns and summed sizes of products that are worth asking for."""

LONGEST = 0.05
"""Seconds that a product may take at the roofline: longer ones say no more and take their time to measure."""

CANDIDATES = 800
"""Products among which the design chooses."""


def candidates(machine: Machine, dtype: str = "bf16") -> pd.DataFrame:
    """Products that fit in the machine's memory three times over and are not long, a sample of all combinations of sizes."""
    shapes = np.array(list(cartesian(ROWS, SITES, SITES)), dtype=np.float64)
    m, n, k = shapes.T
    bytes_of = 2.0 * (m * k + n * k + m * n)
    room = machine.need(machine.levels[0].capacity_bytes, f"levels.{machine.levels[0].name}.capacity_bytes")
    rate = machine.rate("tensor", dtype) or machine.rate("vector", "f32") or 1e12
    useful = shapes[(6.0 * bytes_of < room) & (2.0 * m * n * k / rate < LONGEST)].astype(np.int64)
    picked = np.sort(np.random.default_rng(0).permutation(len(useful))[:CANDIDATES])
    table = pd.DataFrame(useful[picked], columns=["m", "n", "k"])
    return table.assign(machine=machine.name, op="gemm", dtype=dtype, seconds=1.0)


def suggest(machine: Machine, p: Parameters, fits: list[Fitted], count: int) -> pd.DataFrame:
    """The products that add most to what some fits know of a library's parameters; with why each is there."""
    table = candidates(machine)
    (rows,) = kernels_of(table, machine)
    fitted = next((each for each in fits if each.names == LIBRARY_FIT), None)
    (felt,) = slopes([prepare(rows, machine, p)], machine, p, LIBRARY_FIT)
    before = [felt[:0]] if fitted is None else slopes(fitted.prepared, machine, p, LIBRARY_FIT)
    weight = 1.0 if fitted is None else fitted.weight
    chosen = design(known_of(before, weight), felt * np.sqrt(weight), rows.site, LIBRARY_FIT, count)
    picked = table.iloc[[each.row for each in chosen]].drop(columns="seconds")
    informs = [f"{each.parameter} -{each.lowers:.0%}" for each in chosen]
    return picked.assign(gain=[round(each.gain, 4) for each in chosen], informs=informs).reset_index(drop=True)
