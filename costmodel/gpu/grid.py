"""Schedules of a batch as points of a grid: what only few knobs choose is worked out for their values, not for each schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from codesign.costmodel.distinct import distinct
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.taking import Rows, taken

AXES = ("group", "pipeline", "warps")
"""Knobs with an axis of their own: the order in which blocks run, how far loads run ahead, and how many threads share a tile. The less depends on
one, the sooner it comes."""

FEWEST = 1024
"""Schedules up to which a grid saves no time."""

MOST_IN_VAIN = 1.5
"""Points of a grid for each schedule of a batch, up to which the whole grid is priced."""


@dataclass(frozen=True)
class Grid:
    """Points [*axes, rest]: `knobs` has the values of each axis along it, and those of the other knobs along the last. `ranks`: where each schedule
    is along each axis, and along the last as the last; empty where the points are the schedules."""

    knobs: Mapping[str, Array]
    rest: int
    axes: tuple[int, ...] = ()
    ranks: tuple[Rows, ...] = ()

    @property
    def points(self) -> int:
        return prod(self.axes) * self.rest

    def places(self, shapes: Sequence[tuple[int, ...]]) -> Rows | None:
        """Of each schedule among the points laid flat, which come in parts of these `shapes` [*axes, rest]: an axis of 1 stands for all points along
        it. None where the points are the schedules."""
        if not self.ranks:
            return None
        *along, rest = self.ranks
        sizes = [shape[-1] for shape in shapes]
        part: Rows | int = np.repeat(np.arange(len(shapes)), sizes)[rest] if len(shapes) > 1 else 0
        points = np.cumsum([0, *(prod(shape) for shape in shapes[:-1])])
        found: Rows = rest + (points - np.cumsum([0, *sizes[:-1]]))[part]
        for axis, rank in enumerate(along):
            steps = [prod(shape[axis + 1 :]) if shape[axis] > 1 else 0 for shape in shapes]
            if any(steps):
                found += rank * np.array(steps)[part]
        return found

    @staticmethod
    def of(knobs: Mapping[str, Array], count: int) -> Grid:
        """The grid of a batch, or the batch as it is where its schedules are too few of the points."""
        axes = [name for name in AXES if len(knobs.get(name, ())) > 1]
        if count < FEWEST or not axes:
            return Grid(knobs, count)
        other = [name for name in knobs if name not in axes]
        stands, rest = _kinds([knobs[name] for name in other], count)
        ranks = {name: distinct([knobs[name]]) for name in axes}
        while axes and prod(len(ranks[name][0]) for name in axes) * len(stands) > MOST_IN_VAIN * count:
            other.append(last := axes.pop())
            stands, rest = _kinds([rest, ranks[last][1]], count)
        if not axes:
            return Grid(knobs, count)
        values = {name: taken(knobs[name], stands, count) for name in other}
        for place, name in enumerate(axes):
            found, _ = ranks[name]
            values[name] = found.astype(knobs[name].dtype).reshape(-1, *[1] * (len(axes) - place))
        sizes = tuple(len(ranks[name][0]) for name in axes)
        return Grid(values, len(stands), sizes, (*(ranks[name][1] for name in axes), rest))


def _kinds(columns: list[Array], count: int) -> tuple[Rows, Rows]:
    """Schedules that stand for all that are like them in some columns, and of each schedule which of those it is like."""
    found, which = distinct([*columns, np.zeros(count)])
    stands = np.empty(len(found), dtype=np.intp)
    stands[which] = np.arange(count)
    return stands, which
