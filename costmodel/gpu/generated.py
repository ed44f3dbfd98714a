"""What the code that Triton generates for a schedule holds on chip: shared memory of a block, registers of a thread.

Shared memory follows from the rules of Triton's layouts and software pipelining. Registers are what the values need
that live at the same time in the phase that needs most, in the proportions that ptxas was seen to take.
`benchmarks/compiled_truth.py` compares with the compiler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from codesign.costmodel.gpu import needs
from codesign.costmodel.gpu.geometry import Array, Geometry, wide_of
from codesign.costmodel.gpu.phases import Phase, phases_of
from codesign.costmodel.gpu.program import Dims, Multiply, Program, Steps, Transfer
from codesign.costmodel.gpu.runs import aligned_run
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import Access

SMALLEST_WARP = 16.0
"""Rows of a result's tile that a warp has at the least."""

WIDEST_ACCESS = 16.0
"""Bytes of the widest load of a thread."""

NARROWEST_COPY = 4.0
"""Bytes of the narrowest copy from global to shared memory that goes on by itself; narrower loads go by registers."""

SCRATCH = 64.0
"""Elements of a thread that go through shared memory at once where a tile changes its layout."""

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

HEAVY = 20.0
"""Operations on an element that keep one more register alive for it while several elements are in work; at most three."""


PADDING = 80.0 / 2048.0
"""Bytes of gaps for each byte of a padded stage: 80 for each 1,024 of both operands, as Triton 3.9.0 allots for gfx950 (68,016 and
102,064 B for two and three stages of 128 x 128 x 64 in f16; the last gap of each operand is left out). An operand of fewer
than 128 rows has more: 77,104 B for three stages of 64 x 128 x 64."""

REDUCED = 40.0
"""Operations of a sine's or cosine's way for large arguments."""


@dataclass
class Tiles:
    """What the rules are evaluated on: the tiling, and warps, threads and pipeline stages of each schedule.

    `wide`: 1 where warp groups multiply from shared memory, 2 where the results lie in tensor memory, else 0. `padded`: every
    stage of an operand has a buffer, with gaps against conflicts. `lanes` of a warp. `by_descriptor`: loads are bulk copies,
    which take a buffer for every stage; `specialised`: warps of their own make them.
    """

    g: Geometry
    warps: Array
    pipeline: Array
    wide: int
    padded: bool = False
    lanes: float = 32.0
    by_descriptor: Array = 0.0
    specialised: Array = 0.0
    vectors: dict[Access, Array] = field(default_factory=dict)
    """Of accesses that were asked for, the bytes that a thread takes at once."""
    _elements: dict[Dims, Array] = field(default_factory=dict)
    _trips: dict[Steps, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.threads = self.warps * self.lanes
        self.matrix_cores = self.lanes > 32.0
        self.pipelined = np.greater(self.pipeline, 1.0)

    def elements(self, dims: Dims) -> Array:
        """Elements of a tile."""
        found = self._elements.get(dims)
        if found is None:
            found = 1.0
            for dim in dims:
                found = found * self.g.tile[dim]
            self._elements[dims] = found
        return found

    def trips(self, loops: Steps) -> Array:
        """How often a block goes through these loops."""
        found = self._trips.get(loops)
        if found is None:
            found = 1.0
            for dim, stretch in loops:
                found = found * (self.g.trips[dim] if stretch is None else self.g.parted[dim, stretch])
            self._trips[loops] = found
        return found

    def held(self, dims: Dims) -> Array:
        """Elements of a tile that one thread holds; a tile smaller than the block is repeated."""
        return np.maximum(self.elements(dims) / self.threads, 1.0)


@dataclass
class Product:
    """How a matrix product is done: `direct` by a unit that reads its second factor from shared memory itself. `rows`, `columns` of the
    result's tile and `depth` of the reduction."""

    text: Multiply
    direct: Array
    rows: Array
    columns: Array
    depth: Array

    @property
    def results(self) -> Dims:
        return self.text.rows, self.text.columns

    @property
    def bytes(self) -> float:
        """Of an element of its factors as the unit takes them."""
        return float(self.text.factors.operand.bytes)


def product(text: Multiply, tiles: Tiles) -> Product:
    """How a product is done under each schedule."""
    rows, columns, depth = (tiles.elements((dim,)) for dim in (text.rows, text.columns, text.depth))
    direct: Array = np.False_
    if tiles.wide and text.factors.operand.bits <= 16:
        direct = np.greater_equal(rows, 64.0) & np.greater_equal(tiles.warps, 4.0)
        if tiles.wide == 2:
            direct = direct & np.less_equal(tiles.warps, 8.0)
    return Product(text, direct, rows, columns, depth)


def vector_bytes(access: Access, tiles: Tiles) -> Array:
    """Bytes that one thread loads or stores at once: a run of neighbours, up to 16 bytes, and no more than the thread's
    share of the tile."""
    found = tiles.vectors.get(access)
    if found is None:
        found = tiles.vectors[access] = _vector_bytes(access, tiles)
    return found


def _vector_bytes(access: Access, tiles: Tiles) -> Array:
    dim, run = aligned_run(access)
    if not dim:
        return float(access.dtype.bytes)
    even = int(np.gcd.reduce(np.append(np.asarray(tiles.g.extents[dim]).astype(np.int64), 16)))
    elements = np.minimum(np.minimum(tiles.g.tile[dim], float(math.gcd(run, even))), tiles.held(access.dims))
    return np.minimum(elements * access.dtype.bytes, WIDEST_ACCESS)


class Held(NamedTuple):
    """Registers that a thread needs if nothing is spilled, and bytes of shared memory of a block. `pliable`: neither loops
    nor fragments, so that loads can be put off until there is room. `further_warps` are launched beside those of the schedule,
    of which the code needs `least_warps`."""

    registers: Array
    shared_bytes: Array
    pliable: Array = np.False_
    further_warps: Array = 0.0
    least_warps: Array = 0.0


def tiles_of(g: Geometry, machine: Machine, knobs: Mapping[str, Array]) -> Tiles:
    """What the rules are evaluated on, for the schedules whose columns are `knobs`."""
    by_descriptor = knobs.get("tma", 0.0) if machine.features.get("tma", False) else 0.0
    return Tiles(
        g,
        knobs.get("warps", 4.0),
        np.maximum(knobs.get("pipeline", 1.0), 1.0),
        wide_of(machine),
        machine.features.get("padded_stages", False),
        machine.limit("warp_size"),
        by_descriptor,
        by_descriptor * knobs.get("warp_specialize", 0.0),
    )


def held_by(program: Program, tiles: Tiles, machine: Machine) -> Held:
    """What the generated code of a program's tiles holds: the most of any phase."""
    products = products_of(program, tiles)
    direct = direct_of(products)
    shared: Array = np.float64(0.0)
    registers: Array = np.float64(0.0)
    for phase in phases_of(program):
        held = _Phase(phase, tiles, products)
        shared = np.maximum(shared, held.shared_bytes())
        parts = held.registers()
        need = _sum(needs_of(tiles, dot=bool(products)), parts)
        if tiles.wide and products:
            need = np.where(direct, _sum(needs_of(tiles, dot=True, direct=True), parts), need)
        registers = np.maximum(registers, need)
    if tiles.wide == 2:  # barriers between the copies and the unit
        shared = shared + np.where(direct, np.where(tiles.pipelined, 16.0, 8.0), 0.0)
    whole = Held(registers, shared, not products and not program.loops)
    apart = np.greater(tiles.specialised, 0.0) if products else np.False_
    return _specialised(whole, apart, tiles.warps, machine) if np.any(apart) else whole


def products_of(program: Program, tiles: Tiles) -> dict[Multiply, Product]:
    """How each product of a program is done."""
    return {text: product(text, tiles) for text in program.multiplies.values()}


def direct_of(products: Mapping[Multiply, Product]) -> Array:
    """Whether a matrix unit that reads shared memory itself does any of the products."""
    direct: Array = np.False_
    for found in products.values():
        direct = direct | found.direct
    return direct


def needs_of(tiles: Tiles, *, dot: bool = False, direct: bool = False) -> needs.Needs:
    """What the code of a kernel needs: whether a matrix unit does its products, and one that reads shared memory itself."""
    if direct:
        return needs.TENSOR_MEMORY if tiles.wide == 2 else needs.WARP_GROUPS
    if tiles.matrix_cores:
        return needs.WIDE_VECTOR if not dot else needs.MATRIX_CORES if tiles.padded else needs.EARLIER_CORES
    return needs.VECTOR if not dot else needs.LATER_FRAGMENTS if tiles.wide else needs.FRAGMENTS


def alive(program: Program, tiles: Tiles) -> list[dict[str, Array]]:
    """What lives in a thread during each phase, by kind; see `Needs`."""
    products = products_of(program, tiles)
    return [_Phase(phase, tiles, products).registers() for phase in phases_of(program)]


def _specialised(held: Held, apart: Array, warps: Array, machine: Machine) -> Held:
    """What is held where a product's loop is parted among warps that load and warps that compute.

    Further warps are launched beside those of the schedule, and registers are dealt out anew among them: all threads start
    with an equal share of the SM's. As Triton 3.9.0 does it: 4 warps become 12 on sm_90, whose code leaves other numbers as
    they are, with 16 KiB for what the parts hand over; on sm_100 and sm_120 4 more are launched, and fewer than 4 refused.
    """
    if wide_of(machine) == 1:
        apart = apart & np.equal(warps, 4.0)
    further, handed, least = (8.0, 16384.0 + 320.0, 0.0) if wide_of(machine) == 1 else (4.0, 192.0, 4.0)
    threads = (warps + further) * machine.limit("warp_size")
    share = np.floor(machine.limit("registers_per_sm") / threads / 8.0) * 8.0
    return Held(
        np.where(apart, np.minimum(share, machine.limit("registers_per_thread")), held.registers),
        held.shared_bytes + np.where(apart, handed, 0.0),
        held.pliable,
        np.where(apart, further, 0.0),
        np.where(apart, least, 0.0),
    )


def _sum(each: needs.Needs, parts: dict[str, Array]) -> Array:
    total: Array = each.base
    for name, values in parts.items():
        share = getattr(each, name)
        if share:
            total = total + share * values
    return total


class _Fetch(NamedTuple):
    """A load of a phase: its bytes, those that a thread takes at once, where it is staged, and the product that takes it and as which
    factor (0 its rows, 1 its columns)."""

    load: Transfer
    again: bool
    size: Array
    vector: Array
    staged: Array
    product: Product | None
    side: int | None


class _Phase:
    """One phase under each schedule: which loads go by themselves to shared memory, and what the rest needs."""

    def __init__(self, phase: Phase, tiles: Tiles, products: dict[Multiply, Product]) -> None:
        self.phase, self.tiles = phase, tiles
        self.products = {text: products[text] for text in phase.products}
        self.fetched = [self._fetch(fetch.load, fetch.again) for fetch in phase.fetches]

    def _fetch(self, load: Transfer, again: bool) -> _Fetch:
        tiles = self.tiles
        size = tiles.elements(load.access.dims) * load.access.dtype.bytes
        vector = vector_bytes(load.access, tiles)
        staged = load.pipelined & tiles.pipelined & np.greater_equal(vector, NARROWEST_COPY)
        found, side = self._factor(load)
        if tiles.matrix_cores and found is None:  # what feeds no product waits in registers
            staged = np.False_
        return _Fetch(load, again, size, vector, staged, found, side)

    def _factor(self, load: Transfer) -> tuple[Product | None, int | None]:
        """The product of the phase that takes a load as it is, and as which factor."""
        for text in self.phase.multiplies:
            for side, factor in enumerate(text.plain):
                if factor is not None and factor.key == load.key:
                    return self.products[text], side
        return None, None

    def shared_bytes(self) -> Array:
        """Buffers of the phase's loops, operands and scratch of changes of layout.

        A pipelined load has a buffer for each stage but the one that is worked on, which it has too where the unit reads
        it from there. An operand that is not pipelined has one; those of matrix cores take turns in it. Only the innermost
        loop is pipelined; what it takes is free again after it.
        """
        tiles, nested = self.tiles, self.phase.nested
        within: Array = 0.0
        around: Array = 0.0
        turns: Array = 0.0
        for load, _, size, _, staged, found, side in self.fetched:
            buffers = np.where(staged, tiles.pipeline - 1.0, 0.0)
            if found is not None:
                kept = tiles.pipeline - 1.0 + (found.direct if tiles.wide else np.greater(tiles.by_descriptor, 0.0))
                if tiles.padded:
                    gaps = np.maximum(PADDING, 3.0 / (found.rows if side == 0 else found.columns) + 1.0 / 64.0)
                    kept, size = tiles.pipeline, np.where(staged, size * (1.0 + gaps), size)
                buffers = np.where(staged, kept, 1.0)
            if tiles.matrix_cores:
                turns = np.maximum(turns, np.where(staged, 0.0, size * buffers))
                buffers = np.where(staged, buffers, 0.0)
            if nested and load.pipelined:
                within = within + size * buffers
            else:
                around = around + size * buffers
        for text in self.phase.multiplies:
            taken = self._computed_factors(self.products[text])
            if nested and text.pipelined:
                within = within + taken
            else:
                around = around + taken
        around, scratch = around + turns, self._scratch()
        if not self.phase.along:
            return np.maximum(around, scratch)
        return np.maximum(within, around + scratch) if nested else around + scratch

    def _computed_factors(self, found: Product) -> Array:
        """Bytes through which factors that are computed reach the unit.

        Rows that a product before left in the same threads need none, nor what one warp exchanges among its lanes; a
        unit that takes rows from registers or tensor memory needs scratch to give them their layout.
        """
        tiles = self.tiles
        total: Array = 0.0
        for side, (count, plain) in enumerate(zip((found.rows, found.columns), found.text.plain, strict=True)):
            if plain is not None:
                continue
            size = count * found.depth * found.bytes
            in_place = np.less_equal(tiles.warps, 1.0) & ~np.asarray(found.direct)
            if side == 0:
                size = np.where(found.direct, np.minimum(size, tiles.threads * SCRATCH / 2.0 * found.bytes), size)
                if len(self.products) > 1:
                    in_place = in_place | found.direct | np.greater_equal(found.rows, SMALLEST_WARP * tiles.warps)
            total = total + np.where(in_place, 0.0, size)
        return total

    def _scratch(self) -> Array:
        """Bytes through which what is stored changes its layout: from that of a product's results, or of loads whose dims
        are in another order."""
        scratch: Array = 0.0
        threads = self.tiles.threads
        for store in self.phase.stores:
            dims, width = store.access.dims, store.access.dtype.bytes
            if self._changes_threads():
                elements = np.minimum(self.tiles.elements(dims), threads * SCRATCH)
                among = np.greater(self.tiles.warps, 1.0)
                scratch = np.maximum(scratch, np.where(among, elements * width, 0.0))
            for pair in self.phase.turned.get(store.op, ()):
                elements = np.minimum(self.tiles.elements(dims), threads * SCRATCH / 2.0)
                both = np.greater(np.minimum(*(self.tiles.g.tile[dim] for dim in pair)), 1.0)
                scratch = np.maximum(scratch, np.where(both, elements * width, 0.0))
        return scratch

    def _changes_threads(self) -> bool:
        """Whether results of a product go to other threads to be stored: matrix cores store them from where they are, unless they meet a
        load of the whole tile, which is spread differently."""
        if not self.tiles.matrix_cores:
            return bool(self.products)
        sides = {dim for found in self.products.values() for dim in found.results}
        return bool(sides) and any(sides <= {*fetch.load.access.dims} for fetch in self.fetched)

    def _alongside(self, fetch: _Fetch) -> Array:
        """Least elements that a thread has of a load: one, or those beside its part of a product's result, when the load
        goes along only one of its sides (a thread has an eighth of its warp's rows and a quarter of its columns)."""
        least: Array = 1.0
        for found in self.products.values():
            for side, share in ((0, 8.0), (1, 4.0)):
                if fetch.side is None and fetch.load.access.dims == found.results[side : side + 1]:
                    least = np.maximum(least, _warp_tile(found, self.tiles)[side] / share)
        return least

    def registers(self) -> dict[str, Array]:
        """What is alive in a thread during the phase, by kind; see `Needs`."""
        parts: dict[str, Array] = {}
        for fetch in self.fetched:
            self._fetched_registers(fetch, parts)
        for text in self.phase.multiplies:
            self._product_registers(self.products[text], parts)
        held = self.tiles.held
        for dims in self.phase.carried:
            _add(parts, "partial", held(dims))
        for work in self.phase.body:
            _add(parts, "heavy", held(work.dims) * min((work.operations + REDUCED * work.periodic) / HEAVY, 3.0))
        for one in self.phase.outside:
            _add(parts, "outside", held(one.dims))
        for kind, most in (("operands", IN_FLIGHT), ("loads", IN_FLIGHT), ("copies", COPIES), ("readback", READ_BACK)):
            if kind in parts:
                parts[kind] = np.minimum(parts[kind], most)
        if "words" in parts:
            parts["words"] = np.minimum(parts["words"], HOISTED + 0.25 * (parts["words"] - HOISTED))
        return parts

    def _fetched_registers(self, fetch: _Fetch, parts: dict[str, Array]) -> None:
        """Add what a load holds: addresses of copies, or data on its way."""
        tiles, (load, again, size, vector, staged, found, _) = self.tiles, fetch
        each = np.maximum(size / tiles.threads, self._alongside(fetch) * load.access.dtype.bytes)
        count = each / vector
        _add(parts, "copies", np.where(staged, count, 0.0))
        free = ~np.asarray(staged)
        if found is not None:
            if tiles.matrix_cores and not tiles.padded:
                _add(parts, "operands", np.where(staged, each / 4.0, 0.0))
            before = 0.0 if load.around else found.rows * found.columns / tiles.threads / 2.0
            late = np.maximum(count - before, 0.0)  # no results yet where there is no loop
            _add(parts, "operands", np.where(free, late, 0.0))
        else:
            _add(parts, "loads", np.where(free, count, 0.0))
            _add(parts, "words", np.where(free, each / np.minimum(vector, 4.0), 0.0))
            _add(parts, "readback", np.where(staged, each / 4.0, 0.0))
        if again and not load.around and self.phase.along & {*load.access.dims}:
            _add(
                parts, "kept", tiles.held(load.access.dims)
            )  # a tile that is not looped over stays for the phases after it

    def _product_registers(self, found: Product, parts: dict[str, Array]) -> None:
        """Add what a product holds: its results, and fragments or operands of its factors."""
        tiles = self.tiles
        _add(parts, "results", tiles.held(found.results))
        if found.text.factors.ieee:
            parts["ahead"] = np.maximum(parts.get("ahead", 0.0), _ahead(found, tiles))
            return
        part = np.where(found.direct, 0.0, _fragments(found, tiles))
        parts["fragments"] = np.maximum(parts.get("fragments", 0.0), part)
        parts["deep"] = np.maximum(parts.get("deep", 0.0), part * np.clip(found.depth / DEEP - 1.0, 0.0, 1.0))
        part = part * np.clip(found.depth / 16.0 - 1.0, 0.0, AHEAD)
        parts["steps"] = np.maximum(parts.get("steps", 0.0), part)


def _add(parts: dict[str, Array], kind: str, values: Array) -> None:
    parts[kind] = parts[kind] + values if kind in parts else values


def _warp_tile(found: Product, tiles: Tiles) -> tuple[Array, Array]:
    """Rows and columns of a product's result that one warp has: a nearly square part."""
    side = np.sqrt(found.rows * found.columns / tiles.warps)
    rows = np.maximum(np.minimum(side, found.rows), SMALLEST_WARP)
    return rows, np.maximum(found.rows * found.columns / tiles.warps / rows, 8.0)


def _fragments(found: Product, tiles: Tiles) -> Array:
    """Registers of a warp's fragments of both factors for one step of 16 along the reduction."""
    rows, columns = _warp_tile(found, tiles)
    if tiles.matrix_cores:  # of the whole tile of k
        return sum(side * found.depth * found.bytes / tiles.lanes / 4.0 for side in (rows, columns))
    return rows / 4.0 + columns / 4.0


def _ahead(found: Product, tiles: Tiles) -> Array:
    """Registers of the operands of a product element by element that are read ahead of their use: those of a nearly square part of
    the result, of a few elements of the reduction, or of all of a step's where the compiler no longer orders so many."""
    results = tiles.held(found.results)
    whole = 2.0 * np.sqrt(results) * found.depth
    some = np.minimum(READ_AHEAD[0] + READ_AHEAD[1] * results, whole)
    unordered = np.greater_equal(results * found.depth, UNROLLED[0]) & np.greater(whole, UNROLLED[1])
    return np.where(unordered, whole, some)
