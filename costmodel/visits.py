"""How many steps loops make along dims that masks cut: in the mean over the programs of a grid, and of the longest one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from codesign.costmodel.distinct import distinct
from codesign.ir.index import ceildiv, index, maximum
from codesign.ir.reach import Reach

Array = Any
"""A NumPy array over schedules, or a Python number; they broadcast."""

MOST_PROGRAMS = 1 << 14
"""Programs along one dim that are looked at one by one; of more, so many that lie evenly."""


def visited(
    reach: Reach,
    dim: str,
    tile: Mapping[str, Array],
    blocks: Mapping[str, Array],
    extents: Mapping[str, Array],
    symbols: Mapping[str, Array],
) -> tuple[Array, Array]:
    """Mean and most steps of a loop along a dim, for schedules with these tiles and programs (`blocks`) along the dims of the grid."""
    mean, most = _over_programs(
        reach, dim, tile, blocks, extents, symbols, {}, lambda steps, _: (steps.mean(), steps.max())
    )
    return mean, most


def slowest(
    reach: Reach,
    dim: str,
    tile: Mapping[str, Array],
    blocks: Mapping[str, Array],
    extents: Mapping[str, Array],
    symbols: Mapping[str, Array],
    parts: Mapping[str, Array],
) -> Array:
    """Steps of a loop along a dim in the mean over the programs of one core, of the core that makes most.

    `parts`: into how many neighbours each dim of the grid is cut, which are worked on side by side; a core takes the same one of each.
    """

    def most(steps: Steps, cut: list[int]) -> tuple[float]:
        for axis, many in enumerate(cut):
            count = steps.shape[axis]
            own = [steps.take(range(part, count, many), axis).mean(axis) for part in range(min(many, count))]
            steps = np.stack(own, axis)
        return (steps.max(),)

    (found,) = _over_programs(reach, dim, tile, blocks, extents, symbols, parts, most)
    return found


Steps = np.ndarray[Any, np.dtype[Any]]


def _over_programs(
    reach: Reach,
    dim: str,
    tile: Mapping[str, Array],
    blocks: Mapping[str, Array],
    extents: Mapping[str, Array],
    symbols: Mapping[str, Array],
    parts: Mapping[str, Array],
    figures: Callable[[Steps, list[int]], tuple[float, ...]],
) -> list[Array]:
    """Figures of the steps of all programs along the dims of the grid that a reach hangs on (and of their parts), for each schedule."""
    names = sorted((reach.variables & extents.keys()) - {dim})
    ends = {name: (f"{name} first", f"{name} last") for name in names}
    lower, upper = reach.over(ends, "extent", "step")
    trips = maximum(ceildiv(upper - lower, "step"), 0)
    along = [name for name in names if name in blocks]
    given = {"step": tile[dim], "extent": extents[dim], **symbols}
    given |= {f"{name} tile": tile[name] for name in along} | {f"{name} blocks": blocks[name] for name in along}
    given |= {f"{name} extent": extents[name] for name in names}
    given |= {f"{name} parts": parts[name] for name in along if name in parts}
    shape = np.broadcast_shapes(*(np.shape(value) for value in given.values()))
    different, places = distinct(list(given.values()))
    results: list[tuple[float, ...]] = []
    for values in different:
        known: dict[str, Any] = dict(zip(given, values.tolist(), strict=True))
        counts = [known[f"{name} blocks"] for name in along]
        programs = np.meshgrid(*(_programs(count) for count in counts), indexing="ij", sparse=True)
        for name in names:
            known[f"{name} first"], known[f"{name} last"] = 0, known[f"{name} extent"] - 1
        for name, each, count in zip(along, programs, counts, strict=True):
            if count > 1:
                known[f"{name} first"] = each * known[f"{name} tile"]
                known[f"{name} last"] = known[f"{name} first"] + known[f"{name} tile"] - 1
        found = np.asarray(index(trips).evaluate(known))
        steps = np.broadcast_to(found, [each.size for each in programs])
        results.append(figures(steps, [known.get(f"{name} parts", 1) for name in along]))
    columns = [np.array(column, dtype=np.float64) for column in zip(*results, strict=True)]
    return [column[places].reshape(shape) if shape else float(column[0]) for column in columns]


def shares_left(
    reach: Mapping[str, Reach], extents: Mapping[str, Array], symbols: Mapping[str, Array]
) -> dict[str, float]:
    """Of each dim that masks cut, the share of its values that they leave, in the mean over the values of the other dims.

    `extents`, `symbols`: numbers.
    """
    ones = dict.fromkeys(extents, 1.0)
    found: dict[str, float] = {}
    for dim, left in reach.items():
        needed = {name: size for name, size in symbols.items() if name in left.variables}
        mean, _ = visited(left, dim, ones, {n: e for n, e in extents.items() if n not in reach}, extents, needed)
        found[dim] = float(mean) / float(extents[dim])
    return found


def _programs(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if count <= MOST_PROGRAMS:
        return np.arange(count)
    return (np.arange(MOST_PROGRAMS) * count) // MOST_PROGRAMS
