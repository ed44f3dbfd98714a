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

    def spared(self, dim: str) -> Array:
        """Whether some core never works on the last tile of a dim of the grid: others do, or it has fewer programs than the dim has."""
        if dim not in self.layout.blocks:
            return np.zeros(1, dtype=np.bool_)
        few = (np.asarray(self.layout.gangs) > 1) & (self.layout.rounds < self.layout.blocks[dim])
        return np.asarray((np.asarray(self.layout.whole[dim]) > 1) | few)
