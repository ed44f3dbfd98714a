"""What goes through shared memory where a tile changes its layout: by the bits of an element's place, as Triton 3.9.0 swizzles them.

An element's place along a dim is a number whose lowest bits say which of a thread's run it is, the next ones which lane and then which warp has it;
what is left says which of the thread's registers it is in again. A bit that is a register's before and after needs no room of its own: the halves go
through the same memory one after the other, unless it tells apart what one instruction writes or reads (`buildReps`, `optimalSwizzlingTile` and
`getVbasis` of Triton's generic swizzling).
"""

from __future__ import annotations

import numpy as np

from codesign.backends.triton.generated.layout import WIDEST_ACCESS, Layout
from codesign.backends.triton.generated.spread import Placed, placed
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.runs import LINE_BYTES
from codesign.costmodel.summary import Access

ROW = (0, 1)
"""Bits of a lane's number along a row of 16 bytes that `ldmatrix` and `stmatrix` move, 4 bytes to each lane (PTX ISA)."""

COLUMN = (2, 3, 4)
"""The same where they transpose a matrix of 2-byte elements."""


def relaid_bytes(layout: Layout, load: Access, store: Access) -> Array:
    """Bytes of shared memory by which a tile that lies as it is loaded comes to lie as it is stored.

    All of it, in as many rounds as there are elements of a thread that stay its own, but for those that one instruction moves; each round has a line
    of all banks at the least. A tile of fewer elements than the block has threads is stored as it lies (`isExpensiveLoadOrStore`), and lanes of one
    warp exchange a bit among themselves (`cvtNeedsWarpShuffle`).
    """
    width = store.dtype.bytes
    before, after = layout.once(placed, load), layout.once(placed, store)
    size = layout.elements(store.dims) * width
    kept = _kept(layout, before, after)
    rounds = np.maximum(kept * width / WIDEST_ACCESS, 1.0)
    if not layout.matrix_cores:
        ways = [(after, before)] if not layout.wide else [(after, before), (before, after)]  # stmatrix comes with sm_90
        for lanes, registers in ways:
            row = np.logical_and.reduce([_in_registers(layout, lanes, bit, registers) for bit in ROW])
            word = max(4.0 / width, 1.0)
            rounds = np.where(row & np.greater_equal(kept, word), np.maximum(rounds, kept / word), rounds)
            if width == 2:
                column = np.logical_and.reduce([_in_registers(layout, lanes, bit, registers) for bit in COLUMN])
                rounds = np.where(column, np.maximum(rounds, kept), rounds)
    alone = np.less_equal(layout.warps, 1.0) & np.less_equal(layout.held(store.dims), 2.0 * kept)
    size = np.where(alone | np.less(layout.elements(store.dims), layout.threads), 0.0, size)
    return size / np.minimum(rounds, np.maximum(size / LINE_BYTES, 1.0))


def _above(layout: Layout, dim: str, one: Placed) -> Array:
    """From which step along a dim on an element's place is a register's again."""
    size = layout.g.tile[dim]
    return np.minimum(size * one.run_along(dim) / one.part[dim], size)


def _kept(layout: Layout, one: Placed, other: Placed) -> Array:
    """Elements of a thread that stay its own: two for each bit that is a register's in both."""
    kept: Array = 1.0
    for dim in one.part.keys() & other.part.keys():
        runs = one.run_along(dim), other.run_along(dim)
        above = _above(layout, dim, one), _above(layout, dim, other)
        kept = kept * np.minimum(*runs) * layout.g.tile[dim] / np.maximum(*above)
        kept = kept * np.maximum(runs[0] / above[1], 1.0) * np.maximum(runs[1] / above[0], 1.0)
    return kept


def _in_registers(layout: Layout, one: Placed, bit: int, other: Placed) -> Array:
    """Whether this bit of a lane's number in one layout tells apart registers of a thread in the other."""
    found: Array = np.False_
    first: Array = 1.0
    for dim, lanes in one.lanes.items():
        within = np.less_equal(first, 2.0**bit) & np.less(2.0**bit, first * lanes)
        step = one.run_along(dim) * 2.0**bit / first
        held = np.less(step, other.run_along(dim)) | np.greater_equal(step, _above(layout, dim, other))
        found = found | (within & held)
        first = first * lanes
    return found
