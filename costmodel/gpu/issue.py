"""What the load and store instructions of generated code take: requests of warps, and the slots that guards cost.

A load is issued for every point of its tile, however many of the points touch the same element: a window of 8 x 8 taps
is 64 loads a result. Threads take neighbours at once where the address allows it; lanes of a tile smaller than the
block load all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from codesign.costmodel.gpu.generated import Held, Tiles, held_by, tiles_of, vector_bytes
from codesign.costmodel.gpu.geometry import Array, Geometry, sector_bytes, wide_of
from codesign.costmodel.gpu.phases import Fetch, Phase, phases_of
from codesign.costmodel.gpu.runs import lines_of_a_request
from codesign.costmodel.gpu.streaming import REQUEST_BYTES, REQUEST_CLOCKS
from codesign.costmodel.gpu.work import Work, work
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import Access, KernelSummary

OTHERWISE, BORDER, PACKING, ADDRESS = 1.0, 1.0, 1.0, 1.0
"""Integer slots of a thread's load: the value that it has where the guard fails, moved in before; the guard itself where
each point has its own, as at a border that a window crosses; bringing a value of less than 32 bits to its place in a
register when it comes alone; and, in a loop, its next address. Counted in what ptxas 13 makes for sm_90 of an 8 x 8
pooling (256 loads, 262 moves), a 7 x 7 depthwise convolution (34 loads, 33 packings, 21 comparisons) and a 3 x 3
convolution in bf16 (208 loads, 530 integer instructions). Addresses of taps outside of loops are constants of the
instruction."""


def block_work(
    kernel: KernelSummary, g: Geometry, machine: Machine, knobs: Mapping[str, Array], compiled: bool = True
) -> tuple[Work, Held | None]:
    """Work of one block, and what its code holds on chip: as this compiler generates it where it is `compiled`, else as
    a library has it (which leaves open what it holds)."""
    warps = knobs.get("warps", 4.0)
    wide, unit = wide_of(machine), knobs.get("vector_unit", 0.0)
    if not compiled:
        return work(kernel, g, unit, warps, wide, sector_bytes(machine)), None
    warp = machine.limit("warp_size")
    w = work(kernel, g, unit, warps, wide, sector_bytes(machine), warps * warp)
    tiles = tiles_of(kernel, g, machine, knobs)
    return issued(w, kernel, tiles, warp), held_by(kernel, tiles, machine)


def issued(w: Work, kernel: KernelSummary, tiles: Tiles, warp: float) -> Work:
    """The work of a block with what its loads and stores issue, under generated code: `request_clocks` of the load/store
    path, and integer slots."""
    clocks: Array = 0.0
    slots: Array = 0.0
    for phase in phases_of(kernel):
        for fetch in phase.fetches:
            times = _times(fetch, phase, tiles)
            requests, each = _requests(fetch.access, tiles)
            clocks = clocks + times * requests / warp * _clocks(fetch.access, tiles, each, warp)
            moving = np.greater(times, 1.0) * ADDRESS
            slots = slots + times * requests * (_guards(fetch.access, tiles, each) + moving)
        for nest in phase.roots:
            for access in nest.stores:
                times = _trips((dim for dim in access.dims if dim in tiles.g.trips), tiles)
                requests, each = _requests(access, tiles)
                clocks = clocks + times * requests / warp * _clocks(access, tiles, each, warp)
    return replace(w, integer=w.integer + slots, request_clocks=clocks)


def _requests(access: Access, tiles: Tiles) -> tuple[Array, Array]:
    """Loads or stores of threads for one tile of an access, and the bytes of each."""
    each = vector_bytes(access, tiles)
    lanes = tiles.elements(access.dims) * access.dtype.bytes / each
    return np.maximum(lanes, tiles.threads), each


def _clocks(access: Access, tiles: Tiles, each: Array, warp: float) -> Array:
    """Clocks of one request of a warp: by its bytes, and by the lines that its lanes lie in, one a clock."""
    lines = lines_of_a_request(access, tiles.g, each, warp)
    return np.maximum(np.maximum(each * warp / REQUEST_BYTES, REQUEST_CLOCKS), lines)


def _guards(access: Access, tiles: Tiles, each: Array) -> Array:
    """Integer slots beside one load of a thread."""
    slots: Array = OTHERWISE + BORDER
    if not access.padded:
        guarded: Array = np.False_
        for dim in access.dims:
            guarded = guarded | np.greater(tiles.g.tile[dim], _whole(tiles.g.extents[dim]))
        slots = guarded * OTHERWISE
    if access.dtype.bytes < 4:
        slots = slots + np.less_equal(each, access.dtype.bytes) * PACKING
    return slots


def _whole(extent: Array) -> Array:
    """The largest power of two that divides an extent: tiles are powers of two, and larger ones stick out."""
    count = np.asarray(extent).astype(np.int64)
    return count & -count


def _times(fetch: Fetch, phase: Phase, tiles: Tiles) -> Array:
    """How often a phase does a load: in every trip of the loops that its address depends on, and of those around them."""
    dims = {*fetch.along, *fetch.deeper} | {dim for dim in fetch.access.dims if dim in tiles.g.trips}
    if fetch.deeper:
        nested = tiles.goes_along(fetch.deeper)
        around = _trips((dim for dim in phase.loops if dim not in dims), tiles)
        return _trips(dims, tiles) * np.where(nested, around, 1.0)
    return _trips(dims, tiles)


def _trips(dims: Iterable[str], tiles: Tiles) -> Array:
    total: Array = 1.0
    for dim in dims:
        total = total * tiles.g.trips.get(dim, 1.0)
    return total
