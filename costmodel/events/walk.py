"""The order in which a grid's blocks start: block numbers to tile coordinates and back.

It is the order of the generated code: grid dims slowest first, and with `group` > 1 that many tiles of the second-last
dim walk together along the last one, so that a wave covers a squarer box and shares more in L2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

PART = "(part)"
"""Name of the coordinate that says which part of a split reduction a block does."""


@dataclass(frozen=True)
class Walk:
    """`dims` with their block counts, slowest first, without those of one block; parts of a split reduction come before
    all.
    """

    dims: tuple[str, ...]
    counts: tuple[int, ...]
    group: int

    @staticmethod
    def of(blocks: Mapping[str, int], order: tuple[str, ...], parts: int, group: int) -> Walk:
        """The walk over `blocks` (dim -> count); dims that `order` leaves out follow in their own order."""
        names = [PART, *dict.fromkeys((*(dim for dim in order if dim in blocks), *blocks))]
        sizes = {**blocks, PART: parts}
        kept = [name for name in names if sizes[name] > 1]
        return Walk(tuple(kept), tuple(sizes[name] for name in kept), group if len(kept) > 1 else 1)

    @property
    def blocks(self) -> int:
        total = 1
        for count in self.counts:
            total *= count
        return total

    def coordinates(self, numbers: Ints) -> dict[str, Ints]:
        """Tile coordinates of blocks given by number."""
        found: dict[str, Ints] = {}
        left = numbers
        dims = list(zip(self.dims, self.counts, strict=True))
        if self.group > 1:
            (slow, rows), (fast, columns) = dims[-2:]
            dims = dims[:-2]
            plane = left % (rows * columns)
            left = left // (rows * columns)
            size = self.group * columns
            first = plane // size * self.group
            height = np.minimum(rows - first, self.group)
            found[slow] = first + plane % size % height
            found[fast] = plane % size // height
        for name, count in reversed(dims):
            found[name] = left % count
            left = left // count
        return found

    def numbers(self, coordinates: Mapping[str, Ints]) -> Ints:
        """Block numbers of tile coordinates; a dim not given is at zero, which gives a panel's first block."""
        zero = np.zeros(1, dtype=np.int64)
        number = zero
        dims = list(zip(self.dims, self.counts, strict=True))
        grouped = dims[-2:] if self.group > 1 else []
        for name, count in dims[: len(dims) - len(grouped)]:
            number = number * count + coordinates.get(name, zero)
        if grouped:
            (slow, rows), (fast, columns) = grouped
            row, column = coordinates.get(slow, zero), coordinates.get(fast, zero)
            first = row // self.group * self.group
            height = np.minimum(rows - first, self.group)
            number = number * (rows * columns) + first * columns + column * height + (row - first)
        return number
