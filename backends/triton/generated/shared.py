"""Shared memory of a block by the rules of Triton's layouts and software pipelining: stages, operands, scratch of changes of layout."""

from __future__ import annotations

import numpy as np

from codesign.backends.triton.generated.layout import SMALLEST_WARP, Product, vector_bytes
from codesign.backends.triton.generated.padding import padded
from codesign.backends.triton.generated.phase import PhaseCode
from codesign.backends.triton.generated.relaid import relaid_bytes
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Dims

SCRATCH = 64.0
"""Elements of a thread that go through shared memory at once where a tile changes its layout."""


def shared_bytes(code: PhaseCode) -> Array:
    """Buffers of the phase's loops, operands and scratch of changes of layout.

    A pipelined load has a buffer for each stage but the one that is worked on, which it has too where the unit reads
    it from there. An operand that is not pipelined has one; those of matrix cores take turns in it, and those from before the
    loop have left it by then. Only the innermost loop is pipelined; what it takes is free again after it.
    """
    layout, nested = code.layout, code.phase.nested
    within: Array = 0.0
    around: Array = 0.0
    turns: Array = 0.0
    before: Array = 0.0
    for load, _, size, _, copied, staged, found, side in code.fetched:
        buffers = np.where(staged, layout.pipeline - 1.0, 0.0)
        if found is not None:
            kept = layout.pipeline - 1.0 + (found.direct if layout.wide else np.greater(layout.by_descriptor, 0.0))
            buffers = np.where(staged, layout.pipeline if layout.padded else kept, 1.0)
        taken = size * buffers
        if layout.matrix_cores:
            passing = np.where(staged, 0.0, taken)
            if load.around:
                turns = np.maximum(turns, passing)
            else:
                before = np.maximum(before, passing)
            if layout.padded and found is not None and side is not None:
                taken = np.where(copied, padded(taken, found, side, load.access), taken)
            taken = np.where(staged, taken, 0.0)
        if nested and load.pipelined:
            within = within + taken
        else:
            around = around + taken
    for text in code.phase.multiplies:
        taken = _computed_factors(code, code.products[text])
        if nested and text.pipelined:
            within = within + taken
        else:
            around = around + taken
    around, scratch = around + turns, np.maximum(_scratch(code), _exchanged(code))
    if not code.phase.along:
        return np.maximum(np.maximum(around, scratch), before)
    needed = np.maximum(within, around + scratch) if nested else around + scratch
    return np.maximum(np.maximum(needed, _merged(code)), before)


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
            size = np.where(_as_taken(code), 0.0, np.where(found.direct, size / _turns(code, found), size))
            if len(code.products) > 1:
                in_place = in_place | found.direct | np.greater_equal(found.rows, SMALLEST_WARP * layout.warps)
        total = total + np.where(in_place, 0.0, size)
    return total


def _as_taken(code: PhaseCode) -> Array:
    """Whether rows are computed by the threads that the unit takes them from, as is what is made of copies to shared memory alone: they are read from
    there as they are taken (the operand's layout goes up to them in Triton 3.9.0)."""
    taken: Array = np.bool_(not code.phase.outside and not code.layout.matrix_cores)
    for fetch in code.fetched:
        if fetch.product is None and len(fetch.load.access.dims) > 1:
            taken = taken & fetch.staged
    return taken


def _turns(code: PhaseCode, found: Product) -> Array:
    """In how many turns computed rows reach a unit that takes them from registers or tensor memory: what a thread has both before and after, beyond
    the 4 bytes that it moves at once, goes by the same memory again. A lane of a warp group has two rows, 8 apart, of each 16; tensor memory
    gives each lane a row of its own."""
    layout = code.layout
    turns: Array = 1.0
    for one in code.loads.placed:
        if {found.text.rows, found.text.depth} <= one.part.keys():
            apart = found.rows / one.part[found.text.rows]
            if layout.wide == 2:
                run = np.where(one.nearest == found.text.depth, one.run, 1.0) * found.bytes / 4.0
                turns = np.maximum(run, 1.0) * np.maximum(found.rows / np.maximum(32.0 * layout.warps, apart), 1.0)
            else:
                turns = np.maximum(found.rows / np.maximum(SMALLEST_WARP * layout.warps, apart), 1.0)
                turns = turns * np.where(np.less_equal(apart, 8.0), 2.0, 1.0)
            break
    return turns


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
        for load, pairs in code.phase.turned.get(store.op, ()):
            size = layout.once(relaid_bytes, load, store.access)
            for pair in pairs:
                both = np.greater(np.minimum(*(layout.g.tile[dim] for dim in pair)), 1.0)
                scratch = np.maximum(scratch, np.where(both, size, 0.0))
    return scratch


def _exchanged(code: PhaseCode) -> Array:
    """Bytes through which warps exchange what they need of each other: sums of what each has of a row, rows' results that are stored, and what is
    loaded of fewer dims than the tile that it meets, by threads each of which has some of it. That changes its places as it is loaded, or as the
    floats that it becomes where a thread has a single element (`hoistConvertOnTopOfExtOrBroadcast` of Triton 3.9.0)."""
    scratch: Array = 0.0
    for work in code.phase.body:
        if work.reduced:
            scratch = np.maximum(scratch, _partial_sums(code, work.dims, work.reduced))
    for fetch in code.fetched:
        access, run = fetch.load.access, code.loads.run(fetch.load.access)
        if run is not None:
            elements, width = code.layout.elements(access.dims), access.dtype.bytes
            own = vector_bytes(access, code.layout)
            moved = ~np.asarray(fetch.staged) & np.greater_equal(elements, code.layout.threads)
            moved = moved & np.not_equal(run * width, own)
            scratch = np.maximum(scratch, np.where(moved, elements * np.where(own > width, width, 4.0), 0.0))
    for store in code.phase.stores:
        dims = store.access.dims
        if (
            code.before is not None
            and not code.spread.parts
            and any({*dims} < part.keys() for part in code.before.parts)
        ):
            moved = np.greater(code.before.warps_along(dims), 1.0)
            scratch = np.maximum(scratch, np.where(moved, code.layout.elements(dims) * store.access.dtype.bytes, 0.0))
    return scratch


def _merged(code: PhaseCode) -> Array:
    """Bytes through which warps add up what their lanes have summed in a loop, after it."""
    scratch: Array = 0.0
    for dims in code.phase.carried:
        summed = tuple(dim for dim in dims if dim in code.phase.along)
        if summed:
            scratch = np.maximum(scratch, _partial_sums(code, dims, summed))
    return scratch


def _partial_sums(code: PhaseCode, dims: Dims, summed: Dims) -> Array:
    """Bytes of a float of each warp that has a part of what is summed; those of one warp need none. Half of them at a time where a warp and those
    beside it have more than a warp's lanes take (as 3.9.0 compiles sums of 1 to 32 rows)."""
    among = code.spread.warps_along(summed)
    kept = tuple(dim for dim in dims if dim not in summed)
    many = np.greater(code.spread.held(kept) * among, code.layout.lanes)
    return np.where(np.greater(among, 1.0), code.layout.elements(kept) * among * np.where(many, 2.0, 4.0), 0.0)


def _changes_threads(code: PhaseCode) -> bool:
    """Whether results of a product go to other threads to be stored: matrix cores store them from where they are, unless they meet a
    load of the whole tile, which is spread differently."""
    if not code.layout.matrix_cores:
        return bool(code.products)
    sides = {dim for found in code.products.values() for dim in found.results}
    return bool(sides) and any(sides <= {*fetch.load.access.dims} for fetch in code.fetched)
