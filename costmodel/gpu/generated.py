"""What the code that Triton generates for a schedule holds on chip: shared memory of a block, registers of a thread.

Shared memory follows from the rules of Triton's layouts and software pipelining. Registers are what the values need
that live at the same time in the phase that needs most, in the proportions that ptxas was seen to take.
`benchmarks/compiled_truth.py` compares with the compiler.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from codesign.costmodel.gpu import needs
from codesign.costmodel.gpu.geometry import Array, Geometry, wide_of
from codesign.costmodel.gpu.phases import Fetch, Phase, aligned_run, open_dims, phases_of
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import Access, KernelSummary, Nest

SMALLEST_DOT = 16.0
"""Least side of a tile that a matrix unit takes; below it a product is multiplied out."""

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
    """What the rules are evaluated on: the tiling, and warps, threads and pipeline stages of each schedule. `wide`: 1
    where warp groups multiply from shared memory, 2 where the results lie in tensor memory, else 0. `open`: dims whose
    extent is not known to the compiler. `padded`: every stage of an operand has a buffer, with gaps against conflicts.
    `lanes` of a warp. `by_descriptor`: loads are bulk copies, which take a buffer for every stage; `specialised`: warps of
    their own make them."""

    g: Geometry
    warps: Array
    pipeline: Array
    wide: int
    open: frozenset[str] = frozenset()
    padded: bool = False
    lanes: float = 32.0
    by_descriptor: Array = 0.0
    specialised: Array = 0.0
    vectors: dict[Access, Array] = field(default_factory=dict)
    """Of accesses that were asked for, the bytes that a thread takes at once."""

    def __post_init__(self) -> None:
        self.threads = self.warps * self.lanes
        self.matrix_cores = self.lanes > 32.0
        self.pipelined = np.greater(self.pipeline, 1.0)

    def elements(self, dims: Iterable[str]) -> Array:
        """Elements of a tile."""
        total: Array = 1.0
        for dim in dims:
            total = total * self.g.tile[dim]
        return total

    def held(self, dims: Iterable[str]) -> Array:
        """Elements of a tile that one thread holds; a tile smaller than the block is repeated."""
        return np.maximum(self.elements(dims) / self.threads, 1.0)

    def goes_along(self, dims: Iterable[str]) -> Array:
        """Whether any of these dims is a loop, as far as the compiler knows of more than one trip."""
        found: Array = np.False_
        for dim in dims:
            if dim in self.open and dim in self.g.looped:
                found = found | self.g.looped[dim]
            elif dim in self.g.trips:
                found = found | np.greater(self.g.trips[dim], 1.0)
        return found


@dataclass
class Product:
    """How a contraction is done: `dot` by multiply-adds of whole tiles (else multiplied out), `direct` by a unit that
    reads its second factor from shared memory itself. `rows`, `columns` of the result's tile, whichever factor has
    them, and `depth` of the reduction; `dims` of both sides; `sides`: bytes of an element of the rows' and the columns' factor, and whether it
    arrives as loaded."""

    dot: Array
    direct: Array
    rows: Array
    columns: Array
    depth: Array
    dims: tuple[tuple[str, ...], tuple[str, ...]]
    sides: tuple[tuple[float, bool], tuple[float, bool]]


def product(nest: Nest, tiles: Tiles) -> Product:
    """How a contraction is done under each schedule."""
    found = nest.contraction
    assert found is not None
    left, right = (found.m, found.left.bytes, found.plain[0]), (found.n, found.right.bytes, found.plain[1])
    if nest.dims.index(found.n[-1]) < nest.dims.index(found.m[-1]):
        left, right = right, left
    rows, columns, depth = tiles.elements(left[0]), tiles.elements(right[0]), tiles.elements(found.k)
    dot = np.greater_equal(np.minimum(np.minimum(rows, columns), depth), SMALLEST_DOT) & (found.unit is not None)
    for dim in found.batch:
        dot = dot & np.less_equal(tiles.g.tile[dim], 1.0)
    direct: Array = np.False_
    if tiles.wide and found.operand.bits <= 16:
        direct = dot & np.greater_equal(rows, 64.0) & np.greater_equal(tiles.warps, 4.0)
        if tiles.wide == 2:
            direct = direct & np.less_equal(tiles.warps, 8.0)
    return Product(dot, direct, rows, columns, depth, (left[0], right[0]), (left[1:], right[1:]))


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
    extent = np.asarray(tiles.g.extents[dim]).astype(np.int64)
    even = next(power for power in (16, 8, 4, 2, 1) if not np.any(extent % power))
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


def tiles_of(kernel: KernelSummary, g: Geometry, machine: Machine, knobs: Mapping[str, Array]) -> Tiles:
    """What the rules are evaluated on, for the schedules whose columns are `knobs`."""
    by_descriptor = knobs.get("tma", 0.0) if machine.features.get("tma", False) else 0.0
    return Tiles(
        g,
        knobs.get("warps", 4.0),
        np.maximum(knobs.get("pipeline", 1.0), 1.0),
        wide_of(machine),
        open_dims(kernel),
        machine.features.get("padded_stages", False),
        machine.limit("warp_size"),
        by_descriptor,
        by_descriptor * knobs.get("warp_specialize", 0.0),
    )


def generated(kernel: KernelSummary, g: Geometry, machine: Machine, knobs: Mapping[str, Array]) -> Held:
    """What the generated code of each schedule holds for a machine."""
    return held_by(kernel, tiles_of(kernel, g, machine, knobs), machine)


def held_by(kernel: KernelSummary, tiles: Tiles, machine: Machine) -> Held:
    """What the generated code of a kernel's tiles holds: the most of any phase."""
    wide = tiles.wide
    products = products_of(kernel, tiles)
    dots, direct = units_of(products)
    shared: Array = 0.0
    registers: Array = 0.0
    for phase in phases_of(kernel):
        held = _Phase(phase, tiles, products)
        shared = np.maximum(shared, held.shared_bytes(dots))
        parts = held.registers()
        need = _sum(needs_of(tiles), parts)
        if products:
            need = np.where(dots, _sum(needs_of(tiles, dot=True), parts), need)
        if wide and products:
            need = np.where(direct, _sum(needs_of(tiles, dot=True, direct=True), parts), need)
        registers = np.maximum(registers, need)
    if wide == 2:  # barriers between the copies and the unit
        shared = shared + np.where(direct, np.where(tiles.pipelined, 16.0, 8.0), 0.0)
    whole = Held(registers, shared, np.logical_not(dots | tiles.goes_along(kernel.inner)))
    apart = dots & np.greater(tiles.specialised, 0.0)
    return _specialised(whole, apart, tiles.warps, machine) if np.any(apart) else whole


def products_of(kernel: KernelSummary, tiles: Tiles) -> dict[str, Product]:
    """How each contraction of a kernel is done, by the name of its nest."""
    return {nest.name: product(nest, tiles) for nest in kernel.nests if nest.contraction is not None}


def units_of(products: Mapping[str, Product]) -> tuple[Array, Array]:
    """Whether a matrix unit does any of the products, and whether one that reads shared memory itself does."""
    dots: Array = np.False_
    direct: Array = np.False_
    for found in products.values():
        dots, direct = dots | found.dot, direct | found.direct
    return dots, direct


def needs_of(tiles: Tiles, *, dot: bool = False, direct: bool = False) -> needs.Needs:
    """What the code of a kernel needs: whether a matrix unit does its products, and one that reads shared memory itself."""
    if direct:
        return needs.TENSOR_MEMORY if tiles.wide == 2 else needs.WARP_GROUPS
    if tiles.matrix_cores:
        return needs.WIDE_VECTOR if not dot else needs.MATRIX_CORES if tiles.padded else needs.EARLIER_CORES
    return needs.VECTOR if not dot else needs.LATER_FRAGMENTS if tiles.wide else needs.FRAGMENTS


def alive(kernel: KernelSummary, tiles: Tiles) -> list[dict[str, Array]]:
    """What lives in a thread during each phase, by kind; see `Needs`."""
    products = products_of(kernel, tiles)
    return [_Phase(phase, tiles, products).registers() for phase in phases_of(kernel)]


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


class _Phase:
    """One phase under each schedule: which loads go by themselves to shared memory, and what the rest needs."""

    def __init__(self, phase: Phase, tiles: Tiles, products: dict[str, Product]) -> None:
        self.phase, self.tiles = phase, tiles
        self.products = {nest.name: products[nest.name] for nest in phase.products}
        self.nested = tiles.goes_along(phase.deeper)
        self.fetched = [self._fetch(fetch) for fetch in phase.fetches]

    def _fetch(self, fetch: Fetch) -> tuple[Fetch, Array, Array, Array, Product | None]:
        """A load with its bytes, those that a thread takes at once, where it is staged, and the product that takes it."""
        tiles = self.tiles
        size = tiles.elements(fetch.access.dims) * fetch.access.dtype.bytes
        vector = vector_bytes(fetch.access, tiles)
        looped = tiles.goes_along(fetch.deeper) | (tiles.goes_along(fetch.along) & ~np.asarray(self.nested))
        staged = looped & tiles.pipelined & np.greater_equal(vector, NARROWEST_COPY)
        found = self.products[fetch.nest] if fetch.side is not None else None
        if tiles.matrix_cores:  # what feeds no product waits in registers
            staged = staged & (found.dot if found is not None else np.False_)
        return fetch, size, vector, staged, found

    def shared_bytes(self, dots: Array) -> Array:
        """Buffers of the phase's loops, operands and scratch of changes of layout.

        A pipelined load has a buffer for each stage but the one that is worked on, which it has too where the unit reads
        it from there. An operand that is not pipelined has one; those of matrix cores take turns in it. Only the innermost
        loop is pipelined; what it takes is free again after it.
        """
        tiles = self.tiles
        within: Array = 0.0
        around: Array = 0.0
        turns: Array = 0.0
        for fetch, size, _, staged, found in self.fetched:
            buffers = np.where(staged, tiles.pipeline - 1.0, 0.0)
            if found is not None:
                kept = tiles.pipeline - 1.0 + (found.direct if tiles.wide else np.greater(tiles.by_descriptor, 0.0))
                if tiles.padded:
                    side = found.rows if fetch.side == 0 else found.columns
                    gaps = np.maximum(PADDING, 3.0 / side + 1.0 / 64.0)
                    kept, size = tiles.pipeline, np.where(staged, size * (1.0 + gaps), size)
                buffers = np.where(staged, kept, np.where(found.dot, 1.0, 0.0))
            if tiles.matrix_cores:
                turns = np.maximum(turns, np.where(staged, 0.0, size * buffers))
                buffers = np.where(staged, buffers, 0.0)
            if fetch.deeper:
                inside = tiles.goes_along(fetch.deeper)
                within = within + np.where(inside, size * buffers, 0.0)
                around = around + np.where(inside, 0.0, size * buffers)
            else:
                around = around + size * buffers
        for nest in self.phase.body:
            if nest.contraction is not None:
                taken = self._computed_factors(nest, self.products[nest.name])
                inside = tiles.goes_along(self.phase.deeper & {*nest.reductions})
                within = within + np.where(inside, taken, 0.0)
                around = around + np.where(inside, 0.0, taken)
        around, scratch = around + turns, self._scratch(dots)
        if not self.phase.loops:
            return np.maximum(around, scratch)
        if not self.phase.deeper:
            return around + scratch
        return np.where(self.nested, np.maximum(within, around + scratch), within + around + scratch)

    def _computed_factors(self, nest: Nest, found: Product) -> Array:
        """Bytes through which factors that are computed reach the unit.

        Rows that a product before left in the same threads need none, nor what one warp exchanges among its lanes; a
        unit that takes rows from registers or tensor memory needs scratch to give them their layout.
        """
        tiles = self.tiles
        total: Array = 0.0
        for side, (count, (bytes_each, plain)) in enumerate(zip((found.rows, found.columns), found.sides, strict=True)):
            if plain:
                continue
            size = count * found.depth * bytes_each
            in_place = np.less_equal(tiles.warps, 1.0) & ~np.asarray(found.direct)
            if side == 0:
                size = np.where(found.direct, np.minimum(size, tiles.threads * SCRATCH / 2.0 * bytes_each), size)
                if len(self.products) > 1:
                    in_place = in_place | found.direct | np.greater_equal(found.rows, SMALLEST_DOT * tiles.warps)
            total = total + np.where(found.dot & ~np.asarray(in_place), size, 0.0)
        return total

    def _scratch(self, dots: Array) -> Array:
        """Bytes through which what is stored changes its layout: from that of a product's results, or of loads whose dims
        are in another order."""
        scratch: Array = 0.0
        threads = self.tiles.threads
        for nest in self.phase.roots:
            if nest.stores and self._changes_threads() and not self.phase.loops & {*nest.reductions}:
                elements = np.minimum(self.tiles.elements(nest.dims), threads * SCRATCH)
                among = dots & np.greater(self.tiles.warps, 1.0)
                scratch = np.maximum(scratch, np.where(among, elements * nest.dtype.bytes, 0.0))
            for pair in self.phase.turned.get(nest.name, ()):
                elements = np.minimum(self.tiles.elements(nest.dims), threads * SCRATCH / 2.0)
                both = np.greater(np.minimum(*(self.tiles.g.tile[dim] for dim in pair)), 1.0)
                scratch = np.maximum(scratch, np.where(both, elements * nest.dtype.bytes, 0.0))
        return scratch

    def _changes_threads(self) -> bool:
        """Whether results of a product go to other threads to be stored: matrix cores store them from where they are, unless they meet a
        load of the whole tile, which is spread differently."""
        if not self.tiles.matrix_cores:
            return bool(self.products)
        sides = [{*side} for found in self.products.values() for side in found.dims]
        return (
            any(all(side & {*fetch.access.dims} for side in sides) for fetch in self.phase.fetches) if sides else False
        )

    def _alongside(self, fetch: Fetch) -> Array:
        """Least elements that a thread has of a load: one, or those beside its part of a product's result, when the load
        goes along only one of its sides (a thread has an eighth of its warp's rows and a quarter of its columns)."""
        least: Array = 1.0
        for found in self.products.values():
            for side, share in ((0, 8.0), (1, 4.0)):
                if fetch.side is None and {*fetch.access.dims} == {*found.dims[side]}:
                    part = _warp_tile(found, self.tiles)[side] / share
                    least = np.where(found.dot, np.maximum(least, part), least)
        return least

    def registers(self) -> dict[str, Array]:
        """What is alive in a thread during the phase, by kind; see `Needs`."""
        tiles = self.tiles
        parts: dict[str, Array] = {}

        def add(kind: str, values: Array) -> None:
            parts[kind] = parts[kind] + values if kind in parts else values

        for fetch, size, vector, staged, found in self.fetched:
            each = np.maximum(size / tiles.threads, self._alongside(fetch) * fetch.access.dtype.bytes)
            count = each / vector
            add("copies", np.where(staged, count, 0.0))
            if tiles.matrix_cores and not tiles.padded and found is not None:
                add("operands", np.where(found.dot & staged, each / 4.0, 0.0))
            free = ~np.asarray(staged)
            if found is not None:
                before = np.where(tiles.goes_along((*fetch.along, *fetch.deeper)), 0.0, found.rows * found.columns)
                late = np.maximum(count - before / tiles.threads / 2.0, 0.0)  # no results yet where there is no loop
                add("operands", np.where(found.dot & free, late, 0.0))
                free = free & ~np.asarray(found.dot)
            add("loads", np.where(free, count, 0.0))
            add("words", np.where(free, each / np.minimum(vector, 4.0), 0.0))
            if found is None:
                add("readback", np.where(staged, each / 4.0, 0.0))
            if fetch.again and fetch.along:  # a tile that is not looped over stays for the phases after it
                add("kept", np.where(tiles.goes_along(fetch.along), 0.0, tiles.held(fetch.access.dims)))
        for nest in self.phase.body:
            whole = tiles.held((*nest.dims, *nest.reductions)) if nest.reductions else tiles.held(nest.dims)
            if nest.contraction is not None:
                found = self.products[nest.name]
                add("results", np.where(found.dot, tiles.held(nest.dims), 0.0))
                add("partial", np.where(found.dot, 0.0, whole))
                if nest.contraction.ieee:
                    parts["ahead"] = np.maximum(parts.get("ahead", 0.0), _ahead(nest, found, tiles))
                    continue
                part = np.where(found.dot & ~np.asarray(found.direct), _fragments(found, tiles), 0.0)
                parts["fragments"] = np.maximum(parts.get("fragments", 0.0), part)
                parts["deep"] = np.maximum(parts.get("deep", 0.0), part * np.clip(found.depth / DEEP - 1.0, 0.0, 1.0))
                part = part * np.clip(found.depth / 16.0 - 1.0, 0.0, AHEAD)
                parts["steps"] = np.maximum(parts.get("steps", 0.0), part)
                continue
            if nest.reductions and not nest.steps:  # else each step reduces over lanes
                add("partial", np.where(tiles.goes_along(nest.reductions), whole, 0.0))
            add("heavy", whole * min((sum(nest.operations.values()) + REDUCED * nest.reduced) / HEAVY, 3.0))
        for nest in self.phase.outside:
            add("outside", tiles.held(nest.dims))
        for kind, most in (("operands", IN_FLIGHT), ("loads", IN_FLIGHT), ("copies", COPIES), ("readback", READ_BACK)):
            if kind in parts:
                parts[kind] = np.minimum(parts[kind], most)
        if "words" in parts:
            parts["words"] = np.minimum(parts["words"], HOISTED + 0.25 * (parts["words"] - HOISTED))
        return parts


def _warp_tile(found: Product, tiles: Tiles) -> tuple[Array, Array]:
    """Rows and columns of a product's result that one warp has: a nearly square part."""
    side = np.sqrt(found.rows * found.columns / tiles.warps)
    rows = np.maximum(np.minimum(side, found.rows), SMALLEST_DOT)
    return rows, np.maximum(found.rows * found.columns / tiles.warps / rows, 8.0)


def _fragments(found: Product, tiles: Tiles) -> Array:
    """Registers of a warp's fragments of both factors for one step of 16 along the reduction."""
    rows, columns = _warp_tile(found, tiles)
    if tiles.matrix_cores:  # of the whole tile of k
        return sum(
            side * found.depth * bytes_each / tiles.lanes / 4.0
            for side, (bytes_each, _) in zip((rows, columns), found.sides, strict=True)
        )
    return rows / 4.0 + columns / 4.0


def _ahead(nest: Nest, found: Product, tiles: Tiles) -> Array:
    """Registers of the operands of a product element by element that are read ahead of their use: those of a nearly square part of
    the result, of a few elements of the reduction, or of all of a step's where the compiler no longer orders so many."""
    results = tiles.held(nest.dims)
    whole = 2.0 * np.sqrt(results) * found.depth
    some = np.minimum(READ_AHEAD[0] + READ_AHEAD[1] * results, whole)
    unordered = np.greater_equal(results * found.depth, UNROLLED[0]) & np.greater(whole, UNROLLED[1])
    return np.where(found.dot, np.where(unordered, whole, some), 0.0)
