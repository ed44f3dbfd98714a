"""Mappings of a nest put together from one chain of each dim, partly or in whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from codesign.costmodel.mapping.chains import Chains, Ints
from codesign.costmodel.mapping.counting import Factors, Floats
from codesign.costmodel.mapping.nest import Nest


@dataclass(frozen=True)
class Edge:
    """The least that any chain of a dim makes of each point ([points, 1, 1]), and the least and the most instances that it uses ([axes, 1, 1])."""

    dim: str
    loops: Floats
    space: Floats
    sent: Floats
    tile: Floats
    sizes: Floats
    least: Floats
    most: Floats

    @staticmethod
    def of(part: Chains) -> Edge:
        arrays = (part.loops, part.space, part.sent, part.tile, part.sizes, part.used)
        loops, space, sent, tile, sizes, used = (array.min(axis=1)[:, None, None] for array in arrays)
        return Edge(part.dim, loops, space, sent, tile, sizes, used, part.used.max(axis=1)[:, None, None])


Each = Sequence[Floats]
"""An array for each point (or axis), [N, 1], [1, C] or [N, C]."""


@dataclass(frozen=True)
class State:
    """Mappings of which some dims are cut, [N, C]: products over these of what their chains make of each point. `sizes`: tiles of dims of windows;
    `picked`: the row of each dim's chains."""

    loops: Each
    space: Each
    sent: Each
    tile: Each
    used: Each
    alike: Each
    sizes: Mapping[str, Each]
    picked: Mapping[str, Ints]
    shape: tuple[int, int]

    @staticmethod
    def none(nest: Nest) -> State:
        """One mapping of which no dim is cut yet."""
        ones = [np.ones((1, 1))] * len(nest.points)
        used = [np.ones((1, 1))] * len(nest.hierarchy.axes)
        alike = used * len(nest.points) if nest.hierarchy.linked else []
        return State(ones, ones, ones, ones, used, alike, {}, {}, (1, 1))

    def flat(self, rows: Ints) -> State:
        """The mappings of some rows, counted along N and then C, as [N, 1]."""

        def taken(arrays: Each) -> Each:
            return [np.broadcast_to(array, self.shape).reshape(-1)[rows][:, None] for array in arrays]

        each = (self.loops, self.space, self.sent, self.tile, self.used, self.alike)
        sizes = {dim: taken(arrays) for dim, arrays in self.sizes.items()}
        picked = {dim: np.broadcast_to(at, self.shape).reshape(-1)[rows][:, None] for dim, at in self.picked.items()}
        loops, space, sent, tile, used, alike = (taken(arrays) for arrays in each)
        return State(loops, space, sent, tile, used, alike, sizes, picked, (len(rows), 1))

    def rows(self, start: int, end: int) -> State:
        """Some of the mappings of a flat state."""

        def cut(arrays: Each) -> Each:
            return [array if len(array) == 1 else array[start:end] for array in arrays]

        each = (self.loops, self.space, self.sent, self.tile, self.used, self.alike)
        sizes = {dim: cut(arrays) for dim, arrays in self.sizes.items()}
        picked = {dim: at[start:end] for dim, at in self.picked.items()}
        loops, space, sent, tile, used, alike = (cut(arrays) for arrays in each)
        return State(loops, space, sent, tile, used, alike, sizes, picked, (min(end, self.shape[0]) - start, 1))

    def joined(self, nest: Nest, part: Chains) -> State:
        """Each mapping of a flat state with each chain of one dim more."""
        picked = {**self.picked, part.dim: np.arange(len(part))[None, :]}
        return self._times(nest, part, lambda row: row[None, :], picked, (self.shape[0], len(part)))

    def beside(self, nest: Nest, part: Chains) -> State:
        """Each mapping with the chain of its own row of one dim more."""
        return self._times(nest, part, lambda row: row[:, None], self.picked, (len(part), 1))

    def _times(
        self,
        nest: Nest,
        part: Chains,
        laid: Callable[[Floats], Floats],
        picked: Mapping[str, Ints],
        shape: tuple[int, int],
    ) -> State:
        """Products with what the chains of a dim make of each point, which are `laid` along N or C."""
        window = any(part.dim in operand.window_dims for operand in nest.problem.operands)
        sizes = {**self.sizes, part.dim: [laid(row) for row in part.sizes]} if window else self.sizes
        pairs = (
            (self.loops, part.loops),
            (self.space, part.space),
            (self.sent, part.sent),
            (self.tile, part.tile),
            (self.used, part.used),
            (self.alike, part.alike),
        )
        loops, space, sent, tile, used, alike = (
            [mine if (row == 1.0).all() else mine * laid(row) for mine, row in zip(arrays, rows, strict=True)]
            for arrays, rows in pairs
        )
        return State(loops, space, sent, tile, used, alike, sizes, picked, shape)

    def factors(self, nest: Nest, rest: Sequence[Edge] = ()) -> Factors:
        """As they are priced; with dims that are not cut yet at the least that these cost."""
        loops, space, sent, tile, used = self.loops, self.space, self.sent, self.tile, self.used
        for edge in rest:
            loops, space, sent, tile, used = (
                [mine if row[0, 0] == 1.0 else mine * row for mine, row in zip(arrays, rows, strict=True)]
                for arrays, rows in (
                    (loops, edge.loops),
                    (space, edge.space),
                    (sent, edge.sent),
                    (tile, edge.tile),
                    (used, edge.most),
                )
            )
        if rest:
            used = [np.minimum(mine, float(axis.size)) for mine, axis in zip(used, nest.hierarchy.axes, strict=True)]
        sizes = {**self.sizes, **{edge.dim: list(edge.sizes) for edge in rest}}
        return Factors(loops, space, sent, tile, _windows(nest, sizes), used, not rest, self.alike)

    def within(self, nest: Nest, wanted: Sequence[float], rest: Sequence[Edge] = ()) -> npt.NDArray[np.bool_]:
        """Which use no more of an axis than there is, with the least that dims which are not cut yet use, and with the most as many as are
        `wanted`."""
        found = np.ones((1, 1), dtype=np.bool_)
        for number, (used, axis) in enumerate(zip(self.used, nest.hierarchy.axes, strict=True)):
            least = prod(float(edge.least[number, 0, 0]) for edge in rest)
            most = prod(float(edge.most[number, 0, 0]) for edge in rest)
            found = found & (used * least <= axis.size) & (used * most >= wanted[number])
        return found


def wanted_of(nest: Nest, parts: Sequence[Chains], every: bool) -> list[float]:
    """How many instances of each axis a mapping uses at least: of those to be used in full (of all, if `every`) as many as chains of all dims
    allow, the innermost axis first."""
    axes = nest.hierarchy.axes
    wanted = [1.0] * len(axes)
    if not axes or (not every and not any(axis.full for axis in axes)):
        return wanted
    sizes = np.array([axis.size for axis in axes], dtype=np.float64)[:, None]
    reached = np.ones((len(axes), 1))
    for part in parts:
        reached = (reached[:, :, None] * np.unique(part.used, axis=1)[:, None, :]).reshape(len(axes), -1)
        reached = np.unique(reached[:, (reached <= sizes).all(axis=0)], axis=1)
    for number in reversed(range(len(axes))):
        if axes[number].full or every:
            wanted[number] = float(reached[number].max())
            reached = reached[:, reached[number] == wanted[number]]
    return wanted


def _windows(nest: Nest, sizes: Mapping[str, Each]) -> Each:
    """At each point, values of the tile along axes of several dims."""
    found: list[Floats] = []
    for number, point in enumerate(nest.points):
        values = np.ones((1, 1))
        for axis in point.operand.windows:
            values = values * (1.0 + sum(abs(by) * (sizes[dim][number] - 1.0) for dim, by in axis))
        found.append(values)
    return found


def count_of(parts: Sequence[Chains]) -> float:
    """Mappings that chains of all dims make."""
    return float(prod(len(part) for part in parts))
