"""What L2 saves: DRAM reads of a grid by which operand panels its blocks touch, in the order in which they start.

A panel is what one block reads of one operand: blocks with equal coordinates along the dims that an operand depends on
read the same panel. Blocks that start together (a row) walk the reduction together, so a row reads each panel from DRAM
at most once. A panel that an earlier row touched is still in L2 as far as what streamed through since then leaves room
for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.costmodel.events.walk import PART, Ints, Walk
from codesign.costmodel.gpu.geometry import Geometry
from codesign.costmodel.summary import KernelSummary, footprint

Floats = npt.NDArray[np.float64]

EXACT_BLOCKS = 1 << 17
"""Grids of up to so many blocks are walked whole; of larger ones, a window at the start, in the middle and at the end
is.
"""
KEPT_CAPACITY = 0.8
"""Share of the capacity that holds a kernel's operands, as in the analytic model."""


@dataclass(frozen=True)
class Panels:
    """One operand: `bytes` of a panel, `dims` of the grid that choose it, and what share of its first reads goes to
    DRAM.
    """

    tensor: str
    bytes: float
    dims: tuple[str, ...]
    cold: float


@dataclass(frozen=True)
class Reads:
    """DRAM reads of a grid as a cumulative curve: `bytes[i]` were read by the blocks before number `blocks[i]`."""

    blocks: Floats
    bytes: Floats

    def per_block(self, first: float, count: float) -> float:
        """Mean bytes of each of `count` blocks from number `first` on."""
        ends = np.interp([first, first + count], self.blocks, self.bytes)
        return float(ends[1] - ends[0]) / max(count, 1.0)

    @property
    def total(self) -> float:
        return float(self.bytes[-1])


def panels_of(kernel: KernelSummary, g: Geometry, walk: Walk, cache_bytes: float, warm: float) -> list[Panels]:
    """The operands of a kernel, each counted once however many nests read it.

    Panels that overlap (the halo of a convolution) are scaled so that together they are no larger than what is touched.
    """
    whole = g.sizes(g.extents)
    part = {dim: min(g.mean[dim] * g.trips[dim], g.extents[dim]) for dim in kernel.inner}
    one = g.sizes({**{dim: g.mean[dim] for dim in kernel.outer}, **part})
    counts = dict(zip(walk.dims, walk.counts, strict=True))
    warm_names = [name for name in kernel.notes.get("warm", "").split(",") if name]
    found: dict[tuple[object, ...], Panels] = {}
    for nest in kernel.nests:
        for access in nest.loads:
            dims = tuple(dim for dim in walk.dims if dim in access.dims)
            if PART in counts and any(dim in kernel.inner for dim in access.dims):
                dims = (PART, *dims)
            number = float(np.prod([counts[dim] for dim in dims])) if dims else 1.0
            once = float(footprint(access, whole)) * access.dtype.bytes
            each = float(footprint(access, one)) * access.dtype.bytes
            cold = 1.0
            if access.tensor in warm_names or access.tensor.split("#")[0] in warm_names:
                cold = 1.0 - warm * min(max(1.0 - once / (0.5 * cache_bytes), 0.0), 1.0)
            panels = Panels(access.tensor, min(each, once / number), dims, cold)
            found.setdefault((access.tensor, access.index), panels)
    return list(found.values())


def reads(panels: list[Panels], walk: Walk, row: int, store_bytes: float, cache_bytes: float) -> Reads:
    """The DRAM reads of a grid whose blocks start in rows of `row`; `store_bytes` of each block stream through L2 as
    well.
    """
    blocks = walk.blocks
    if blocks <= EXACT_BLOCKS:
        misses = _window(panels, walk, row, 0, blocks, store_bytes, cache_bytes)
        return _curve([(0, misses)], row, blocks)
    length = max(EXACT_BLOCKS // 3 // row, 2) * row
    middle = (blocks // 2 // row) * row - length // 2 // row * row
    last = max((blocks - length) // row, 1) * row
    start = _window(panels, walk, row, 0, length, store_bytes, cache_bytes)
    steady = _window(panels, walk, row, middle, length, store_bytes, cache_bytes)
    end = _window(panels, walk, row, last, blocks - last, store_bytes, cache_bytes)
    # the first half of a window is its history: what an earlier row left in L2 is known only after it
    half = len(steady) // 2
    usual = float(steady[half:].mean())
    gap = np.full(last // row - len(start), usual)
    end[: len(end) // 2] = np.minimum(end[: len(end) // 2], usual)
    return _curve([(0, start), (len(start), gap), (last // row, end)], row, blocks)


def _curve(pieces: list[tuple[int, Floats]], row: int, blocks: int) -> Reads:
    misses = np.concatenate([piece for _, piece in pieces])
    edges = np.minimum(np.arange(len(misses) + 1, dtype=np.float64) * row, blocks)
    return Reads(edges, np.concatenate([[0.0], np.cumsum(misses)]))


def _window(
    panels: list[Panels], walk: Walk, row: int, first: int, count: int, store_bytes: float, cache_bytes: float
) -> Floats:
    """Bytes that each row of a window of blocks reads from DRAM, [rows]."""
    numbers = np.arange(first, first + count, dtype=np.int64)
    rows = (numbers - first) // row
    total = int(rows[-1]) + 1
    coordinates = walk.coordinates(numbers)
    touched = [_touches(entry, walk, coordinates, rows, first) for entry in panels]
    flow = np.bincount(rows, minlength=total) * store_bytes
    for entry, (at, _, _) in zip(panels, touched, strict=True):
        flow = flow + np.bincount(at, minlength=total) * entry.bytes
    before = np.concatenate([[0.0], np.cumsum(flow)])
    misses = np.zeros(total)
    for entry, (at, previous, compulsory) in zip(panels, touched, strict=True):
        distance = before[at] - before[np.maximum(previous, 0)]
        kept = np.minimum(KEPT_CAPACITY * cache_bytes / np.maximum(distance, 1.0), 1.0)
        share = np.where(previous >= 0, 1.0 - kept, np.where(compulsory, entry.cold, 1.0))
        misses += np.bincount(at, weights=share * entry.bytes, minlength=total)
    return misses


def _touches(
    entry: Panels, walk: Walk, coordinates: Mapping[str, Ints], rows: Ints, first: int
) -> tuple[Ints, Ints, Ints]:
    """Each (row, panel) pair once: its row, the row that touched the panel before (-1: none here), and whether none
    ever did.

    A panel goes by the number of the first block of the grid that touches it.
    """
    names = np.broadcast_to(walk.numbers({dim: coordinates[dim] for dim in entry.dims}), rows.shape)
    span = int(rows[-1]) + 1
    pairs = np.unique(names * span + rows)
    at, panel = pairs % span, pairs // span
    again = np.concatenate([[False], panel[1:] == panel[:-1]])
    previous = np.where(again, np.concatenate([[0], at[:-1]]), -1)
    return at, previous, (panel >= first).astype(np.int64)
