"""Library mode: what a well-tuned library would take is the best schedule of a rich space under the model.

Sizes may be arrays: a whole table of measured shapes is priced at once, rows x schedules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from itertools import product as cartesian
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.gpu.geometry import FOLD, LOOPED, RESIDENT, wide_of
from codesign.costmodel.gpu.habits import splits_offered
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.timing import Estimate, estimate
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import UnsupportedError

Columns = dict[str, npt.NDArray[np.float32]]

VECTOR_SPLITS = (1, 2, 4, 8, 16)
"""Parts of the reduction of matrix-vector kernels."""
CLUSTERS = {1: ((2, 1), (1, 2), (2, 2)), 2: ((2, 1), (1, 2), (2, 2), (4, 1), (1, 4), (4, 2), (2, 4))}
"""Blocks along both sides that share operands by multicast, where warp groups multiply and with tensor memory."""

CLUSTERED = {1: 128 * 128, 2: 64 * 64}
"""Least results of a tile that is shared in clusters."""

ENTRIES = 16384
"""Prices of rows and schedules that are worked out together: what amortises the work of a call and stays in a core's cache."""

SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


@dataclass(frozen=True)
class Best:
    """For each row of sizes: least seconds, and which schedule of the space gives them."""

    seconds: npt.NDArray[np.float64]
    choice: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Near:
    """For each row of sizes the least seconds, and the pairs of a `row` and a `schedule` that are near it, row by row."""

    seconds: npt.NDArray[np.float64]
    row: npt.NDArray[np.int64]
    schedule: npt.NDArray[np.int64]


def library_space(kernel: KernelSummary, machine: Machine) -> Columns:
    """A rich space of schedules for a kernel as columns: what a library's authors would have tried."""
    return _space(
        kernel,
        machine.limit("shared_per_block_bytes"),
        wide_of(machine),
    )


def tiled_space(kernel: KernelSummary, machine: Machine, tiles: tuple[tuple[int, ...], tuple[int, ...]]) -> Columns:
    """Schedules of a product in tiles of these rows and columns, of which a rule says which one is taken (`_own_tile`): steps of 128 bytes of k,
    as many stages as a block may have, alone and with a neighbour along the columns that gets the same rows."""
    (product,) = (nest.contraction for nest in kernel.nests if nest.contraction is not None)
    m, n, k = product.m[-1], product.n[-1], product.k[0]
    shared, bytes_each = machine.limit("shared_per_block_bytes"), product.left.bytes
    rows = []
    for tm, tn, sharers in cartesian(*tiles, (1, 2)):
        stages = min((shared - 2.0 * tm * tn) // ((tm + tn) * 128), 8)
        tile = {f"tile.{m}": tm, f"tile.{n}": tn, f"tile.{k}": 128 / bytes_each, f"cluster.{n}": sharers}
        rows.append({**tile, "pipeline": stages, "group": 8, "warps": 8 if tm * tn >= 128 * 128 else 4})
    return {name: np.array([row[name] for row in rows], dtype=np.float32) for name in rows[0]}


@lru_cache(maxsize=64)
def _space_cached(key: int, shared: float, wide: int) -> Columns:
    return _build(_KERNELS[key], shared, wide)


_KERNELS: dict[int, KernelSummary] = {}


def _space(kernel: KernelSummary, shared: float, wide: int) -> Columns:
    _KERNELS[id(kernel)] = kernel
    return _space_cached(id(kernel), shared, wide)


def _build(kernel: KernelSummary, shared: float, wide: int) -> Columns:
    contractions = [nest for nest in kernel.nests if nest.contraction is not None]
    rows: list[dict[str, float]] = []
    if len(contractions) == 1 and not any(nest.reductions for nest in kernel.nests if nest.contraction is None):
        rows = _contraction_rows(kernel, shared, wide)
    elif contractions:
        rows = _chained_rows(kernel)
    else:
        rows = _streaming_rows(kernel)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.array([row.get(name, 1.0) for row in rows], dtype=np.float32) for name in names}


def _contraction_rows(kernel: KernelSummary, shared: float, wide: int) -> list[dict[str, float]]:
    nest = next(nest for nest in kernel.nests if nest.contraction is not None)
    found = nest.contraction
    assert found is not None
    (m, *m_rest), (n, *n_rest), (k, *k_rest) = reversed(found.m), reversed(found.n), found.k
    bytes_each = found.left.bytes
    rest = {f"tile.{dim}": 1.0 for dim in (*m_rest, *n_rest, *k_rest, *found.batch)}
    rows: list[dict[str, float]] = []
    for tm, tn in _tile_shapes(wide):
        for tk in _steps(tm, tn, bytes_each, wide):
            stage = (tm + tn) * tk * bytes_each
            fitting = sorted(
                {
                    int(min(max(shared / blocks // stage, 2), 8 if wide else 5))
                    for blocks in ((1, 2) if wide else (1, 2, 4))
                }
            )
            for stages in fitting:
                if stage * stages > shared:
                    continue
                for split in SPLITS:
                    row: dict[str, float] = {
                        f"tile.{m}": tm,
                        f"tile.{n}": tn,
                        f"tile.{k}": tk,
                        "pipeline": stages,
                        "group": 8,
                        f"split.{k}": split,
                    }
                    row.update({"warps": 8 if tm * tn >= 128 * 128 else 4, "vector_unit": 0, **rest})
                    rows.append(row)
                    if wide and tm * tn >= CLUSTERED[wide] and split <= 2:
                        rows += [{**row, f"cluster.{m}": a, f"cluster.{n}": b} for a, b in CLUSTERS[wide]]
    for tm, tn, tk, split in (
        () if wide else cartesian((1,), (4, 8), (256, 512), VECTOR_SPLITS)
    ):  # matrix-vector kernels
        row = {
            f"tile.{m}": tm,
            f"tile.{n}": tn,
            f"tile.{k}": tk,
            "pipeline": 2,
            f"split.{k}": split,
            "warps": 4,
            "vector_unit": 1,
        }
        rows.append({**row, **rest})
    return rows


def _steps(tm: int, tn: int, bytes_each: float, wide: int) -> list[int]:
    """Elements of k of one stage: 64 of 16 bits, or as many bytes of narrower ones; for small tiles twice as many as well
    where operands are copied in bulk, and half as many where they are not, but for the smallest, which have twice as many alone."""
    whole = int(128 / min(bytes_each, 2.0))
    if not wide:
        return [2 * whole] if tm * tn == 16 * 16 else [whole // 2, whole]
    return [whole] if tm * tn > 64 * 128 else [whole, 2 * whole]


def _tile_shapes(wide: int) -> list[tuple[int, int]]:
    """Tiles that libraries have: powers of two for warp-level mma; for warp-group mma one side in steps of 64 rows,
    the other in steps of 16."""
    if not wide:
        sides = (32, 64, 128, 256)
        return [(16, 16), *((a, b) for a, b in cartesian(sides, sides) if a * b <= 256 * 128)]
    shapes = {
        (a, b)
        for a, b in cartesian((64, 128, 192, 256), (8, *range(16, 257, 16)))
        if a * b <= 256 * 128 and (a < 192 or b >= 64)
    }
    return sorted(shapes | {(b, a) for a, b in shapes})


def _chained_rows(kernel: KernelSummary) -> list[dict[str, float]]:
    """Contractions that meet in one loop, as in attention: rows x keys tiles, the loop over keys shared, head dims
    whole."""
    first, last = (nest for nest in kernel.nests if nest.contraction is not None)
    assert first.contraction
    assert last.contraction
    shared_dims = [dim for dim in first.contraction.n if dim in last.reductions]
    if len(shared_dims) != 1:
        raise UnsupportedError(f"{kernel.name}: no library space for this chain of contractions")
    loop = shared_dims[0]
    rows = []
    queries = [dim for dim in first.contraction.m if dim in kernel.outer]
    for side, step, warps, stages, split in cartesian(
        (16, 64, 128), (32, 64, 128), (4, 8), (2, 3), (1, 2, 4, 8, 16, 32)
    ):
        for packed in ((queries[-1], *queries[:-1]),):
            row: dict[str, float] = {
                f"tile.{loop}": step,
                f"reduce.{loop}": FOLD,
                f"split.{loop}": split,
                "warps": warps,
                "pipeline": stages,
            }
            row[f"tile.{packed[0]}"] = side
            row.update({f"tile.{dim}": 1 for dim in packed[1:]})
            for dim in kernel.inner:
                if dim != loop:
                    row[f"reduce.{dim}"] = RESIDENT
            rows.append(row)
    return rows


def _streaming_rows(kernel: KernelSummary) -> list[dict[str, float]]:
    """Element-wise kernels and row reductions: rows a block, elements of the fastest dim, warps."""
    rows = []
    fast = kernel.outer[-1] if not kernel.inner else kernel.inner[-1]
    slow = [dim for dim in kernel.outer if dim != fast]
    for count, length, warps in cartesian((1, 2, 4, 8), (128, 256, 512, 1024, 2048, 4096), (4, 8, 16)):
        row: dict[str, float] = {"warps": warps, f"tile.{fast}": length, "pipeline": 2}
        for position, dim in enumerate(reversed(slow)):
            row[f"tile.{dim}"] = count if position == 0 else 1
        row.update({f"reduce.{dim}": LOOPED for dim in kernel.inner})
        rows.append(row)
        if kernel.inner and length == 1024:
            rows.append({**row, f"reduce.{fast}": RESIDENT})
    return rows


def library(
    kernel: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, npt.NDArray[Any]],
    parameters: Parameters,
    columns: Columns | None = None,
) -> Best:
    """Least seconds over the space for each row of sizes (arrays of one length), so many rows at a time as make ENTRIES prices.

    Parameters may be arrays [points, 1, 1]: the best of each row at each point.
    """
    space = columns if columns is not None else library_space(kernel, machine)
    parts = [
        (np.min(total, axis=-1).astype(np.float64), np.argmin(total, axis=-1))
        for total in _totals(kernel, machine, sizes, parameters, space)
    ]
    if not parts:
        return Best(np.zeros(0), np.zeros(0, dtype=np.int64))
    seconds, choice = zip(*parts, strict=True)
    return Best(np.concatenate(seconds, axis=-1), np.concatenate(choice, axis=-1))


def nearby(
    kernel: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, npt.NDArray[Any]],
    parameters: Parameters,
    space: Columns,
    within: float,
) -> Near:
    """The least seconds of each row of sizes, and the schedules that take no longer than `within` in the logarithm of it."""
    seconds, rows, schedules, start = [np.zeros(0)], [], [], 0
    for total in _totals(kernel, machine, sizes, parameters, space):
        least = np.min(total, axis=-1, keepdims=True)
        row, schedule = np.nonzero(total <= least * np.exp(within))
        seconds.append(least[:, 0].astype(np.float64))
        rows.append(start + row)
        schedules.append(schedule)
        start += len(total)
    none = np.zeros(0, dtype=np.int64)
    return Near(np.concatenate(seconds), np.concatenate([none, *rows]), np.concatenate([none, *schedules]))


def least_of(
    kernel: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, npt.NDArray[Any]],
    parameters: Parameters,
    space: Columns,
    near: Near,
) -> npt.NDArray[np.float64]:
    """Least seconds of each row of sizes over the schedules near its best; of each point [points, rows] where the parameters are arrays of them."""
    first = np.searchsorted(near.row, np.arange(len(near.seconds)))
    cuts = np.searchsorted(first, np.arange(0, len(near.row), ENTRIES))  # rows, so many pairs at a time
    parts = []
    for start, end in pairwise(np.unique([*cuts, len(first)]).tolist()):
        pairs = slice(first[start], first[end] if end < len(first) else None)
        knobs = {name: column[near.schedule[pairs]][:, None] for name, column in space.items()}
        each = {name: np.asarray(value[near.row[pairs]], dtype=np.float32)[:, None] for name, value in sizes.items()}
        total = estimate(kernel, machine, knobs, each, parameters, compiled=False).total[..., 0]
        parts.append(np.minimum.reduceat(total, first[start:end] - first[start], axis=-1).astype(np.float64))
    return np.concatenate(parts, axis=-1)


def _totals(
    kernel: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, npt.NDArray[Any]],
    parameters: Parameters,
    space: Columns,
) -> Iterator[npt.NDArray[Any]]:
    """Seconds of rows of sizes by schedules, of so many rows at a time; infinity where a library does not offer the schedule."""
    chunk = max(64, ENTRIES // len(next(iter(space.values()))))
    for start in range(0, len(next(iter(sizes.values()))), chunk):
        part = {
            name: np.asarray(value[start : start + chunk], dtype=np.float32)[:, None] for name, value in sizes.items()
        }
        found = estimate(kernel, machine, space, part, parameters, compiled=False)
        offered = _suits(kernel, space, part) & splits_offered(kernel, machine, space, part) & _own_tile(space, part)
        suits = np.broadcast_to(_fits(found) & offered, found.total.shape)
        none = ~suits.any(
            axis=-1, keepdims=True
        )  # a shape that no schedule of the space fits: a library has some kernel for it
        yield np.where(suits | none, found.total, np.inf)


def _suits(kernel: KernelSummary, space: Columns, sizes: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Matrix-vector kernels are offered by libraries for a single row only."""
    nest = next((nest for nest in kernel.nests if nest.contraction is not None), None)
    if nest is None or nest.contraction is None or "vector_unit" not in space:
        return True
    rows: Any = 1.0
    for dim in nest.contraction.m:
        extent = kernel.extents[dim]
        rows = rows * (extent.constant if extent.is_constant else extent.evaluate(sizes))
    return np.less_equal(rows, 1.0) | np.less(space["vector_unit"], 1.0)


def _own_tile(space: Columns, sizes: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Where the sizes say which tile a library takes for each product, and how many blocks share its rows: schedules of that one."""
    if "tile_rows" not in sizes:
        return True
    same: Any = np.equal(space["tile.m"], sizes["tile_rows"]) & np.equal(space["tile.n"], sizes["tile_columns"])
    return same & np.equal(space["cluster.n"], sizes["tile_sharers"])


def _fits(found: Estimate) -> Any:
    o = found.occupancy
    return (
        (np.less_equal(o.shared_bytes, o.shared_limit))
        & (o.blocks >= 1.0)
        & (o.spilled <= 256.0)
        & (o.threads <= o.threads_limit)
    )


def thin(
    kernel: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, npt.NDArray[Any]],
    tried: list[Parameters],
    columns: Columns | None = None,
    rows: int = 800,
) -> Columns:
    """The part of a space that is best for some of a sample of rows under some of the parameters: what a search over
    many rows needs."""
    space = columns if columns is not None else library_space(kernel, machine)
    count = len(next(iter(sizes.values())))
    picked = np.random.default_rng(0).permutation(count)[:rows]
    sample = {name: value[picked] for name, value in sizes.items()}
    used: set[int] = set()
    for parameters in tried:
        used.update(library(kernel, machine, sample, parameters, space).choice.tolist())
    keep = np.array(sorted(used))
    return {name: column[keep] for name, column in space.items()}


def chosen(
    kernel: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, npt.NDArray[Any]],
    parameters: Parameters,
    space: Columns,
    best: Best,
) -> Estimate:
    """The estimate of each row's best schedule, as arrays over rows."""
    knobs = {name: column[best.choice].astype(np.float64) for name, column in space.items()}
    whole = {name: np.asarray(v, dtype=np.float64) for name, v in sizes.items()}
    return estimate(kernel, machine, knobs, whole, parameters, compiled=False)
