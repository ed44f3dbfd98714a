"""Schedules of a batch by structure: those whose kernels are one template, as far as a cost model can tell.

Sizes of a template are symbols, so its kernels differ in numbers alone. What shapes the text: which dims are looped, held whole or folded, which
reductions have lanes and masks, and which products are wide enough for a matrix unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from codesign.costmodel.features import Features, features
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import ScheduleError
from codesign.ir.index import Bounds
from codesign.ir.schedule import REDUCE_MODES, Schedule
from codesign.ir.template import Template
from codesign.ir.tensor import Fusion
from codesign.ir.tiling.domain import SMALLEST_DOT, next_power_of_two
from codesign.ir.tiling.templates import template

Columns = Mapping[str, npt.NDArray[np.int64]]
RESIDENT = REDUCE_MODES.index("resident")

NARROW, WIDE = SMALLEST_DOT // 2, SMALLEST_DOT
"""Tiles that stand for others: those below and those at least as long as a side of a matrix product."""


@dataclass(frozen=True, eq=False)
class Text:
    """A template with its features."""

    template: Template
    features: Features


@dataclass(frozen=True)
class Structure:
    """Schedules (`rows`) of one `text`. `looped`: the dims that it loops over; `reason`: why there is none."""

    rows: npt.NDArray[np.int64]
    looped: frozenset[str]
    text: Text | None
    reason: str = ""


def structures(
    kernel: KernelSummary, extents: Mapping[str, int], columns: Columns, count: int, sizes: Mapping[str, int]
) -> Iterator[Structure]:
    """The structures of a batch of schedules, given as columns."""
    tiles = {dim: columns.get(f"tile.{dim}", np.ones(1, dtype=np.int64)) for dim in extents}
    looped = {dim: (_mode(columns, dim) != RESIDENT) & (tiles[dim] < extents[dim]) for dim in kernel.inner}
    marks = _marks(kernel, extents, columns, tiles, looped)
    codes = np.zeros(count, dtype=np.int64)
    for mark in marks.values():
        codes = codes * (int(mark.max()) + 1) + mark
    _, firsts, which = np.unique(codes, return_index=True, return_inverse=True)
    for number, first in enumerate(firsts):
        shown = {name: _at(mark, int(first)) for name, mark in marks.items()}
        loops = frozenset(dim for dim in kernel.inner if shown[f"loop.{dim}"])
        rows = np.flatnonzero(which == number)
        found = _text(kernel, extents, columns, int(first), shown, sizes)
        if isinstance(found, str):
            yield Structure(rows, loops, None, found)
        else:
            yield Structure(rows, loops, found)


def _mode(columns: Columns, dim: str) -> npt.NDArray[np.int64]:
    return columns.get(f"reduce.{dim}", np.zeros(1, dtype=np.int64))


def _at(column: npt.NDArray[np.int64], row: int) -> int:
    return int(column[row if len(column) > 1 else 0])


def _marks(
    kernel: KernelSummary,
    extents: Mapping[str, int],
    columns: Columns,
    tiles: Mapping[str, npt.NDArray[np.int64]],
    looped: Mapping[str, npt.NDArray[np.bool_]],
) -> dict[str, npt.NDArray[np.int64]]:
    """What of each schedule shapes the text, as small numbers."""
    size = {dim: 1 * (tile > 1) + (tile >= SMALLEST_DOT) for dim, tile in tiles.items()}
    products = [nest.contraction for nest in kernel.nests if nest.contraction and nest.contraction.unit is not None]
    multiplied = {dim for one in products for dim in (*one.m, *one.n, *one.k)}
    found: dict[str, npt.NDArray[np.int64]] = {}
    for dim in kernel.inner:
        whole = np.maximum(tiles[dim], next_power_of_two(extents[dim]))
        size[dim] = np.where(looped[dim], size[dim], 1 * (whole > 1) + (whole >= SMALLEST_DOT))
        mode = _mode(columns, dim)
        if kernel.extents[dim].is_constant:  # what has one step is held whole
            mode = np.where(looped[dim], mode, RESIDENT)
        found[f"loop.{dim}"] = looped[dim].astype(np.int64)
        found[f"mode.{dim}"] = mode
        found[f"size.{dim}"] = size[dim] if dim in multiplied else np.minimum(size[dim], 1)
        ragged = np.where(looped[dim], extents[dim] % np.maximum(tiles[dim], 1) != 0, extents[dim] != whole)
        found[f"ragged.{dim}"] = ragged.astype(np.int64)
    fits: npt.NDArray[np.bool_] = np.zeros(1, dtype=np.bool_)
    for one in products:
        sides = [
            np.logical_and(sum(size[d] > 0 for d in side) == 1, sum(size[d] > 1 for d in side) == 1)
            for side in (one.m, one.n, one.k)
        ]
        plain = sum((1 * (size[dim] > 0) for dim in one.batch), np.zeros(1, dtype=np.int64)) == 0
        fits = fits | (sides[0] & sides[1] & sides[2] & plain)
    for dim in dict.fromkeys(d for one in products for d in (*one.m, *one.n, *one.batch) if d not in kernel.inner):
        found[f"size.{dim}"] = np.where(fits, size[dim], 1)
    if "partial" in columns:
        found["partial"] = columns["partial"]
    found.update({name: column for name, column in columns.items() if name == "joined" or ".stage." in name})
    return {name: np.asarray(mark, dtype=np.int64) for name, mark in found.items()}


_KNOWN: WeakKeyDictionary[Fusion, dict[object, Text | str]] = WeakKeyDictionary()


def _text(
    kernel: KernelSummary,
    extents: Mapping[str, int],
    columns: Columns,
    row: int,
    shown: Mapping[str, int],
    sizes: Mapping[str, int],
) -> Text | str:
    """The text of a structure, or why there is none, found out once for a group."""
    assert kernel.group is not None
    tiles, reduce = {}, {}
    for dim in extents:
        if dim in kernel.inner:
            tiles[dim] = _at(columns.get(f"tile.{dim}", np.ones(1, dtype=np.int64)), row)
            reduce[dim] = REDUCE_MODES[shown[f"mode.{dim}"]]
        else:
            tiles[dim] = (1, NARROW, WIDE)[shown.get(f"size.{dim}", 1)]
    extras = {"partial": shown["partial"]} if "partial" in shown else {}
    held = any(mode == "resident" for mode in reduce.values()) and bool(sizes)
    key = (*shown.items(), *(sorted(sizes.items()) if held else ()))
    known = _KNOWN.setdefault(kernel.group, {})
    if key not in known:
        bounds = Bounds({}, {name: (size, size) for name, size in sizes.items()}) if held else None
        try:
            made, _ = template(
                kernel.group,
                Schedule(tiles, reduce=reduce, extras=extras),
                bounds=bounds,
                outputs=kernel.outputs,
                reach=kernel.reach,
            )
            known[key] = Text(made, features(made.kernel))
        except ScheduleError as error:
            known[key] = str(error.args[0])
    return known[key]
