"""How many steps loops make along dims that masks cut: in the mean over the programs of a grid, of the longest one, and of the slowest core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from codesign.costmodel.distinct import distinct
from codesign.ir.index import Index, ceildiv, index, maximum
from codesign.ir.reach import Reach, Stretch

Array = Any
"""A NumPy array over schedules, or a Python number; they broadcast."""

MOST_PROGRAMS = 1 << 14
"""Programs along one dim that are looked at one by one; of more, so many that lie evenly."""


class Visits(NamedTuple):
    """Steps, for each schedule: in the `mean` over all programs, of the one that makes `most`, and in the mean over the programs of
    one core, of the core that makes most (`slowest`)."""

    mean: Array
    most: Array
    slowest: Array


@dataclass(frozen=True)
class Visited:
    """Steps of a loop, `all` together and in each of its stretches."""

    all: Visits
    parted: Mapping[Stretch, Visits] = field(default_factory=dict)

    @property
    def whole(self) -> Array:
        """Mean steps in which masks leave everything."""
        return self.parted["whole"].mean if self.parted else 0.0


def visited(
    reach: Reach,
    dim: str,
    tile: Mapping[str, Array],
    blocks: Mapping[str, Array],
    extents: Mapping[str, Array],
    symbols: Mapping[str, Array],
    parts: Mapping[str, Array] | None = None,
) -> Visited:
    """Steps of a loop along a dim, for schedules with these tiles and programs (`blocks`) along the dims of the grid.

    `parts`: into how many neighbours dims of the grid are cut, which are worked on side by side; a core takes the same one of each
    (none: one core takes all).
    """
    parts = parts or {}
    names = sorted((reach.variables & extents.keys()) - {dim})
    stretches, trips = _trips(reach, tuple(names))
    along = [name for name in names if name in blocks]
    given = {"step": tile[dim], "extent": extents[dim], **symbols}
    given |= {f"{name} tile": tile[name] for name in along} | {f"{name} blocks": blocks[name] for name in along}
    given |= {f"{name} extent": extents[name] for name in names}
    given |= {f"{name} parts": parts[name] for name in along if name in parts}
    shape = np.broadcast_shapes(*(np.shape(value) for value in given.values()))
    different, places = distinct(list(given.values()))
    results = [
        _of_programs(trips, tuple(names), tuple(along), tuple(zip(given, values.tolist(), strict=True)))
        for values in different
    ]
    columns = [np.array(column, dtype=np.float64) for column in zip(*results, strict=True)]
    found = [column[places].reshape(shape) if shape else float(column[0]) for column in columns]
    every, *others = (Visits(*found[at : at + 3]) for at in range(0, len(found), 3))
    return Visited(every, dict(zip(stretches, others, strict=True)))


@lru_cache(maxsize=1 << 10)
def _trips(reach: Reach, names: tuple[str, ...]) -> tuple[tuple[Stretch, ...], tuple[Index, ...]]:
    """Steps of a loop, all of them and those of each stretch, over the first and last values of dims in a program."""
    ends = {name: (f"{name} first", f"{name} last") for name in names}
    stretches = reach.stretches(ends, "extent", "step")
    every = (reach.over(ends, "extent", "step"), *stretches.values())
    return tuple(stretches), tuple(index(maximum(ceildiv(upper - lower, "step"), 0)) for lower, upper in every)


@lru_cache(maxsize=1 << 16)
def _of_programs(
    trips: tuple[Index, ...], names: tuple[str, ...], along: tuple[str, ...], given: tuple[tuple[str, int], ...]
) -> tuple[float, ...]:
    """Of each expression of trips, its mean and most over the programs of a grid, and the mean of the slowest core; all else is numbers."""
    known: dict[str, Any] = dict(given)
    counts = [known[f"{name} blocks"] for name in along]
    programs = np.meshgrid(*(_programs(count) for count in counts), indexing="ij", sparse=True)
    for name in names:
        known[f"{name} first"], known[f"{name} last"] = 0, known[f"{name} extent"] - 1
    for name, each, count in zip(along, programs, counts, strict=True):
        if count > 1:
            known[f"{name} first"] = each * known[f"{name} tile"]
            known[f"{name} last"] = known[f"{name} first"] + known[f"{name} tile"] - 1
    parted = any(f"{name} parts" in known for name in along)
    cut = [known.get(f"{name} parts", 1) for name in along]
    row: list[float] = []
    for one in trips:
        steps = np.broadcast_to(np.asarray(one.evaluate(known)), [each.size for each in programs])
        mean = steps.mean()
        row += [mean, steps.max(), _slowest(steps, cut) if parted else mean]
    return tuple(row)


def _slowest(steps: np.ndarray[Any, np.dtype[Any]], cut: Sequence[int]) -> float:
    """Steps of the core that makes most, of all programs' [blocks along each dim]."""
    for axis, many in enumerate(cut):
        count = steps.shape[axis]
        own = [steps.take(range(part, count, many), axis).mean(axis) for part in range(min(many, count))]
        steps = np.stack(own, axis)
    return float(steps.max())


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
        mean = visited(left, dim, ones, {n: e for n, e in extents.items() if n not in reach}, extents, needed).all.mean
        found[dim] = float(mean) / float(extents[dim])
    return found


def _programs(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if count <= MOST_PROGRAMS:
        return np.arange(count)
    return (np.arange(MOST_PROGRAMS) * count) // MOST_PROGRAMS
