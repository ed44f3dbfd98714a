"""Registers of a thread: what the values need that live at the same time in a phase, in the proportions that the compilers were seen to take.

`benchmarks/compiled_truth.py` compares with the compilers.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from codesign.backends.triton.generated import needs
from codesign.backends.triton.generated.layout import Layout, Product, products_of, vector_bytes
from codesign.backends.triton.generated.phase import Fetched, PhaseCode
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.phases import phases_of
from codesign.costmodel.gpu.program import Program

AHEAD = 1.0
"""Steps along the reduction whose fragments are read ahead of the one that is multiplied."""

DEEP = 64.0
"""Elements of k in a step beyond which its fragments count as deep, in full from twice as many on."""

IN_FLIGHT = 64.0
"""Loads that a thread has in flight at once, each with its address, when there are many narrow ones."""

COPIES = 40.0
"""Copies to shared memory whose addresses a thread keeps."""

READ_BACK = 32.0
"""Words that a thread reads back from shared memory ahead of their use."""

HOISTED = 128.0
"""Words of loads that are all issued before the first is used; of those beyond, a quarter."""

READ_AHEAD = (7.0, 2.0)
"""Registers of operands read ahead of their use where threads multiply element by element: some, and two for each result."""

UNROLLED = 4096.0, 1024.0
"""Multiply-adds of a thread in one step of such a product, and words of its operands, from which on and beyond which the compiler does not
order the reads by their use any more: Triton unrolls the whole step and reads all operands first, and they keep their registers or are
spilled. This and the above as seen in 13 float32 products for sm_90 (Triton 3.9.0): 59, 128 and 222 registers for 8, 32 and 64 results
a thread in steps of 16, about as many in steps of up to 64; 0, 88 and 680 bytes spilled for 64, 32 and 16 results and 4,096
multiply-adds (1,024, 1,448 and 2,048 words), 13,600 for 64 and 8,192, with minutes of compilation."""

UNROLLED_ELEMENTS = 24.0
"""Elements of a thread in all steps of a loop up to which it is unrolled whole. In PTX of Triton 3.9.0 for norms, softmaxes and sums on sm_80, sm_90
and sm_100 whose loops take at most 12 steps: of 25 kernels with up to 24 elements three keep the branches of all their loops, of 78 with more
six keep none."""

UNROLLED_WHOLE = 200.0
"""Instructions of all steps of a loop up to which LLVM unrolls it whole for CDNA: of its own counting 300 (`Threshold` of its `LoopUnrollPass` at
-O3), some of which it expects to fold."""

STEP, ELEMENT = 4.0, 2.5
"""Instructions of a step by themselves, and of each element that a thread has in it. Of 98 norms, softmaxes, sums and pools for gfx942 and gfx950 as
Triton 3.9.0 compiles them, these say for 88 whether any loop is left."""

HEAVY = 20.0
"""Operations on an element that keep one more register alive for it while several elements are in work; at most three."""

IN_TURN = 1.7
"""What a sine or cosine keeps alive for an element: its result and, for the other of the two, its argument. Its way for large arguments is a
branch, so that elements are worked on in turn. Seen in tables of rotary angles: 29, 116 and 168 registers for 2, 16 and 32 angles of a thread
(Triton 3.9.0)."""


def needs_of(
    layout: Layout, *, dot: bool = False, direct: bool = False, loops: bool = True, sums: bool = True
) -> needs.Needs:
    """What the code of a kernel needs: whether a matrix unit does its products, and one that reads shared memory itself; whether it has `loops`, and
    `sums` over a dim."""
    if direct:
        return needs.TENSOR_MEMORY if layout.wide == 2 else needs.WARP_GROUPS
    if layout.matrix_cores:
        if not dot:
            return needs.WIDE_VECTOR if sums else needs.WIDE_ELEMENTS
        return needs.MATRIX_CORES if layout.padded else needs.EARLIER_CORES
    if not (dot or loops):
        return needs.STRAIGHT
    return needs.VECTOR if not dot else needs.LATER_FRAGMENTS if layout.wide else needs.FRAGMENTS


def needed(each: needs.Needs, parts: dict[str, Array]) -> Array:
    """Registers of a thread for what lives in a phase."""
    total: Array = each.base
    for name, values in parts.items():
        share = getattr(each, name)
        if share:
            total = total + share * values
    return total


def alive(program: Program, layout: Layout) -> list[dict[str, Array]]:
    """What lives in a thread during each phase, by kind; see `Needs`."""
    products = products_of(program, layout)
    return [registers(PhaseCode(phase, layout, products)) for phase in phases_of(program)]


def registers(code: PhaseCode) -> dict[str, Array]:
    """What is alive in a thread during the phase, by kind; see `Needs`."""
    parts: dict[str, Array] = {}
    for fetch in code.fetched:
        _fetched_registers(code, fetch, parts)
    for text in code.phase.multiplies:
        _product_registers(code, code.products[text], parts)
    if code.phase.loop:
        parts["loop"] = np.float64(1.0)
    if len(code.phase.multiplies) > 1:
        parts["chained"] = np.float64(len(code.phase.multiplies) - 1)
    held = code.spread.held
    for dims in code.phase.carried:
        _add(parts, "partial", held(dims))
    for work in code.phase.body:
        _add(
            parts,
            "heavy",
            held(work.dims) * (IN_TURN if work.periodic else min(work.operations / HEAVY, 3.0)),
        )
    for one in code.phase.outside:
        _add(parts, "outside", held(one.dims))
    _moved_apart(code, parts)
    if code.phase.loop and not code.phase.multiplies and not code.layout.matrix_cores:
        unrolled = _unrolled(code)
        for kind, share in (("partial", 0.0), ("readback", 0.25), ("heavy", 0.25)):
            if kind in parts:
                parts[kind] = np.where(unrolled, share * parts[kind], parts[kind])
    if code.phase.along and not (code.phase.loop or code.products or code.layout.matrix_cores):
        _in_turn(code, parts)
    for kind, most in (
        ("operands", IN_FLIGHT),
        ("loads", IN_FLIGHT),
        ("stores", IN_FLIGHT),
        ("copies", COPIES),
        ("readback", READ_BACK),
    ):
        if kind in parts:
            parts[kind] = np.minimum(parts[kind], most)
    if "words" in parts:
        parts["words"] = np.minimum(parts["words"], HOISTED + 0.25 * (parts["words"] - HOISTED))
    return parts


def _in_turn(code: PhaseCode, parts: dict[str, Array]) -> None:
    """Straight code sums elements up in turn: fewer loads and operations are under way, and of what stays for later phases there is one value for
    each element, however many loads it is made of."""
    for kind, share in (("loads", 0.25), ("heavy", 0.5)):
        if kind in parts:
            parts[kind] = share * parts[kind]
    if "kept" in parts:
        kept = [code.layout.held(fetch.load.access.dims) for fetch in code.fetched if _stays(code, fetch)]
        parts["kept"], parts["words"] = reduce(np.maximum, kept), 0.0


def _stays(code: PhaseCode, fetch: Fetched) -> bool:
    """Whether a tile that is not looped over stays for the phases after it."""
    return fetch.again and not fetch.load.around and bool(code.phase.along & {*fetch.load.access.dims})


def _moved_apart(code: PhaseCode, parts: dict[str, Array]) -> None:
    """Add the stores of the phase, and the words of what the text loads before it for later ones: the code loads where the text does."""
    for store in code.phase.stores:
        each = vector_bytes(store.access, code.layout) / store.access.dtype.bytes
        _add(parts, "stores", code.layout.held(store.access.dims) / each)
    for load in code.phase.early:
        _add(parts, "early", np.ceil(code.layout.held(load.access.dims) * load.access.dtype.bytes / 4.0))


def _unrolled(code: PhaseCode) -> Array:
    """Whether the compiler unrolls a loop of few steps whole: each element is then loaded, worked on and summed in its turn."""
    found: Array = np.True_
    for fetch in code.fetched:
        load = fetch.load
        elements = code.layout.trips(load.around) * code.layout.held(load.access.dims)
        found = found & np.less_equal(elements, UNROLLED_ELEMENTS)
    return found


def _fetched_registers(code: PhaseCode, fetch: Fetched, parts: dict[str, Array]) -> None:
    """Add what a load holds: addresses of copies, or data on its way."""
    load, layout = fetch.load, code.layout
    if fetch.product is None:
        held = _held_by_a_load(fetch, layout, code.spread.beside(load.access.dims))
    else:
        held = _held_by_an_operand(fetch, fetch.product, layout, len(code.phase.multiplies) == 1)
    met = _met(code, fetch)
    if met is not None:
        staged = np.asarray(fetch.staged)
        held = {**held, "readback": 0.0, "turned": np.where(staged, 0.0, code.spread.held(met.results))}
    for kind, values in held.items():
        _add(parts, kind, values)
    _ahead_of_use(code, fetch, parts)
    if _stays(code, fetch):
        _add(parts, "kept", layout.held(load.access.dims))


def _met(code: PhaseCode, fetch: Fetched) -> Product | None:
    """The product of warp groups whose results a loop's load meets element by element: a bias of scores.

    Copied to shared memory it is read from there as the results lie. By registers it is spread over the threads in another way, and what becomes
    of both keeps that way (`TritonGPURemoveLayoutConversions` of 3.9.0: the load is the anchor): results change places in each step.
    """
    if code.layout.wide != 1 or fetch.product is not None or not fetch.load.around:
        return None
    dims = {*fetch.load.access.dims}
    return next((found for found in code.products.values() if {*found.results} <= dims), None)


def _held_by_a_load(fetch: Fetched, layout: Layout, least: Array) -> dict[str, Array]:
    """What a load holds that no product takes: `least` elements, as many as a thread has of what they are spread over."""
    width = fetch.load.access.dtype.bytes
    own, each = np.maximum(fetch.size / layout.threads, width), np.maximum(fetch.size / layout.threads, least * width)
    free = ~np.asarray(fetch.staged)
    return {
        "copies": np.where(fetch.staged, own / fetch.vector, 0.0),
        "loads": np.where(free, own / fetch.vector, 0.0),
        "words": np.where(free, each / np.minimum(fetch.vector, 4.0), 0.0),
        "readback": np.where(fetch.staged, each / 4.0, 0.0),
    }


def _held_by_an_operand(fetch: Fetched, found: Product, layout: Layout, only: bool) -> dict[str, Array]:
    """What the load of a factor of a product holds, which is the `only` one of its phase or not."""
    each = np.maximum(fetch.size / layout.threads, 1.0 * fetch.load.access.dtype.bytes)
    count = each / fetch.vector
    operands: Array = 0.0
    if layout.matrix_cores and not layout.padded:
        operands = np.where(fetch.copied, each / 4.0, 0.0)
    before = 0.0 if fetch.load.around else found.rows * found.columns / layout.threads / 2.0
    late = np.maximum(count - before, 0.0)  # no results yet where there is no loop
    if only and not layout.matrix_cores:  # of what comes value by value, two share a register and all an address
        late = late * np.minimum(fetch.vector / 8.0, 1.0)
    operands = operands + np.where(fetch.copied, 0.0, late)
    return {"copies": np.where(fetch.copied, count, 0.0), "operands": operands}


def _ahead_of_use(code: PhaseCode, fetch: Fetched, parts: dict[str, Array]) -> None:
    """Add what a load of a pipelined loop holds for the stages after the next: which buffers are read and written, or the data where they have no
    buffer. A loop has no more stages than steps."""
    layout, load, vector = code.layout, fetch.load, fetch.vector
    if not load.pipelined:
        return
    copied = fetch.copied
    stages = np.minimum(layout.pipeline, np.ceil(layout.trips(load.around)))
    if layout.matrix_cores and fetch.product is None:
        each = np.maximum(fetch.size / layout.threads, 1.0 * load.access.dtype.bytes)
        each_stage = each / np.minimum(vector, 4.0)
        ahead = np.where(copied, np.maximum(stages - 1.0, 0.0), 0.0)
        if not code.products:
            whole = _unrolled_whole(code, fetch)
            ahead = np.where(whole, 0.0, ahead)
            _add(parts, "further", np.where(whole, np.ceil(layout.trips(load.around)) - 1.0, 0.0) * each_stage)
        _add(parts, "waiting", ahead * each_stage)
    elif not any(found.text.factors.ieee for found in code.products.values()):  # those read no fragments ahead
        several = np.where(copied & np.greater(stages, 2.0), 1.0, 0.0)
        parts["stages"] = np.maximum(parts.get("stages", 0.0), several)


def _unrolled_whole(code: PhaseCode, fetch: Fetched) -> Array:
    """Whether LLVM unrolls the loop of a load whole for CDNA: no step waits then for another, and loads are put where there is room for what they
    bring. What a pipeline loads before the loop, and works on after it, is no step of the loop any more."""
    trips = np.ceil(code.layout.trips(fetch.load.around))
    stages = np.where(fetch.copied, np.minimum(code.layout.pipeline, trips), 1.0)
    steps = trips - stages + 1.0
    instructions = STEP + ELEMENT * code.layout.held(fetch.load.access.dims)
    return np.less_equal(steps, 1.0) | np.less_equal(steps * instructions, UNROLLED_WHOLE)


def _product_registers(code: PhaseCode, found: Product, parts: dict[str, Array]) -> None:
    """Add what a product holds: its results, and fragments or operands of its factors."""
    layout = code.layout
    _add(parts, "results", code.spread.held(found.results))
    if found.text.factors.ieee:
        parts["ahead"] = np.maximum(parts.get("ahead", 0.0), _ahead(found, layout))
        return
    part = np.where(found.direct, 0.0, _fragments(found, layout))
    parts["fragments"] = np.maximum(parts.get("fragments", 0.0), part)
    parts["deep"] = np.maximum(parts.get("deep", 0.0), part * np.clip(found.depth / DEEP - 1.0, 0.0, 1.0))
    part = part * np.clip(found.depth / 16.0 - 1.0, 0.0, AHEAD)
    parts["steps"] = np.maximum(parts.get("steps", 0.0), part)


def _add(parts: dict[str, Array], kind: str, values: Array) -> None:
    parts[kind] = parts[kind] + values if kind in parts else values


def _fragments(found: Product, layout: Layout) -> Array:
    """Registers of a warp's fragments for one step of 16 along the reduction: twice those of the side that has fewer, which stays while the other
    goes by."""
    rows, columns = found.part
    if layout.matrix_cores:  # of the whole tile of k
        return sum(side * found.depth * found.bytes / layout.lanes / 4.0 for side in (rows, columns))
    return 2.0 * np.minimum(rows, columns) / 4.0


def _ahead(found: Product, layout: Layout) -> Array:
    """Registers of the operands of a product element by element that are read ahead of their use: those of a nearly square part of
    the result, of a few elements of the reduction, or of all of a step's where the compiler no longer orders so many."""
    results = layout.held(found.results)
    whole = 2.0 * np.sqrt(results) * found.depth
    some = np.minimum(READ_AHEAD[0] + READ_AHEAD[1] * results, whole)
    unordered = np.greater_equal(results * found.depth, UNROLLED[0]) & np.greater(whole, UNROLLED[1])
    return np.where(unordered, whole, some)
