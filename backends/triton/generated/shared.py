"""Shared memory of a block by the rules of Triton's layouts and software pipelining: stages, operands, scratch of changes of layout."""

from __future__ import annotations

import numpy as np

from codesign.backends.triton.generated.layout import SMALLEST_WARP, Product
from codesign.backends.triton.generated.phase import PhaseCode
from codesign.costmodel.gpu.geometry import Array

SCRATCH = 64.0
"""Elements of a thread that go through shared memory at once where a tile changes its layout."""

PADDING = 80.0 / 2048.0
"""Bytes of gaps for each byte of a padded stage: 80 for each 1,024 of both operands, as Triton 3.9.0 allots for gfx950 (68,016 and
102,064 B for two and three stages of 128 x 128 x 64 in f16; the last gap of each operand is left out). An operand of fewer
than 128 rows has more: 77,104 B for three stages of 64 x 128 x 64."""


def shared_bytes(code: PhaseCode) -> Array:
    """Buffers of the phase's loops, operands and scratch of changes of layout.

    A pipelined load has a buffer for each stage but the one that is worked on, which it has too where the unit reads
    it from there. An operand that is not pipelined has one; those of matrix cores take turns in it. Only the innermost
    loop is pipelined; what it takes is free again after it.
    """
    layout, nested = code.layout, code.phase.nested
    within: Array = 0.0
    around: Array = 0.0
    turns: Array = 0.0
    for load, _, size, _, staged, found, side in code.fetched:
        buffers = np.where(staged, layout.pipeline - 1.0, 0.0)
        if found is not None:
            kept = layout.pipeline - 1.0 + (found.direct if layout.wide else np.greater(layout.by_descriptor, 0.0))
            if layout.padded:
                gaps = np.maximum(PADDING, 3.0 / (found.rows if side == 0 else found.columns) + 1.0 / 64.0)
                kept, size = layout.pipeline, np.where(staged, size * (1.0 + gaps), size)
            buffers = np.where(staged, kept, 1.0)
        if layout.matrix_cores:
            turns = np.maximum(turns, np.where(staged, 0.0, size * buffers))
            buffers = np.where(staged, buffers, 0.0)
        if nested and load.pipelined:
            within = within + size * buffers
        else:
            around = around + size * buffers
    for text in code.phase.multiplies:
        taken = _computed_factors(code, code.products[text])
        if nested and text.pipelined:
            within = within + taken
        else:
            around = around + taken
    around, scratch = around + turns, _scratch(code)
    if not code.phase.along:
        return np.maximum(around, scratch)
    return np.maximum(within, around + scratch) if nested else around + scratch


def _computed_factors(code: PhaseCode, found: Product) -> Array:
    """Bytes through which factors that are computed reach the unit.

    Rows that a product before left in the same threads need none, nor what one warp exchanges among its lanes; a
    unit that takes rows from registers or tensor memory needs scratch to give them their layout.
    """
    layout = code.layout
    total: Array = 0.0
    for side, (count, plain) in enumerate(zip((found.rows, found.columns), found.text.plain, strict=True)):
        if plain is not None:
            continue
        size = count * found.depth * found.bytes
        in_place = np.less_equal(layout.warps, 1.0) & ~np.asarray(found.direct)
        if side == 0:
            size = np.where(found.direct, np.minimum(size, layout.threads * SCRATCH / 2.0 * found.bytes), size)
            if len(code.products) > 1:
                in_place = in_place | found.direct | np.greater_equal(found.rows, SMALLEST_WARP * layout.warps)
        total = total + np.where(in_place, 0.0, size)
    return total


def _scratch(code: PhaseCode) -> Array:
    """Bytes through which what is stored changes its layout: from that of a product's results, or of loads whose dims
    are in another order."""
    layout = code.layout
    scratch: Array = 0.0
    threads = layout.threads
    for store in code.phase.stores:
        dims, width = store.access.dims, store.access.dtype.bytes
        if _changes_threads(code):
            elements = np.minimum(layout.elements(dims), threads * SCRATCH)
            among = np.greater(layout.warps, 1.0)
            scratch = np.maximum(scratch, np.where(among, elements * width, 0.0))
        for pair in code.phase.turned.get(store.op, ()):
            elements = np.minimum(layout.elements(dims), threads * SCRATCH / 2.0)
            both = np.greater(np.minimum(*(layout.g.tile[dim] for dim in pair)), 1.0)
            scratch = np.maximum(scratch, np.where(both, elements * width, 0.0))
    return scratch


def _changes_threads(code: PhaseCode) -> bool:
    """Whether results of a product go to other threads to be stored: matrix cores store them from where they are, unless they meet a
    load of the whole tile, which is spread differently."""
    if not code.layout.matrix_cores:
        return bool(code.products)
    sides = {dim for found in code.products.values() for dim in found.results}
    return bool(sides) and any(sides <= {*fetch.load.access.dims} for fetch in code.fetched)
