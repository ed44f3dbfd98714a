"""How an address moves along one dim: in digits of it, each with a stride of its own.

`%x[k // 128, i, k % 128]` is not linear in k, but it is in the two digits of k to the base 128: 128 elements next to each other, then a
jump. A DMA engine walks digits as it walks dims. A window of consecutive values of the dim (a tile) takes so many of each digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.index import Index, Var

LONGEST = 1 << 20
"""Values of a dim that are looked at (points, of several dims together); bases of digits are far smaller."""
MOST_WAYS = 6
"""Ways to lie on the digits that are told apart."""


Places = npt.NDArray[np.int64]
"""Addresses of consecutive values of a dim."""
Walk = tuple[tuple[int, float], ...]
"""Strides, fastest first, and how often each is taken before the next one."""


def places_along(address: Index, dim: str, extent: int, values: Mapping[str, int] | None = None) -> Places | None:
    """Addresses of the values of a dim, all else at its first value; None where they depend on data, or on other dims along with this.

    `values`: of the other names in the address; a name that is not given counts as 0.
    """
    if address.data():
        return None
    given = values or {}
    for monomial, _ in address.terms:
        names = [name for atom in monomial for name in Index.atom(atom).variables()]
        if dim in names and any(name != dim and name not in given and not _plain(monomial, dim) for name in names):
            return None
    known: dict[str, Any] = {name: given.get(name, 0) for name in address.variables()}
    known[dim] = np.arange(min(extent, LONGEST), dtype=np.int64)
    return np.broadcast_to(np.asarray(address.evaluate(known), dtype=np.int64), known[dim].shape)


def _plain(monomial: tuple[Any, ...], dim: str) -> bool:
    """Whether a product has the dim as a factor of its own: then it is no place where digits begin."""
    return any(isinstance(atom, Var) and atom.name == dim for atom in monomial)


def walk_of(places: Places) -> Walk:
    """The digits of a sequence of addresses. Pieces of unequal length count as pieces of their mean length."""
    found: list[tuple[int, float]] = []
    while len(places) > 1:
        steps = np.diff(places)
        usual = _usual(steps)
        breaks = np.flatnonzero(steps != usual) + 1
        if not len(breaks):
            return (*found, (abs(usual), float(len(places))))
        count = int(breaks[0])
        starts = places[::count]
        if count > 1 and np.array_equal(breaks, np.arange(count, len(places), count)):
            found.append((abs(usual), len(places) / len(starts)))
            places = starts
            continue
        pieces = len(breaks) + 1
        return (*found, (abs(usual), len(places) / pieces), (int(np.max(np.abs(steps))), float(pieces)))
    return tuple(found)


def _usual(steps: Places) -> int:
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


class Windows:
    """Tiles along a dim, by how they lie on its digits; each size of tile is looked at once."""

    def __init__(self, places: Places) -> None:
        self.places = places
        steps = np.diff(places, append=places[-1:])  # from each place to the next
        self._jumps = (
            np.where(steps != _usual(steps[:-1]), np.abs(steps), 0) if len(steps) > 1 else np.zeros(1, np.int64)
        )
        self._known: dict[int, list[tuple[float, Walk]]] = {}

    def of(self, tile: int) -> list[tuple[float, Walk]]:
        """How tiles of a size walk: each way with its share of the tiles, at most `MOST_WAYS`, to which rarer ones with as many pieces are
        added; the way of the last tile is the last where it is cut (`cuts`)."""
        if tile not in self._known:
            self._known[tile] = self._of(tile)
        return self._known[tile]

    def cuts(self, tile: int) -> bool:
        """Whether the last of several tiles is cut."""
        return len(self.places) > tile and len(self.places) % tile > 0

    def _of(self, tile: int) -> list[tuple[float, Walk]]:
        whole = len(self.places) // tile
        if whole == 0:
            return [(1.0, walk_of(self.places))]
        jumps = self._jumps[: whole * tile].reshape(whole, tile)[:, :-1]
        begins = (jumps != 0).argmax(axis=1) if tile > 1 else np.zeros(whole, np.int64)
        alike = np.stack([np.count_nonzero(jumps, axis=1), jumps.max(axis=1, initial=0), begins], axis=1)
        ways, first, counts = np.unique(alike, axis=0, return_index=True, return_counts=True)
        walks: dict[tuple[int, ...], Walk] = {}  # by pieces, the longest jump, and how often each digit is taken
        shares: dict[tuple[int, ...], int] = {}
        for way in np.argsort(first):
            (pieces, jump, _), start, count = ways[way].tolist(), int(first[way]), int(counts[way])
            walk = walk_of(self.places[start * tile :][:tile])
            key = (pieces, jump, *(int(n) for _, n in walk))
            walks.setdefault(key, walk)
            shares[key] = shares.get(key, 0) + count
        kept = sorted(shares, key=lambda key: -shares[key])[:MOST_WAYS]
        for key in shares.keys() - set(kept):
            near = next((other for other in kept if other[0] == key[0]), None)
            if near is not None:
                shares[near] += shares[key]
        cut = 1.0 / (whole + 1) if self.cuts(tile) else 0.0
        scale = (1.0 - cut) / sum(shares[key] for key in kept)
        found = [(shares[key] * scale, walks[key]) for key in kept]
        return found + ([(cut, walk_of(self.places[whole * tile :]))] if cut else [])


@lru_cache(maxsize=4096)
def share_inside(
    place: tuple[Index, ...],
    shape: tuple[Index, ...],
    extents: tuple[tuple[str, int], ...],
    symbols: tuple[tuple[str, int], ...],
) -> float:
    """Share of the points of a domain that fall inside a tensor of `shape`; 1 where that depends on data."""
    share = 1.0
    for expression, size in zip(place, shape, strict=True):
        if not expression.data():
            values, weights = _values(expression, dict(extents), dict(symbols))
            inside = (values >= 0) & (values < int(size.evaluate(dict(symbols))))
            share *= float(weights[inside].sum() / weights.sum())
    return share


def _values(
    expression: Index, extents: Mapping[str, int], symbols: Mapping[str, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Values of an expression over a domain, and how often each comes; terms over the same dims are taken together."""
    values, weights = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.float64)
    left = set(expression.variables()) & extents.keys()
    offset = int(expression.evaluate({**symbols, **dict.fromkeys(left, 0)}))
    while left:
        tied, more = set[str](), {min(left)}
        while more - tied:
            tied |= more
            shared = [Index(((monomial, 1),)).variables() & left for monomial, _ in expression.terms]
            more = set[str]().union(*(names for names in shared if names & tied))
        left -= tied
        most = int(LONGEST ** (1 / len(tied)))
        axes = {}
        for position, name in enumerate(sorted(tied)):
            few = np.arange(min(extents[name], most), dtype=np.int64)
            axes[name] = few.reshape([-1 if i == position else 1 for i in range(len(tied))])
        part = np.asarray(expression.evaluate({**symbols, **dict.fromkeys(extents, 0), **axes})) - offset
        seen, counts = np.unique(part, return_counts=True)
        values, which = np.unique(np.add.outer(values, seen), return_inverse=True)
        weights = np.bincount(which.ravel(), np.multiply.outer(weights, counts).ravel()).astype(np.float64)
    return values + offset, weights
