"""What generated code issues: requests of warps and the slots that guards cost, multiply-adds, what several warps work out alike, and what functions
take beside what the text says.

A load is issued for every point of its tile, however many of the points touch the same element: a window of 8 x 8 taps
is 64 loads a result. Threads take neighbours at once where the address allows it; lanes of a tile smaller than the
block load all the same. Where there are more warps along a side of a product than it has parts, several have the same results, and do the
same with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from codesign.backends.triton.generated.expanded import expanded
from codesign.backends.triton.generated.layout import Layout, Product, product, vector_bytes
from codesign.backends.triton.generated.spread import Spread
from codesign.costmodel.gpu.generator import Issued
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Dims, Multiply, Program, Steps
from codesign.costmodel.gpu.runs import lines_of_a_request
from codesign.costmodel.gpu.streaming import REQUEST_BYTES, REQUEST_CLOCKS
from codesign.costmodel.gpu.work import padded_product
from codesign.costmodel.summary import Access

OTHERWISE, BORDER, PACKING, ADDRESS = 1.0, 1.0, 1.0, 1.0
"""Integer slots of a thread's load: the value that it has where the guard fails, moved in before; the guard itself where
each point has its own, as at a border that a window crosses; bringing a value of less than 32 bits to its place in a
register when it comes alone; and, in a loop, its next address. Counted in what ptxas 13 makes for sm_90 of an 8 x 8
pooling (256 loads, 262 moves), a 7 x 7 depthwise convolution (34 loads, 33 packings, 21 comparisons) and a 3 x 3
convolution in bf16 (208 loads, 530 integer instructions). Addresses of taps outside of loops are constants of the
instruction."""


REPEATED = ("vector", "integer", "special", "double")
"""Lanes whose operations on a product's results each warp does that has them."""


def issued(program: Program, layout: Layout) -> Issued:
    """What a block issues."""
    clocks: Array = 0.0
    slots: Array = 0.0
    for transfer, count in program.moves:
        tested = transfer.tested if transfer.kind == "load" else None
        own_clocks, own_slots = layout.once(_of_a_transfer, transfer.access, transfer.around, tested, count)
        clocks, slots = clocks + own_clocks, slots + own_slots
    products = {text: product(text, layout) for text in program.multiplies.values()}
    repeated, further = _repeated(program, products, layout), expanded(program, layout)
    return Issued(clocks, slots, _multiply_adds(products, layout), repeated, further)


def _multiply_adds(products: Mapping[Multiply, Product], layout: Layout) -> dict[str, Array]:
    """Of matrix units, by the dtype that they take them in."""
    found: dict[str, Array] = {}
    for text, one in products.items():
        factors = text.factors
        if factors.ieee:
            continue
        count = padded_product(one.rows, one.columns, one.depth, factors.operand.bits)
        count = count * layout.trips(text.around) * factors.products * one.repeats(layout)
        for rate, share in (
            (factors.rate, np.where(one.widened, 0.0, count)),
            ("f16", np.where(one.widened, count, 0.0)),
        ):
            if rate == factors.rate or np.any(share):
                found[rate] = found.get(rate, 0.0) + share
    return found


def _repeated(program: Program, products: Mapping[Multiply, Product], layout: Layout) -> dict[str, Array]:
    """Slots of what several warps do alike with the results of products, and of the conversions of factors."""
    done = [(one, np.greater(one.repeats(layout), 1.0)) for one in products.values() if not one.text.factors.ieee]
    again = [_where(one, several) for one, several in done if np.any(several)]
    found: dict[str, Array] = {}
    if again:
        spread = Spread((), again, layout)
        for dims, around, operations in program.operations:
            if not any({*dims} <= {*one.results} for one in again):
                continue
            further = spread.held(dims) * layout.threads - layout.lanes_of(dims)
            further = np.maximum(further, 0.0) * layout.times(around, dims)
            for name, cost in operations.items():
                if name in REPEATED:
                    found[name] = found.get(name, 0.0) + further * cost
    return found


def _where(one: Product, several: Array) -> Product:
    """A product as it is under the schedules that have `several` warps work out the same results; under the others a warp has no part of them."""
    rows, columns = one.part
    return replace(one, part=(np.where(several, rows, 0.0), np.where(several, columns, 0.0)))


def _of_a_transfer(
    layout: Layout, access: Access, around: Steps, tested: Dims | None, count: int
) -> tuple[Array, Array]:
    """What so many loads or stores of an access issue: loads where it is `tested` along some dims, if any, whether they are inside."""
    times, requests = count * layout.trips(around), layout.once(_requests, access)
    clocks = times * requests / layout.lanes * layout.once(_clocks, access)
    if tested is None:
        return clocks, 0.0
    moving = np.greater(times, count) * ADDRESS
    return clocks, times * requests * (_guards(layout, access, tested) + moving)


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
