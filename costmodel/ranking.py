"""Rank quality on tuning spaces: does the model put good schedules first?"""

from __future__ import annotations

from itertools import product as cartesian
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import kendalltau

from codesign.costmodel import workloads
from codesign.costmodel.gpu.parameters import Parameters, load_calibration
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.machine import Machine
from codesign.costmodel.rows import Rows, TableError
from codesign.costmodel.tables import kernels_of, machine_rows

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
        return [{"space": "filtered image 4096 x 4096 f32, one kernel's knobs", **_filtered(picked, machine)}]
    return [{"space": "mixture of experts", **_mixture(picked, machine, table)}]


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
        "inner.thread.k": column["KWI"],
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


_CLBLAST = ("MWG", "NWG", "KWG", "KWI", "MDIMC", "NDIMC", "MDIMA", "NDIMB", "VWM", "VWN", "SA", "SB")


def _filtered(table: pd.DataFrame, machine: Machine) -> dict[str, Any]:
    """Rank quality on the space of a filter over an image."""
    predicted, fits = filtered_image(table, machine)
    return quality(table.seconds.to_numpy(dtype=np.float64), np.where(fits, predicted, np.inf))


def filtered_image(table: pd.DataFrame, machine: Machine) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Predicted seconds of a filter over an image on the vector unit (Kernel Tuner's kernel): threads of a block lie in rows, hold results a
    block apart, and read the image through shared memory, L1 or the texture path; taps come from constant memory. And which schedules
    fit the machine.

    With `use_padding` the rows of shared memory are as far apart as puts a warp's two rows beside each other.
    """
    column = {name: table[name].to_numpy(dtype=np.float64) for name in _FILTER}
    threads = {"x": column["block_size_x"], "y": column["block_size_y"]}
    held = {"x": column["tile_size_x"], "y": column["tile_size_y"]}
    taps = {"x": column["filter_width"], "y": column["filter_height"]}
    width = threads["x"] * held["x"] + taps["x"] - 1.0
    padding = np.where(column["use_padding"] > 0, np.mod(threads["x"] - width, 32.0), 0.0)
    knobs = {
        "tile.o": np.ones(len(table)),
        "tile.r": taps["y"],
        "tile.s": taps["x"],
        "warps": np.ceil(threads["x"] * threads["y"] / machine.limit("warp_size")),
        "pipeline": np.ones(len(table)),
        "pitch.x": width + padding,
        "staged.x": column["use_shmem"],
        "read_only.x": column["read_only"],
    }
    for dim in ("x", "y"):
        knobs |= {
            f"tile.{dim}": threads[dim] * held[dim],
            f"inner.thread.{dim}": held[dim],
            f"apart.{dim}": threads[dim],
        }
    side = float(FILTERED_IMAGE)
    sizes = {"O": 1.0, "Y": side, "X": side, "R": taps["y"], "S": taps["x"]}
    parameters = load_calibration(machine).parameters
    found = estimate(workloads.filtered_image("f32"), machine, knobs, sizes, parameters, ("y", "x"), compiled=False)
    fits = (found.occupancy.blocks >= 1.0) & (found.occupancy.shared_bytes <= found.occupancy.shared_limit)
    return np.broadcast_to(found.total, len(table)), np.broadcast_to(fits, len(table))


_FILTER = (
    "block_size_x",
    "block_size_y",
    "tile_size_x",
    "tile_size_y",
    "filter_width",
    "filter_height",
    "use_padding",
    "use_shmem",
    "read_only",
)


def _mixture(table: pd.DataFrame, machine: Machine, tried: pd.DataFrame) -> dict[str, Any]:
    """Fused mixture-of-experts kernels: the table lists, for each shape, the schedules within about 1 % of the best.

    The model picks among the schedules that are listed for any shape of any machine (`tried`: each was built and timed
    somewhere). Its pick is right when it is listed for the shape; `listed` says how often it is, `chance` how often a
    random pick would be, `listed_at_5` and `listed_at_10` how often one of its first 5 and 10 is, `tile_listed` how
    often its block sizes are, `within_5_percent` the share of the listed picks within 5 % of the best. `percentile` is
    where the model ranks the median listed schedule, `predicted_loss` how much slower than its pick it holds the best
    listed one to be, both medians over shapes; `time_mape` the error of the predicted times of listed schedules.
    `listed_of_product` is `listed` for picks from the whole product of the knobs' values.
    """
    parameters = load_calibration(machine).parameters
    names = list(_MIXTURE_KNOBS)
    some = tried[names].drop_duplicates().sort_values(names).to_numpy(dtype=np.int64)
    whole = np.array(list(cartesian(*(np.unique(tried[name].to_numpy()) for name in names))), dtype=np.int64)
    found = [_mixture_shape(part, machine, parameters, some, whole) for _, part in table.groupby(_MIXTURE_SHAPE)]
    right = [entry for entry in found if entry["listed"]]
    mean = ("chance", "listed", "listed_at_5", "listed_at_10", "tile_listed", "listed_of_product", "time_mape")
    return {
        "shapes": len(found),
        "schedules": len(some),
        **{name: float(np.mean([entry[name] for entry in found])) for name in mean},
        "within_5_percent": float(np.mean([entry["loss"] <= 0.05 for entry in right])) if right else None,
        "mean_loss": float(np.mean([entry["loss"] for entry in right])) if right else None,
        **{name: float(np.median([entry[name] for entry in found])) for name in ("percentile", "predicted_loss")},
    }


def _mixture_shape(
    part: pd.DataFrame,
    machine: Machine,
    parameters: Parameters,
    some: npt.NDArray[np.int64],
    whole: npt.NDArray[np.int64],
) -> dict[str, float]:
    """The figures of `_mixture` for the rows of one shape."""
    rows = next(iter(kernels_of(part)))
    sizes = {name: float(value[0]) for name, value in rows.sizes.items()}
    total = _mixture_seconds(rows, machine, parameters, sizes, some)
    best = part.groupby(list(_MIXTURE_KNOBS)).seconds.min()
    seconds = best.reindex(pd.MultiIndex.from_arrays(list(some.T))).to_numpy(dtype=np.float64)
    listed = np.isfinite(seconds)
    order = np.argsort(total, kind="stable")
    pick = order[0]
    tiles = {tuple(row) for row in some[listed][:, :3].tolist()}
    other = whole[np.argmin(_mixture_seconds(rows, machine, parameters, sizes, whole))]
    place = np.empty(len(order))
    place[order] = np.arange(len(order))
    runs = listed & np.isfinite(total)
    return {
        "chance": float(listed.mean()),
        "listed": float(listed[pick]),
        "listed_at_5": float(listed[order[:5]].any()),
        "listed_at_10": float(listed[order[:10]].any()),
        "tile_listed": float(tuple(some[pick, :3].tolist()) in tiles),
        "listed_of_product": float(tuple(other.tolist()) in best.index),
        "loss": float(seconds[pick] / np.nanmin(seconds) - 1.0),
        "percentile": float(np.median(place[listed]) / np.isfinite(total).sum()),
        "predicted_loss": float(total[listed].min() / total[pick] - 1.0),
        "time_mape": float(np.abs(total[runs] / seconds[runs] - 1.0).mean()) if runs.any() else 1.0,
    }


def _mixture_seconds(
    rows: Rows, machine: Machine, parameters: Parameters, sizes: dict[str, float], schedules: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Predicted seconds of schedules given as rows of knobs; infinite for those that do not fit or spill."""
    columns = dict(zip(_MIXTURE_KNOBS.values(), schedules.T.astype(np.float64), strict=True))
    columns["tile.e"] = np.ones(len(schedules))
    found = estimate(rows.kernel, machine, columns, sizes, parameters, ("e", "m", "n"))
    fits = (found.occupancy.blocks >= 1.0) & (found.occupancy.shared_bytes <= found.occupancy.shared_limit)
    return np.where(fits & (found.occupancy.spilled <= 64.0), found.total, np.inf)


_MIXTURE_SHAPE = ["M", "E", "topk", "H", "N"]
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
