"""Tile sizes of a batch of schedules, as arrays over the schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codesign.ir.reach import Stretch

if TYPE_CHECKING:
    from codesign.costmodel.dataflow.space import Layout
    from codesign.costmodel.dataflow.turns import Turn

Array = Any
"""A NumPy array over schedules, or a Python number; they broadcast."""
Some = slice | npt.NDArray[np.int64]
"""Which of the schedules."""
EVERY = slice(None)
"""All of them."""


def cut(figure: Array, rows: Some) -> Array:
    """A figure of some of the schedules."""
    return figure[rows] if isinstance(figure, np.ndarray) and figure.size > 1 else figure


@dataclass
class Shape:
    """Sizes under a set of schedules.

    By dim: `tile` lanes (of a dim that is held whole all), `mean` average of those inside the extent (`extents`), `trips` steps that cover it,
    `made` steps of a loop along it in the mean over the grid, fewer where a mask cuts it, and `longest` those of the core that makes
    most; `parted`: both of each stretch of such a loop. `grid`: program instances, which lie on the cores as `layout` says and are taken in
    `turns`; `staged`: by place, which operands a schedule stages in its memory. `joined`: in one launch with the program before.
    """

    tile: dict[str, Array]
    mean: dict[str, Array]
    trips: dict[str, Array]
    made: dict[str, Array]
    longest: dict[str, Array]
    inner: frozenset[str]
    grid: Array
    layout: Layout
    pipeline: Array
    partial: Array
    symbols: Mapping[str, float]
    extents: Mapping[str, int]
    turns: Sequence[Turn] = ()
    staged: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    joined: bool = False
    resting: Mapping[str, int] = field(default_factory=dict)
    """By operand and result that is not in DRAM, the port of the memory where it is."""
    parted: Mapping[tuple[str, Stretch], tuple[Array, Array]] = field(default_factory=dict)

    def sizes(self, which: Mapping[str, Array]) -> dict[str, Array]:
        return {**self.symbols, **{f"tile:{dim}": size for dim, size in which.items()}}

    def points(self, dims: tuple[str, ...]) -> Array:
        """Lanes of a tile over some dims."""
        total: Array = 1.0
        for dim in dims:
            total = total * self.tile[dim]
        return total

    def last(self, dim: str) -> Array:
        """Lanes of the last tile of a dim inside its extent."""
        return self.extents[dim] - (self.trips[dim] - 1.0) * self.tile[dim]

    def met(self, dim: str) -> Array:
        """The share of the last tile of a dim among the programs of the core that has most to do: it meets none where others do.

        Programs are dealt to the cores in turn, a dim's tiles coming again after all its own and those of the dims that go faster. So a core never
        meets the last one when it has fewer programs than the dim has tiles, or when the turns of the cores and those of the tiles have a factor in
        common; but for the one core that has more programs than all others, since the last of all is its own. So it is
        with the tiles of a dim that is split over the cores, where they leave one over.
        """
        end = 1.0 / np.asarray(self.trips[dim], dtype=np.float64)
        layout = self.layout
        if dim not in layout.blocks:
            return end
        names = list(layout.blocks)
        blocks, gangs = np.asarray(layout.blocks[dim], np.int64), np.asarray(layout.gangs, np.int64)
        faster, total = np.ones(1, np.int64), np.ones(1, np.int64)
        for name in names:
            many = np.asarray(layout.blocks[name], np.int64)
            total = total * many
            faster = faster * (many if names.index(name) > names.index(dim) else 1)
        few = (gangs > 1) & (layout.rounds < blocks)
        apart = (gangs % faster == 0) & (np.gcd(gangs // faster, blocks) > 1)
        alone = total - gangs * (np.asarray(layout.rounds, np.int64) - 1) == 1
        met = np.where(few | apart, np.where(alone, 1.0 / layout.rounds, 0.0), end)
        split = np.asarray(layout.whole[dim], np.float64)
        own = (np.asarray(self.trips[dim]) % split == 1) & (gangs == 1)
        return np.where(end < 1.0, np.where(split > 1, np.where(own, 1.0 / blocks, 0.0), met), 1.0)
