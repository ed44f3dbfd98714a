"""What the DMA transfer of an access's tile costs: the pieces that it lies in, the lines that they touch, the descriptors they take."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import inf

import numpy as np

from codesign.costmodel.dataflow.runs import Windows, places_along, share_inside
from codesign.costmodel.dataflow.shape import Array, Shape
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.summary import Access
from codesign.ir.index import Index, index

Move = tuple[int, Array]
"""A stride and how often the transfer takes it."""
Kind = tuple[Array, Array, list[Move]]
"""Tiles along a dim that lie alike: their share of all, that of those of the core with most to do, and the strides that one takes."""


def transfer(access: Access, target: Target, shape: Shape, kind: str = "load") -> tuple[Array, Array, Array]:
    """Clocks of the DMA engine (no fewer than the memories above need for one core), bytes of whole memory lines, and bytes wanted, for one
    transfer of an access's tile.

    In the mean over the tiles, each kind of tile by itself: whole ones and those that an extent cuts, and those that lie differently on
    the digits of their dim. Clocks are those of the core that has most to do: it meets no tile that is cut where another core does.
    """
    slowest: Array = inf
    for port in target.ports:
        rate = port.write_bytes_per_clock if kind == "store" and port.writes_apart else port.bytes_per_clock
        slowest = np.minimum(slowest, rate)
    elements: Array = 1.0  # every lane is fetched, those that fall on the same element too
    scattered: Array = 1.0
    kinds: list[list[Kind]] = []
    for dim in access.dims:
        elements = elements * shape.mean[dim]
        found = _kinds(access, dim, shape)
        scattered = scattered * shape.mean[dim] if found is None else scattered
        kinds += [] if found is None else [found]
    clocks: Array = 0.0
    moved: Array = 0.0
    for tiles in product(*kinds):
        weight: Array = 1.0
        most: Array = 1.0
        for share, paced, _ in tiles:
            weight, most = weight * share, most * paced
        moves = [move for *_, some in tiles for move in some]
        busy, lines = _pieces(moves, scattered, access.dtype.bytes, target)
        clocks, moved = clocks + most * np.maximum(busy, lines / slowest), moved + weight * lines
    if access.padded:
        domain = tuple((dim, shape.extents[dim]) for dim in access.dims)
        share = share_inside(access.index, access.shape, domain, _symbols(shape))
        clocks, moved, elements = clocks * share, moved * share, elements * share
    return clocks, moved, elements * access.dtype.bytes


def _kinds(access: Access, dim: str, shape: Shape) -> list[Kind] | None:
    """Kinds of tiles along a dim; None where its points are gathered one by one."""
    known = _places(access.index, access.strides, dim, shape.extents[dim], _symbols(shape))
    if known is None:
        return None
    if isinstance(known, int):
        if np.all(shape.last(dim) == shape.mean[dim]):
            return [(1.0, 1.0, [(known, shape.mean[dim])])]
        end = 1.0 / shape.trips[dim]
        met = shape.met(dim)
        return [(1.0 - end, 1.0 - met, [(known, shape.tile[dim])]), (end, met, [(known, shape.last(dim))])]
    tiles, rows = np.unique(np.asarray(shape.tile[dim], dtype=np.int64), return_inverse=True)
    windows = [known.of(int(tile)) for tile in tiles]
    ends = np.array([ways[-1][0] if known.cuts(int(tile)) else 0.0 for tile, ways in zip(tiles, windows, strict=True)])
    found: list[Kind] = []
    for position in range(max(map(len, windows))):
        chosen = [window[position] if position < len(window) else (0.0, ()) for window in windows]
        strides = sorted({stride for _, counts in chosen for stride, _ in counts})
        moves: list[Move] = []
        for stride in strides:
            most = max(sum(step == stride for step, _ in counts) for _, counts in chosen)
            for time in range(most):
                each = [[n for step, n in counts if step == stride] for _, counts in chosen]
                moves.append((stride, np.array([n[time] if time < len(n) else 1.0 for n in each])[rows]))
        share = np.array([share for share, _ in chosen])
        last = np.array([position == len(window) - 1 for window in windows]) & (ends > 0.0)
        whole = (share / np.where(last, 1.0, 1.0 - ends))[rows]
        met = np.where(ends[rows] > 0.0, shape.met(dim), 0.0)
        found.append((share[rows], np.where(last[rows], met, whole * (1.0 - met)), moves))
    return found


def _pieces(moves: list[Move], scattered: Array, width: float, target: Target) -> tuple[Array, Array]:
    """Clocks and bytes of lines of one transfer that takes these strides."""
    run: Array = 1.0
    pieces: Array = scattered
    more: Array = 0
    descriptors: Array = 1.0
    for step, count in _longest_first([move for move in moves if move[0]]):
        joins = (run == step) & (count > 1)
        run = run * np.where(joins, count, 1.0)
        apart = np.logical_not(joins) & (count > 1)
        pieces = pieces * np.where(apart, count, 1.0)
        more = more + apart
        beyond = apart & (more > np.maximum(target.descriptor_dims - 1, 1))
        descriptors = descriptors * np.where(beyond, count, 1.0)
    line = target.dram.line_bytes
    each = run * width
    clocks = descriptors * target.dma_setup_clocks + pieces * np.ceil(each / target.dma_bytes_per_clock)
    return clocks, pieces * np.ceil(each / line) * line


def _longest_first(moves: list[Move]) -> list[Move]:
    """By rising stride; of those with one stride, the one that is taken most often comes first, in each schedule."""
    moves = sorted(moves, key=lambda move: move[0])
    for end in range(len(moves) - 1, 0, -1):
        for i in range(end):
            (step, first), (other, second) = moves[i], moves[i + 1]
            if step == other:
                moves[i], moves[i + 1] = (step, np.maximum(first, second)), (step, np.minimum(first, second))
    return moves


def _symbols(shape: Shape) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, int(value)) for name, value in shape.symbols.items()))


@lru_cache(maxsize=4096)
def _places(
    place: tuple[Index, ...],
    strides: tuple[Index, ...],
    dim: str,
    extent: int,
    symbols: tuple[tuple[str, int], ...],
) -> int | Windows | None:
    """How an address moves along a dim: a stride, or the ways of its tiles; None where it does so in no way that is known."""
    address = index(0)
    for expression, stride in zip(place, strides, strict=True):
        address = address + expression * stride
    values = dict(symbols)
    factor = address.coefficient(dim)
    if factor is not None and (factor := factor.substitute(values)).is_constant:
        return abs(factor.constant)
    places = places_along(address, dim, extent, values)
    return None if places is None else Windows(places)
