"""Tables of library kernels with their launches: the schedule of each is what its name, grid and block say, and is not searched for.

Products in FP32 have their tile in the name; which sizes their results have is what the grid covers. Element-wise kernels, softmax
and layer norm are torch's, a vector of four elements a thread. Times are those of an eager stream and hold its launch.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel import workloads
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import REDUCE_MODES

if TYPE_CHECKING:  # the prices read this module's figures where no tables are installed
    import pandas as pd

Floats = npt.NDArray[np.float64]
Knobs = dict[str, float]

PRODUCTS = frozenset({"linear", "bmm", "mm", "matmul", "gemm"})
BINARY = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "pow": "pow"}
UNARY = {"addu": "add", "subu": "sub", "mulu": "mul", "divu": "div", "powu": "pow"}
"""Element-wise ops of a table and the scalar function of each; `u`: with a number."""
FUNCTIONS = frozenset({"relu", "tanh", "exp", "sqrt", "neg", "abs", "sigmoid"})
ROWS = frozenset({"softmax", "layer_norm"})

VECTOR = 4.0
"""Elements of 32 bits that a thread of torch's kernels loads at once."""


@dataclass(frozen=True)
class Launch:
    """Rows of a table that are one kernel under one launch: `picked` of the table, `sizes` by symbol; of a product the make of the
    kernel, and in how many slices its threads share out the summed dim."""

    op: str
    kernel: KernelSummary
    picked: npt.NDArray[np.bool_]
    sizes: dict[str, Floats]
    knobs: Knobs
    family: str = ""
    slices: float = 1.0


@dataclass(frozen=True)
class Family:
    """Library kernels of one make: what a thread issues besides its multiply-adds (see launched.toml)."""

    holds: str
    issue_share: float
    step_slots: float
    block_slots: float


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def launch_seconds() -> float:
    """What a time taken on an eager stream holds of launches."""
    return float(_data()["launch_seconds"])


def intervals() -> dict[str, dict[str, tuple[float, float]]]:
    """Factors of the 90 % interval by kind of kernel, for each machine that was measured."""
    known = _data()["intervals"].items()
    return {
        machine: {kind: (float(low), float(high)) for kind, (low, high) in kinds.items()} for machine, kinds in known
    }


@lru_cache(maxsize=1)
def _families() -> tuple[Family, ...]:
    return tuple(Family(*(entry[key] for key in Family.__annotations__)) for entry in _data()["kernels"])


def family_of(name: str) -> Family | None:
    """The make of a product's kernel; None for names that are not known."""
    return next((family for family in _families() if family.holds in name), None)


def is_priced(op: str, kernel: str, dtype: str) -> bool:
    """Whether a row's kernel is one that is known."""
    if dtype not in ("f32", "fp32", "float32", "float"):
        return False
    if op in PRODUCTS:
        return family_of(kernel) is not None and _tile(kernel) is not None
    return op in BINARY or op in UNARY or op in FUNCTIONS or op in ROWS


def launches(table: pd.DataFrame) -> Iterator[Launch]:
    """The kernels of a table whose rows are all priced."""
    ops = table["op"].astype(str).str.lower().to_numpy()
    for op in dict.fromkeys(ops):
        picked = ops == op
        if op in PRODUCTS:
            yield from _products(op, table, picked)
        elif op in ROWS:
            yield from _rows(op, table, picked)
        else:
            yield from _elements(op, table, picked)


def _column(table: pd.DataFrame, name: str) -> Floats:
    return table[name].to_numpy(dtype=np.float64) if name in table else np.ones(len(table))


def _alike(
    picked: npt.NDArray[np.bool_], *keys: npt.NDArray[Any]
) -> Iterator[tuple[tuple[Any, ...], npt.NDArray[np.bool_]]]:
    """The picked rows of equal keys."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for row in np.flatnonzero(picked).tolist():
        found.setdefault(tuple(values[row] for values in keys), []).append(row)
    for key, rows in found.items():
        alike = np.zeros(len(picked), dtype=np.bool_)
        alike[rows] = True
        yield key, alike


def _tile(name: str) -> tuple[float, float, float] | None:
    """Rows and columns of a product's tile, and in how many slices its threads share out the summed dim."""
    found = re.search(r"(\d+)x(\d+)", name)
    if found is None:
        return None
    sliced = re.search(r"sliced(\d+)x(\d+)", name)
    return float(found[1]), float(found[2]), float(sliced[1]) * float(sliced[2]) if sliced else 1.0


def _products(op: str, table: pd.DataFrame, picked: npt.NDArray[np.bool_]) -> Iterator[Launch]:
    names = table["kernel"].astype(str).to_numpy()
    block, batch = _column(table, "block"), _column(table, "batch")
    grid = [_column(table, f"grid_{axis}") for axis in "xyz"]
    split = np.where(batch > 1, 1.0, grid[2])
    for (name, threads, parts), rows in _alike(picked, names, block, split):
        tile, family = _tile(name), family_of(name)
        assert tile is not None
        assert family is not None
        first, second, slices = tile
        sizes = _result(table, rows, first, second, grid)
        m, n = sizes["M"], sizes["N"]
        columns = (np.ceil(n / first) == grid[0][rows]) & (np.ceil(m / second) == grid[1][rows])
        straight = (np.ceil(m / first) == grid[0][rows]) & (np.ceil(n / second) == grid[1][rows])
        turned = columns.sum() >= straight.sum()  # libraries lay results out by columns
        knobs = {
            "tile.z": 1.0, "tile.m": second if turned else first, "tile.n": first if turned else second, "tile.k": 8.0,
            "split.k": parts, "pipeline": 3.0, "warps": threads / 32.0, "group": 8.0, "vector_unit": 0.0,
            "step_slots": family.step_slots / slices, "block_slots": family.block_slots, "issue_share": family.issue_share,
        }  # fmt: skip
        yield Launch(op, workloads.products("f32"), rows, {**sizes, "B": batch[rows]}, knobs, family.holds, slices)


def _result(
    table: pd.DataFrame, rows: npt.NDArray[np.bool_], first: float, second: float, grid: list[Floats]
) -> dict[str, Floats]:
    """The sizes of results and of the summed dim, among m, n and k: a grid has a block for each tile of the result."""
    m, n, k = (_column(table, name)[rows] for name in "mnk")
    blocks = grid[0][rows] * grid[1][rows]

    def covered(columns: Floats) -> int:
        ways = (np.ceil(m / a) * np.ceil(columns / b) == blocks for a, b in ((first, second), (second, first)))
        return int(np.logical_or(*ways).sum())

    columns, summed = (n, k) if covered(n) > covered(k) else (k, n)
    return {"M": m, "N": columns, "K": summed}


def _elements(op: str, table: pd.DataFrame, picked: npt.NDArray[np.bool_]) -> Iterator[Launch]:
    count = _column(table, "batch") * _column(table, "m") * _column(table, "n")
    threads, blocks = _column(table, "block"), _column(table, "grid_x")
    each = np.exp2(np.ceil(np.log2(np.maximum(count / blocks, 1.0))))
    kernel = workloads.elementwise(BINARY.get(op) or UNARY.get(op) or op, 2 if op in BINARY else 1, op in UNARY)
    for (elements, width), rows in _alike(picked, each, threads):
        knobs = {"tile.n": elements, "warps": width / 32.0, "pipeline": 1.0, "access_bytes": 4.0 * VECTOR}
        yield Launch(op, kernel, rows, {"N": count[rows]}, knobs)


WARP_ROW = 1024.0
"""Longest row of torch's softmax that a warp holds in its registers."""


def _rows(op: str, table: pd.DataFrame, picked: npt.NDArray[np.bool_]) -> Iterator[Launch]:
    """Softmax and layer norm of rows: a warp holds short ones of a softmax, a block goes over long ones again."""
    rows_of, width = _column(table, "batch") * _column(table, "m"), _column(table, "n")
    threads = np.where(_column(table, "block") > 32.0, _column(table, "block"), 128.0)
    held = (width <= WARP_ROW) & (op == "softmax")
    kernel = workloads.softmax("f32") if op == "softmax" else workloads.layer_norm("f32")
    for (count, resident), rows in _alike(picked, threads, held):
        knobs = {
            "tile.t": 4.0 if resident else 1.0,
            "tile.n": count * VECTOR,
            "reduce.n": float(REDUCE_MODES.index("resident" if resident else "looped")),
            "warps": count / 32.0,
            "pipeline": 2.0,
            "access_bytes": 4.0 if resident else 4.0 * VECTOR,
        }
        yield Launch(op, kernel, rows, {"T": rows_of[rows], "N": width[rows]}, knobs)
