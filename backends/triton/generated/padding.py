"""Gaps that keep the rows of an operand in different banks of shared memory, where copies to it go by themselves for CDNA's matrix cores.

As Triton 3.9.0 lays operands out for gfx950 (`composePaddedLayoutForAsyncCopyCDNA4`): all but the last of each interval of 1,024 bytes is followed by
a gap that depends on how lanes read the operand. Where rows are too few to be staggered they are swizzled instead, without gaps.
"""

from __future__ import annotations

import numpy as np

from codesign.backends.triton.generated.layout import Product, instruction_side
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.runs import nearest_first
from codesign.costmodel.summary import Access

INTERVAL = 1024.0
"""Bytes that a warp of 64 copies at once, 16 a lane: there is a gap after each."""


def padded(size: Array, found: Product, side: int, access: Access) -> Array:
    """Bytes of all buffers of a factor that have `size` without gaps; the next begins at a multiple of 16."""
    whole: Array = size + np.maximum(size / INTERVAL - 1.0, 0.0) * _gap(found, side, access)
    return np.ceil(whole / 16.0) * 16.0


def _gap(found: Product, side: int, access: Access) -> Array:
    """Bytes of a gap after each interval, 0 where the operand is swizzled."""
    width = access.dtype.bytes
    if width > 2:
        return 0.0
    across = found.rows if side == 0 else found.columns
    along_depth = nearest_first(access)[0] == found.text.depth
    instruction = instruction_side(found.rows, found.columns)
    taken = _taken_at_once(found, instruction, width)
    sixteen = np.equal(instruction, 16.0)
    row, rows = (found.depth, across) if along_depth else (across, found.depth)
    whole: Array = np.False_
    gap: Array
    banks: Array = 64.0
    if along_depth:
        whole = np.equal(taken, 16.0)
        gap = np.where(whole, np.where(sixteen, 32.0, 16.0), 8.0)
        banks = np.where(whole, 64.0, 32.0)
    else:
        gap = np.where(sixteen, 16.0, 32.0) * width
    staggered = np.floor(np.minimum(row * width, banks * 4.0) / gap)  # rows that start in different banks
    needed = np.floor(INTERVAL / (row * width)) * staggered
    ways = np.exp2(np.ceil(np.log2(np.maximum(needed / rows, 1.0))))  # rows that start in one bank all the same
    few = np.where(whole, ways > 1.0, ways > 2.0) | np.less(staggered, ways)
    return np.where(few, 0.0, gap)


def _taken_at_once(found: Product, instruction: Array, width: float) -> Array:
    """Bytes along the reduction that a lane takes of a factor at once: half of 16 where the tile has too few elements for the wider instruction, or
    where the other factor is the results of a product, whose lanes have runs of 4."""
    lanes = 64.0 / instruction
    short = np.less(found.depth, lanes * (8.0 if width == 2 else 32.0))
    return np.where(short | (found.text.follows and width == 2), 8.0, 16.0)
