"""Rank quality on tuning spaces: does the model put good schedules first?"""

from __future__ import annotations

from itertools import product as cartesian
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import kendalltau

from codesign.costmodel import workloads
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.machine import Machine
from codesign.costmodel.tables import TableError, kernels_of, machine_rows

MIXTURE = {"BLOCK_SIZE_M", "BLOCK_SIZE_N", "num_warps"}
THREADED = {"MWG", "NWG", "MDIMC", "NDIMC"}
CONVOLUTION = {"block_size_x", "tile_size_x", "filter_height"}
FILTERED_IMAGE = 4096
"""Side of the image of the convolution's tuning space."""


def is_ranking(table: pd.DataFrame) -> bool:
    """True for tables whose rows are schedules of few kernels, and not times of many kernels."""
    return any(set(table.columns) >= names for names in (MIXTURE, THREADED, CONVOLUTION))


def rankings(table: pd.DataFrame, machine: Machine) -> list[dict[str, Any]]:
    """Rank quality of each space of a table."""
    picked = machine_rows(table, machine.name)
    if not len(picked):
        raise TableError(f"no rows of {machine.name} in the table")
    if set(table.columns) >= THREADED:
        return [{"space": "GEMM 4096^3 f32, one kernel's knobs", **_threaded(picked, machine)}]
    if set(table.columns) >= CONVOLUTION:
        raise TableError(
            "the convolution's tuning space has knobs (read-only and constant memory, padding) that the model does not speak of"
        )
    return [{"space": "mixture of experts", **_mixture(picked, machine)}]


def _threaded(table: pd.DataFrame, machine: Machine) -> dict[str, Any]:
    """A register-tiled f32 GEMM on the vector unit (CLBlast's kernel): blocks, threads, vector widths, staging
    through shared memory."""
    column = {name: table[name].to_numpy(dtype=np.float64) for name in table.columns if name in _CLBLAST}
    held_m, held_n = column["MWG"] / column["MDIMC"], column["NWG"] / column["NDIMC"]
    knobs = {
        "tile.m": column["MWG"],
        "tile.n": column["NWG"],
        "tile.k": column["KWG"],
        "warps": column["MDIMC"] * column["NDIMC"] / 32.0,
        "inner.thread.m": held_m,
        "inner.thread.n": held_n,
        "vector.m": column["VWM"],
        "vector.n": column["VWN"],
        "staged.m": column["SA"],
        "staged.n": column["SB"],
        "loaders.m": column["MDIMA"],
        "loaders.n": column["NDIMB"],
        "pipeline": np.ones(len(table)),
    }
    size = {"M": 4096.0, "N": 4096.0, "K": 4096.0}
    parameters = load_calibration(machine).parameters
    found = estimate(workloads.gemm("f32"), machine, knobs, size, parameters, ("m", "n"), compiled=False)
    fits = (found.occupancy.blocks >= 1.0) & (found.occupancy.shared_bytes <= found.occupancy.shared_limit)
    return quality(table.seconds.to_numpy(dtype=np.float64), np.where(fits, found.total, np.inf))


_CLBLAST = ("MWG", "NWG", "KWG", "MDIMC", "NDIMC", "MDIMA", "NDIMB", "VWM", "VWN", "SA", "SB")


def _mixture(table: pd.DataFrame, machine: Machine) -> dict[str, Any]:
    """Fused mixture-of-experts kernels: the table lists, for each shape, the schedules within about 1 % of the best.

    The model picks from the whole product of the knobs' values. Its pick is right when it is listed; `listed` says
    how often that is, `tile_listed` how often its block sizes are, `within_5_percent` the share of the listed picks
    within 5 % of the best.
    """
    parameters = load_calibration(machine).parameters
    knobs = {name: np.unique(table[name].to_numpy()) for name in _MIXTURE_KNOBS}
    grid = np.array(list(cartesian(*knobs.values())), dtype=np.float64).T
    columns = dict(zip(_MIXTURE_KNOBS.values(), grid, strict=True)) | {"tile.e": np.ones(grid.shape[1])}
    listed = tiles = close = shapes = 0
    losses = []
    for _, part in table.groupby(["M", "E", "topk", "H", "N"]):
        rows = next(iter(kernels_of(part)))
        sizes = {name: float(value[0]) for name, value in rows.sizes.items()}
        found = estimate(rows.kernel, machine, columns, sizes, parameters, ("e", "m", "n"))
        fits = (found.occupancy.blocks >= 1.0) & (found.occupancy.shared_bytes <= found.occupancy.shared_limit)
        fits &= found.occupancy.spilled <= 64.0
        pick = int(np.argmin(np.where(fits, found.total, np.inf)))
        chosen = {name: grid[position, pick] for position, name in enumerate(_MIXTURE_KNOBS)}
        same_tile = np.all([part[name] == chosen[name] for name in list(_MIXTURE_KNOBS)[:3]], axis=0)
        same = np.all([part[name] == chosen[name] for name in _MIXTURE_KNOBS], axis=0)
        shapes += 1
        tiles += bool(same_tile.any())
        if same.any():
            listed += 1
            loss = float(part.seconds[same].min() / part.seconds.min() - 1.0)
            losses.append(loss)
            close += loss <= 0.05
    return {
        "shapes": shapes,
        "listed": listed / shapes,
        "tile_listed": tiles / shapes,
        "within_5_percent": close / listed if listed else None,
        "mean_loss": float(np.mean(losses)) if losses else None,
    }


_MIXTURE_KNOBS = {
    "BLOCK_SIZE_M": "tile.m",
    "BLOCK_SIZE_N": "tile.n",
    "BLOCK_SIZE_K": "tile.k",
    "GROUP_SIZE_M": "group",
    "num_warps": "warps",
    "num_stages": "pipeline",
}


def quality(seconds: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Kendall's tau over a space, and regret: how far the best of the model's first 1, 5 and 10 is from the best
    measured."""
    ran = np.isfinite(seconds) & np.isfinite(predicted)
    measured, guess = seconds[ran], predicted[ran]
    order = np.argsort(guess, kind="stable")
    best = measured.min()
    regret = {f"regret_at_{n}": float(measured[order[:n]].min() / best - 1.0) for n in (1, 5, 10)}
    return {"rows": len(measured), "kendall_tau": float(kendalltau(measured, guess).statistic), **regret}
