"""What the load and store instructions of generated code take: requests of warps, and the slots that guards cost.

A load is issued for every point of its tile, however many of the points touch the same element: a window of 8 x 8 taps
is 64 loads a result. Threads take neighbours at once where the address allows it; lanes of a tile smaller than the
block load all the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codesign.costmodel.gpu.generated import Tiles, vector_bytes
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Program, Transfer
from codesign.costmodel.gpu.runs import lines_of_a_request
from codesign.costmodel.gpu.streaming import REQUEST_BYTES, REQUEST_CLOCKS
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.summary import Access

OTHERWISE, BORDER, PACKING, ADDRESS = 1.0, 1.0, 1.0, 1.0
"""Integer slots of a thread's load: the value that it has where the guard fails, moved in before; the guard itself where
each point has its own, as at a border that a window crosses; bringing a value of less than 32 bits to its place in a
register when it comes alone; and, in a loop, its next address. Counted in what ptxas 13 makes for sm_90 of an 8 x 8
pooling (256 loads, 262 moves), a 7 x 7 depthwise convolution (34 loads, 33 packings, 21 comparisons) and a 3 x 3
convolution in bf16 (208 loads, 530 integer instructions). Addresses of taps outside of loops are constants of the
instruction."""


def issued(w: Work, program: Program, tiles: Tiles) -> Work:
    """The work of a block with what its loads and stores issue: `request_clocks` of the load/store path, and integer slots."""
    clocks: Array = 0.0
    slots: Array = 0.0
    for transfer, count in program.moves:
        access, times = transfer.access, count * tiles.trips(transfer.around)
        requests, each = _requests(access, tiles)
        clocks = clocks + times * requests / tiles.lanes * _clocks(access, tiles, each)
        if transfer.kind == "load":
            moving = np.greater(times, count) * ADDRESS
            slots = slots + times * requests * (_guards(transfer, tiles, each) + moving)
    return replace(w, integer=w.integer + slots, request_clocks=clocks)


def _requests(access: Access, tiles: Tiles) -> tuple[Array, Array]:
    """Loads or stores of threads for one tile of an access, and the bytes of each."""
    each = vector_bytes(access, tiles)
    lanes = tiles.elements(access.dims) * access.dtype.bytes / each
    return np.maximum(lanes, tiles.threads), each


def _clocks(access: Access, tiles: Tiles, each: Array) -> Array:
    """Clocks of one request of a warp: by its bytes, and by the lines that its lanes lie in, one a clock."""
    lines = lines_of_a_request(access, tiles.g, each, tiles.lanes)
    return np.maximum(np.maximum(each * tiles.lanes / REQUEST_BYTES, REQUEST_CLOCKS), lines)


def _guards(transfer: Transfer, tiles: Tiles, each: Array) -> Array:
    """Integer slots beside one load of a thread."""
    slots: Array = OTHERWISE + BORDER
    access = transfer.access
    if not access.padded:
        guarded: Array = np.False_
        for dim in transfer.tested:
            guarded = guarded | np.greater(tiles.g.tile[dim], _whole(tiles.g.extents[dim]))
        slots = guarded * OTHERWISE
    if access.dtype.bytes < 4:
        slots = slots + np.less_equal(each, access.dtype.bytes) * PACKING
    return slots


def _whole(extent: Array) -> Array:
    """The largest power of two that divides an extent: tiles are powers of two, and larger ones stick out."""
    count = np.asarray(extent).astype(np.int64)
    return count & -count
