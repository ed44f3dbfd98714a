"""The turns in which a gang takes its blocks of programs: the grid's order, cut into the tiles that levels of the machine work on at a time.

Without tiles there is one turn a dim of the grid. A tile of a level (`levels.cluster.tile.m`: so many elements that one instance works on at
a time, at most) cuts a dim in two: over the tiles, and inside of one over its blocks, so that what a tile needs again is needed soon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.dataflow.space import Parts
from codesign.costmodel.dataflow.target import Port, Target


@dataclass(frozen=True)
class Turn:
    """A loop over `count` parts of a dim of the grid, each of `below` blocks."""

    dim: str
    count: Array
    below: Array


def memories(target: Target) -> dict[str, int]:
    """The memories between DRAM and the cores that programs may keep data in, outermost first, with their ports: by place."""
    return {port.place: number for number, port in enumerate(target.ports) if number and port.capacity}


def turns(
    target: Target,
    blocks: Mapping[str, Array],
    parts: Parts,
    lanes: Mapping[str, Array],
    tiles: Parts,
    orders: Mapping[str, Sequence[str]],
) -> list[Turn]:
    """The turns, the slowest first. `blocks`: of the grid along each dim, in its order; `parts`: splits in space by place; `lanes`:
    elements that a program has of each dim; `tiles`: by place, the most elements of each dim that an instance works on at a time; `orders`: by place,
    the dims along which it goes from tile to tile slowest, before the others in the grid's order."""
    left = dict(blocks)
    found: list[Turn] = []
    for place, number in memories(target).items():
        at = tiles.get(place, {})
        for dim in (dim for dim in dict.fromkeys((*orders.get(place, ()), *blocks)) if dim in at and dim in blocks):
            each = lanes[dim] * _inside(target, target.ports[number], parts, dim)
            below = largest_divisor(left[dim], np.asarray(at[dim]) // np.asarray(each).astype(np.int64))
            found.append(Turn(dim, left[dim] // below, below))
            left[dim] = below
    return [*found, *(Turn(dim, count, 1) for dim, count in left.items())]


def _inside(target: Target, port: Port, parts: Parts, dim: str) -> Array:
    """Into how many parts a dim is split below one instance of a memory."""
    total: Array = 1
    for place, _ in target.places[port.inside :]:
        total = total * parts.get(place, {}).get(dim, 1)
    return total


def largest_divisor(numbers: Array, limits: Array) -> Array:
    """For each number its largest divisor that is no larger than a limit; at least one."""
    pairs = np.stack(np.broadcast_arrays(np.asarray(numbers, np.int64), np.asarray(limits, np.int64)), axis=-1)
    distinct, which = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    found = np.array([_largest_divisor(number, limit) for number, limit in distinct.tolist()], dtype=np.int64)
    return found[which.reshape(-1)].reshape(pairs.shape[:-1])


def _largest_divisor(number: int, limit: int) -> int:
    if limit >= number:
        return number
    return next((below for below in range(limit, 1, -1) if number % below == 0), 1)


def times(walk: Iterable[Turn], dims: frozenset[str]) -> Array:
    """How often what depends on these dims is needed in some turns."""
    total: Array = 1.0
    for turn in walk:
        if turn.dim not in dims:
            total = total * turn.count
    return np.asarray(total, dtype=np.float64)


def waiting(walk: Iterable[Turn], dims: frozenset[str]) -> Array:
    """Blocks of different data between one that needs something and the next that needs it again."""
    total: Array = 1.0
    waits: Array = False
    for turn in walk:
        if turn.dim in dims:
            total = total * np.where(waits, turn.count, 1.0)
        else:
            waits = np.logical_or(waits, np.asarray(turn.count) > 1)
    return np.asarray(total, dtype=np.float64)


def spans(walk: Sequence[Turn], dims: frozenset[str]) -> list[int]:
    """From which turns on data that depends on some dims may be kept, so that it is needed again inside of them: the longest first, without
    those that wait for as many blocks as a longer one."""
    found = [number for number, turn in enumerate(walk) if turn.dim not in dims and np.any(np.asarray(turn.count) > 1)]
    kept: list[int] = []
    for number in found:
        if not kept or np.any(waiting(walk[number:], dims) < waiting(walk[kept[-1] :], dims)):
            kept.append(number)
    return kept or [0]
