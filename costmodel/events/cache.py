"""What L2 saves: DRAM reads of a grid by which operand panels its blocks touch, in the order in which they start.

A panel is what one block reads of one operand: blocks with equal coordinates along the dims that an operand depends on
read the same panel. Blocks that start together (a row) walk the reduction together, so a row reads each panel from DRAM
at most once. A panel that an earlier row touched is still in L2 as far as what streamed through since then leaves room
for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from codesign.costmodel.events.walk import PART, Ints, Walk
from codesign.costmodel.gpu.geometry import Geometry
from codesign.costmodel.gpu.runs import run_bytes
from codesign.costmodel.gpu.sweeps import Sweeps, further
from codesign.costmodel.gpu.traffic import KEPT, apart, cold_share, kept_between_sweeps, noted, replayed_cold
from codesign.costmodel.summary import KernelSummary, footprint

Floats = npt.NDArray[np.float64]

EXACT_BLOCKS = 1 << 15
"""Grids of up to so many blocks are walked whole; of larger ones, a window at the start, in the middle and at the end
is.
"""


@dataclass(frozen=True)
class Panels:
    """One operand: `bytes` of a panel, `dims` of the grid that choose it, what share of its first reads goes to DRAM,
    and how much longer DRAM takes for its bytes than for those of a long stream.
    """

    tensor: str
    bytes: float
    dims: tuple[str, ...]
    cold: float
    effort: float = 1.0
    number: float = 1.0
    """How many panels the operand has."""
    online: bool = False
    """An online loop goes over it, as over the keys of attention."""
    sweeps: float = 0.0
    """How often its block goes over it again."""


@dataclass(frozen=True)
class Reads:
    """DRAM reads of a grid as cumulative curves: `bytes[i]` were read by the blocks before number `blocks[i]`, which
    took DRAM as long as `effort[i]` bytes of a long stream.
    """

    blocks: Floats
    bytes: Floats
    effort: Floats

    def per_block(self, first: float, count: float) -> float:
        """Mean effort of each of `count` blocks from number `first` on, in bytes of a long stream."""
        ends = np.interp([first, first + count], self.blocks, self.effort)
        return float(ends[1] - ends[0]) / max(count, 1.0)

    @property
    def total(self) -> float:
        return float(self.bytes[-1])


def panels_of(
    kernel: KernelSummary,
    g: Geometry,
    runs: Geometry,
    walk: Walk,
    cache_bytes: float,
    warm: float,
    gap_bytes: float,
    sweeps: Sweeps = MappingProxyType({}),
) -> list[Panels]:
    """The operands of a kernel, each counted once however many nests read it; contiguous runs are those of `runs`, each of which costs DRAM
    `gap_bytes` more.

    Panels that overlap (the halo of a convolution) are scaled so that together they are no larger than what is touched.
    """
    whole = g.sizes(g.extents)
    one = g.sizes({dim: min(g.mean[dim] * g.trips.get(dim, 1.0), g.extents[dim]) for dim in kernel.extents})
    counts = dict(zip(walk.dims, walk.counts, strict=True))
    fresh = {
        (access.tensor, access.index): float(footprint(access, whole)) * access.dtype.bytes
        for nest in kernel.nests
        for access in nest.loads
        if noted(kernel, "fresh", access)
    }
    touched = sum(
        {
            (access.tensor, access.index): float(footprint(access, whole)) * access.dtype.bytes
            for nest in kernel.nests
            for access in (*nest.loads, *nest.stores)
        }.values()
    )
    found: dict[tuple[object, ...], tuple[float, Panels]] = {}
    totals: dict[str, float] = {}
    for nest in kernel.nests:
        for access in nest.loads:
            dims = tuple(dim for dim in walk.dims if dim in access.dims)
            if PART in counts and any(dim in kernel.inner for dim in access.dims):
                dims = (PART, *dims)
            number = float(np.prod([counts[dim] for dim in dims])) if dims else 1.0
            once = float(footprint(access, whole)) * access.dtype.bytes
            each = float(footprint(access, one)) * access.dtype.bytes
            cold = float(cold_share(kernel, access, once, sum(fresh.values()), cache_bytes, warm))
            if noted(kernel, "replayed", access):
                cold = min(cold, float(replayed_cold(touched, cache_bytes)))
            online = any(bool(np.any(g.online[dim])) for dim in access.dims if dim in g.online)
            effort = 1.0 + gap_bytes / float(run_bytes(access, runs))
            if (access.tensor, access.index) not in found:
                whole_tensor = access.dtype.bytes * float(np.prod([float(e.evaluate(g.symbols)) for e in access.shape]))
                over = float(np.max(further(sweeps, access)))
                panels = Panels(access.tensor, min(each, once / number), dims, cold, effort, number, online, over)
                found[access.tensor, access.index] = (whole_tensor, panels)
                totals[access.tensor] = totals.get(access.tensor, 0.0) + once
    # several accesses of one tensor read it once
    return [
        replace(panels, bytes=panels.bytes * min(tensor / max(totals[panels.tensor], 1e-30), 1.0))
        for tensor, panels in found.values()
    ]


def write_effort(kernel: KernelSummary, g: Geometry, gap_bytes: float) -> float:
    """How much longer DRAM takes for a kernel's writes than for a long stream; each contiguous run costs `gap_bytes`
    more.
    """
    whole = g.sizes(g.extents)
    stores = [access for nest in kernel.nests for access in nest.stores]
    sizes = [float(footprint(access, whole)) * access.dtype.bytes for access in stores]
    efforts = [1.0 + gap_bytes * float(apart(kernel, access, g)) / float(run_bytes(access, g)) for access in stores]
    return float(np.dot(sizes, efforts)) / max(sum(sizes), 1e-30) if sizes else 1.0


def reads(panels: list[Panels], walk: Walk, row: int, store_bytes: float, cache_bytes: float, beside: int = 1) -> Reads:
    """The DRAM reads of a grid whose blocks start in rows of `row`, `beside` of them at a time; `store_bytes` of each block
    stream through L2 as well.
    """
    blocks = walk.blocks
    if blocks <= EXACT_BLOCKS:
        misses = _window(panels, walk, row, 0, blocks, store_bytes, cache_bytes, beside)
        return _curve(misses, row, blocks)
    length = max(EXACT_BLOCKS // 3 // row, 2) * row
    middle = (blocks // 2 // row) * row - length // 2 // row * row
    last = max((blocks - length) // row, 1) * row
    start = _window(panels, walk, row, 0, length, store_bytes, cache_bytes, beside)
    steady = _window(panels, walk, row, middle, length, store_bytes, cache_bytes, beside)
    end = _window(panels, walk, row, last, blocks - last, store_bytes, cache_bytes, beside)
    # the first half of a window is its history: what an earlier row left in L2 is known only after it
    half = steady.shape[1] // 2
    usual = steady[:, half:].mean(axis=1, keepdims=True)
    gap = np.repeat(usual, last // row - start.shape[1], axis=1)
    end[:, : end.shape[1] // 2] = np.minimum(end[:, : end.shape[1] // 2], usual)
    return _curve(np.concatenate([start, gap, end], axis=1), row, blocks)


def _curve(misses: Floats, row: int, blocks: int) -> Reads:
    edges = np.minimum(np.arange(misses.shape[1] + 1, dtype=np.float64) * row, blocks)
    curves = np.concatenate([np.zeros((2, 1)), np.cumsum(misses, axis=1)], axis=1)
    return Reads(edges, curves[0], curves[1])


def _window(
    panels: list[Panels],
    walk: Walk,
    row: int,
    first: int,
    count: int,
    store_bytes: float,
    cache_bytes: float,
    beside: int,
) -> Floats:
    """Bytes and effort that each row of a window of blocks reads from DRAM, [2, rows]."""
    numbers = np.arange(first, first + count, dtype=np.int64)
    rows = (numbers - first) // row
    total = int(rows[-1]) + 1
    coordinates = walk.coordinates(numbers)
    touched = [_touches(entry, walk, coordinates, rows, first) for entry in panels]
    loads = np.zeros(total)
    for entry, (at, _, _) in zip(panels, touched, strict=True):
        loads = loads + np.bincount(at, minlength=total) * entry.bytes
    flow = loads + np.bincount(rows, minlength=total) * store_bytes
    stays = kept_between_sweeps(flow * beside, cache_bytes)
    before = np.concatenate([[0.0], np.cumsum(flow)])
    misses = np.zeros((2, total))
    for entry, (at, previous, compulsory) in zip(panels, touched, strict=True):
        distance = before[at] - before[np.maximum(previous, 0)]
        kept = np.minimum(KEPT * cache_bytes / np.maximum(distance, 1.0), 1.0)
        share = np.where(previous >= 0, 1.0 - kept, np.where(compulsory, entry.cold, 1.0))
        share = share + entry.sweeps * (1.0 - stays[at])
        missed = np.bincount(at, weights=share * entry.bytes, minlength=total)
        misses += np.stack([missed, missed * entry.effort])
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
