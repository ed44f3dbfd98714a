"""How a dim may be cut along a nest: all chains of factors, and of these the ones that no other beats in everything."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from codesign.costmodel.mapping.counting import Floats
from codesign.costmodel.mapping.nest import Loop, Nest

Ints = npt.NDArray[np.int64]


@lru_cache(maxsize=1024)
def divisors(value: int) -> tuple[int, ...]:
    """In ascending order."""
    small = [n for n in range(1, int(value**0.5) + 1) if value % n == 0]
    return tuple(sorted({*small, *(value // n for n in small)}))


@lru_cache(maxsize=256)
def factorisations(extent: int, most: tuple[int, ...]) -> Ints:
    """All ways [N, places] to write an extent as a product over places, none above its place's `most`; the first place takes any rest."""
    rests, columns = np.array([extent], dtype=np.int64), np.zeros((1, 0), np.int64)
    for limit in reversed(most[1:]):
        parts = [(np.flatnonzero(rests % n == 0), n) for n in divisors(extent) if n <= limit]
        rows = np.concatenate([at for at, _ in parts])
        factor = np.concatenate([np.full(len(at), n, dtype=np.int64) for at, n in parts])
        columns = np.concatenate([factor[:, None], columns[rows]], axis=1)
        rests = rests[rows] // factor
    return np.concatenate([rests[:, None], columns], axis=1)


@dataclass(frozen=True)
class Chains:
    """Chains of one dim [C] along a nest: the factor at each entry of it, and what they make of each point (arrays [points, C], `used` [axes, C]).

    `loops`, `space`, `sent`, `tile`, `alike`: as in `Factors`, the dim's part of each. `sizes`: its tile at each point.
    """

    dim: str
    factors: Ints
    loops: Floats
    space: Floats
    sent: Floats
    tile: Floats
    used: Floats
    sizes: Floats
    alike: Floats

    def __len__(self) -> int:
        return len(self.factors)

    def take(self, rows: Ints) -> Chains:
        """The chains of some rows."""
        arrays = (self.loops, self.space, self.sent, self.tile, self.used, self.sizes, self.alike)
        return Chains(self.dim, self.factors[rows], *(array[:, rows] for array in arrays))


def chains(nest: Nest, dim: str) -> Chains:
    """All chains of a dim."""
    at, extent = nest.loops_of(dim), nest.problem.extents[dim]
    picked = factorisations(extent, tuple(_most(nest, position, extent) for position in at))
    factors = np.ones((len(picked), len(nest.entries)), np.int64)
    factors[:, at] = picked
    return laid_out(nest, dim, factors)


def _most(nest: Nest, position: int, extent: int) -> int:
    entry = nest.entries[position]
    assert isinstance(entry, Loop)
    return extent if entry.axis is None else nest.hierarchy.axes[entry.axis].size


def laid_out(nest: Nest, dim: str, factors: Ints) -> Chains:
    """What given factors [C, entries] of a dim make of each point."""
    axes = nest.hierarchy.axes
    in_space = {at: axes[e.axis] for at, e in enumerate(nest.entries) if isinstance(e, Loop) and e.axis is not None}
    values = factors.T.astype(np.float64)
    one = np.ones((1, len(factors)))
    lies = np.array([at in in_space for at in range(len(nest.entries))])[:, None]
    in_time = np.concatenate([one, np.cumprod(np.where(lies, 1.0, values), axis=0)])
    beside = np.concatenate([one, np.cumprod(np.where(lies, values, 1.0), axis=0)])
    loops, space, sent, tile, sizes = (np.ones((len(nest.points), len(factors))) for _ in range(5))
    for number, point in enumerate(nest.points):
        sizes[number] = in_time[-1] * beside[-1] / (in_time[point.above] * beside[point.above])
        depends = dim in point.operand.dims
        if depends and dim not in point.operand.window_dims:
            tile[number] = sizes[number]
            continue
        loops[number], space[number] = in_time[point.above], beside[point.above]
        sent[number] = space[number]
        for at, axis in in_space.items():
            if point.above_parent < at < point.above and not depends and point.operand.role in axis.carries:
                sent[number] /= values[at]
    used = np.stack([values[at] for at in in_space]) if in_space else np.ones((0, len(factors)))
    linked = [point.operand.dims for point in nest.points] if nest.hierarchy.linked else []
    alike = [one[0] if dim in dims else values[at] for dims in linked for at in in_space]
    none = np.ones((0, len(factors)))
    return Chains(dim, factors, loops, space, sent, tile, used, sizes, np.stack(alike) if alike else none)


def undominated(columns: Floats, groups: Ints) -> Ints:
    """Rows of [C, columns] for which no other row of the same group is as low or lower in every column; one of those that are equal."""
    order = np.lexsort((columns.sum(axis=1), groups))
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    kept = [rows[_lowest(columns[rows])] for rows in np.split(order, ends)]
    return np.sort(np.concatenate(kept))


_SQUARE = 256


def _lowest(columns: Floats) -> Ints:
    """Rows, of some in the order of their sums, that no earlier one is as low as in every column."""
    if len(columns) <= _SQUARE:
        lower = np.ones((len(columns), len(columns)), dtype=np.bool_)
        for column in columns.T:
            lower &= column[:, None] <= column[None, :] * (1.0 + 1e-12)
        return np.flatnonzero(~np.triu(lower, 1).any(axis=0))
    kept, rows = [], np.arange(len(columns))
    while len(rows):
        first, rows = rows[0], rows[1:]
        kept.append(first)
        rows = rows[(columns[rows] * (1.0 + 1e-12) < columns[first]).any(axis=1)]
    return np.array(kept, dtype=np.int64)
