"""What memories between DRAM and the cores keep: data that passes them and that a later block of programs reads again.

Blocks of a gang follow each other in the grid's order. What does not depend on a dim of it is the same again for each block along that dim;
it stays in a memory on its way where there is room for all that is read until then, and is read from there. Where a network sends to many
instances of that memory at once, each holds its part of what all need; else each holds what its own cores need. Nothing is moved for it, so
it is no choice: what is read again most often goes first, and the innermost memory that has room is taken. More gangs than one take
turns at blocks that nothing orders, and keep nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.dataflow.space import Layout
from codesign.costmodel.dataflow.target import Target


@dataclass(frozen=True)
class Again:
    """A load that is made for every block.

    `dims`: of the grid, that its data depends on. `tiles`: that one program loads by it. `bytes`: of one tile.
    """

    dims: frozenset[str]
    tiles: Array
    bytes: Array


@dataclass(frozen=True)
class Kept:
    """Where a load's data is kept: `port` of the target (0: nowhere), for how many of the `waiting` blocks that it is different for
    until it is read again, and how often it is loaded for each time from outside, in the mean."""

    port: Array
    blocks: Array
    waiting: Array
    times: Array


def kept(target: Target, lay: Layout, blocks: Mapping[str, Array], loads: Sequence[Again]) -> list[Kept]:
    """What of some loads is kept where. `blocks`: of the grid along each dim, the slowest first."""
    if not loads or len(target.ports) < 2:
        return [Kept(0, 1, 1, 1) for _ in loads]
    waits = [_waiting(blocks, load) for load in loads]
    times = [_times(blocks, load) for load in loads]
    sizes = [[_bytes(target, lay, load, waits[n], i) for n, load in enumerate(loads)] for i in range(len(target.ports))]
    flat = np.broadcast_arrays(*times, *waits, *(size for each in sizes for size in each), np.asarray(lay.gangs) * 1.0)
    shape, count = flat[0].shape, len(loads)
    columns = [np.asarray(column, dtype=np.float64).reshape(-1) for column in flat]
    many, waiting, *needs = (np.stack(columns[i : i + count]) for i in range(0, len(columns) - 1, count))
    where, held = _packed(target, many, waiting, needs, columns[-1] == 1.0)
    share = held / waiting
    seldom = 1.0 / (share / many + 1.0 - share)
    parts = zip(where, held, waiting, seldom, strict=True)
    return [Kept(*(np.asarray(column).reshape(shape) for column in load)) for load in parts]


Floats = npt.NDArray[np.float64]


def _packed(
    target: Target, many: Floats, waiting: Floats, needs: Sequence[Floats], alone: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each load and schedule, the port and how many of the waiting blocks: whole loads first, those that are read again most often before
    others; then parts of those that are left, with room for one block more, which those pass through that are not kept."""
    where, held = np.zeros(many.shape, dtype=np.int64), np.zeros(many.shape)
    free = [np.full(len(alone), float(port.capacity)) for port in target.ports]
    rows = np.arange(len(alone))
    order = np.argsort(-many, axis=0, kind="stable")
    for whole, first in ((whole, first) for whole in (True, False) for first in order):
        open_ = alone & (many[first, rows] > 1.0) & (where[first, rows] == 0)
        for port in range(len(free) - 1, 0, -1):
            count = waiting[first, rows]
            unit = needs[port][first, rows] / count
            room = np.floor(free[port] / unit + 1e-9)
            kept_blocks = np.where(room >= count, count, room - 1.0)
            taken = open_ & (kept_blocks >= (count if whole else 1.0))
            where[first[taken], rows[taken]] = port
            held[first[taken], rows[taken]] = kept_blocks[taken]
            used = np.ceil(unit * np.where(kept_blocks < count, kept_blocks + 1.0, count))
            free[port] = np.where(taken, free[port] - used, free[port])
            open_ = open_ & ~taken
    return where, held


def _times(blocks: Mapping[str, Array], load: Again) -> Any:
    total: Array = 1.0
    for dim, count in blocks.items():
        if dim not in load.dims:
            total = total * count
    return np.asarray(total, dtype=np.float64)


def holders(target: Target, port: int) -> int:
    """Over how many instances of a memory what is kept is spread: all, where a network sends from one to many."""
    return target.cores // target.ports[port].cores if port and target.ports[port - 1].multicast else 1


def _waiting(blocks: Mapping[str, Array], load: Again) -> Any:
    """Blocks of different data between one that reads something and the next that reads it again."""
    total: Array = 1.0
    waits: Array = False
    for dim, count in blocks.items():
        if dim in load.dims:
            total = total * np.where(waits, count, 1.0)
        else:
            waits = np.logical_or(waits, np.asarray(count) > 1)
    return np.asarray(total, dtype=np.float64)


def _bytes(target: Target, lay: Layout, load: Again, waiting: Array, port: int) -> Any:
    """Bytes that one instance of a memory holds until they are read again: of the cores' tiles, over the blocks in between."""
    spread = holders(target, port)
    total: Array = load.tiles * load.bytes * waiting
    for parts in lay.parts[0 if spread > 1 else target.ports[port].inside :]:
        for dim, many in parts.items():
            total = total * (many if dim in load.dims else 1.0)
    return np.ceil(np.asarray(total, dtype=np.float64) / spread)
