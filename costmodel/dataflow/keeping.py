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
    """Where a load's data is kept: `port` of the target (0: nowhere), and how often it is loaded from there and from outside together."""

    port: Array
    times: Array


def kept(target: Target, lay: Layout, blocks: Mapping[str, Array], loads: Sequence[Again]) -> list[Kept]:
    """What of some loads is kept where. `blocks`: of the grid along each dim, the slowest first."""
    if not loads or len(target.ports) < 2:
        return [Kept(0, 1) for _ in loads]
    times = [_times(blocks, load) for load in loads]
    sizes = [[_bytes(target, lay, blocks, load, i) for load in loads] for i in range(len(target.ports))]
    flat = np.broadcast_arrays(
        *times, *(size for each in sizes for size in each), np.asarray(lay.gangs, dtype=np.float64)
    )
    shape, count = flat[0].shape, len(loads)
    columns = [np.asarray(column, dtype=np.float64).reshape(-1) for column in flat]
    many, alone = np.stack(columns[:count]), columns[-1] == 1.0
    needs = [np.stack(columns[count * (i + 1) : count * (i + 2)]) for i in range(len(target.ports))]
    where = np.zeros(many.shape, dtype=np.int64)
    free = [np.full(len(alone), float(port.capacity)) for port in target.ports]
    rows = np.arange(len(alone))
    for first in np.argsort(-many, axis=0, kind="stable"):
        open_ = alone & (many[first, rows] > 1.0)
        for port in range(len(target.ports) - 1, 0, -1):
            need = needs[port][first, rows]
            taken = open_ & (need <= free[port])
            where[first[taken], rows[taken]] = port
            free[port] = np.where(taken, free[port] - need, free[port])
            open_ = open_ & ~taken
    return [Kept(at.reshape(shape), np.where(at > 0, many[i], 1.0).reshape(shape)) for i, at in enumerate(where)]


def _times(blocks: Mapping[str, Array], load: Again) -> Any:
    total: Array = 1.0
    for dim, count in blocks.items():
        if dim not in load.dims:
            total = total * count
    return np.asarray(total, dtype=np.float64)


def holders(target: Target, port: int) -> int:
    """Over how many instances of a memory what is kept is spread: all, where a network sends from one to many."""
    return target.cores // target.ports[port].cores if port and target.ports[port - 1].multicast else 1


def _bytes(target: Target, lay: Layout, blocks: Mapping[str, Array], load: Again, port: int) -> Any:
    """Bytes that one instance of a memory holds until they are read again: of the cores' tiles, over the blocks in between."""
    spread = holders(target, port)
    total: Array = load.tiles * load.bytes
    waits: Array = False
    for dim, count in blocks.items():
        if dim in load.dims:
            total = total * np.where(waits, count, 1.0)
        else:
            waits = np.logical_or(waits, np.asarray(count) > 1)
    for parts in lay.parts[0 if spread > 1 else target.ports[port].inside :]:
        for dim, many in parts.items():
            total = total * (many if dim in load.dims else 1.0)
    return np.ceil(np.asarray(total, dtype=np.float64) / spread)
