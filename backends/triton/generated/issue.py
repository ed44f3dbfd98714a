"""What the load and store instructions of generated code take: requests of warps, and the slots that guards cost.

A load is issued for every point of its tile, however many of the points touch the same element: a window of 8 x 8 taps
is 64 loads a result. Threads take neighbours at once where the address allows it; lanes of a tile smaller than the
block load all the same.
"""

from __future__ import annotations

import numpy as np

from codesign.backends.triton.generated.layout import Layout, vector_bytes
from codesign.costmodel.gpu.generator import Issued
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Dims, Program, Steps
from codesign.costmodel.gpu.runs import lines_of_a_request
from codesign.costmodel.gpu.streaming import REQUEST_BYTES, REQUEST_CLOCKS
from codesign.costmodel.summary import Access

OTHERWISE, BORDER, PACKING, ADDRESS = 1.0, 1.0, 1.0, 1.0
"""Integer slots of a thread's load: the value that it has where the guard fails, moved in before; the guard itself where
each point has its own, as at a border that a window crosses; bringing a value of less than 32 bits to its place in a
register when it comes alone; and, in a loop, its next address. Counted in what ptxas 13 makes for sm_90 of an 8 x 8
pooling (256 loads, 262 moves), a 7 x 7 depthwise convolution (34 loads, 33 packings, 21 comparisons) and a 3 x 3
convolution in bf16 (208 loads, 530 integer instructions). Addresses of taps outside of loops are constants of the
instruction."""


def issued(program: Program, layout: Layout) -> Issued:
    """What the loads and stores of a block issue."""
    clocks: Array = 0.0
    slots: Array = 0.0
    for transfer, count in program.moves:
        tested = transfer.tested if transfer.kind == "load" else None
        own_clocks, own_slots = layout.once(_of_a_transfer, transfer.access, transfer.around, tested, count)
        clocks, slots = clocks + own_clocks, slots + own_slots
    return Issued(clocks, slots)


def _of_a_transfer(layout: Layout, access: Access, around: Steps, tested: Dims | None, count: int) -> Issued:
    """What so many loads or stores of an access issue: loads where it is `tested` along some dims, if any, whether they are inside."""
    times, requests = count * layout.trips(around), layout.once(_requests, access)
    clocks = times * requests / layout.lanes * layout.once(_clocks, access)
    if tested is None:
        return Issued(clocks, 0.0)
    moving = np.greater(times, count) * ADDRESS
    return Issued(clocks, times * requests * (_guards(layout, access, tested) + moving))


def _requests(layout: Layout, access: Access) -> Array:
    """Loads or stores of threads for one tile of an access."""
    lanes = layout.elements(access.dims) * access.dtype.bytes / vector_bytes(access, layout)
    return np.maximum(lanes, layout.threads)


def _clocks(layout: Layout, access: Access) -> Array:
    """Clocks of one request of a warp: by its bytes, and by the lines that its lanes lie in, one a clock."""
    each = vector_bytes(access, layout)
    lines = lines_of_a_request(access, layout.g, each, layout.lanes)
    return np.maximum(np.maximum(each * layout.lanes / REQUEST_BYTES, REQUEST_CLOCKS), lines)


def _guards(layout: Layout, access: Access, tested: Dims) -> Array:
    """Integer slots beside one load of a thread."""
    slots: Array = OTHERWISE + BORDER
    if not access.padded:
        guarded: Array = np.False_
        for dim in tested:
            guarded = guarded | np.greater(layout.g.tile[dim], _whole(layout.g.extents[dim]))
        slots = guarded * OTHERWISE
    if access.dtype.bytes < 4:
        slots = slots + np.less_equal(vector_bytes(access, layout), access.dtype.bytes) * PACKING
    return slots


def _whole(extent: Array) -> Array:
    """The largest power of two that divides an extent: tiles are powers of two, and larger ones stick out."""
    count = np.asarray(extent).astype(np.int64)
    return count & -count
