"""What the code that Triton generates for a schedule holds on chip: shared memory of a block, registers of a thread.

The rules are those of its layouts and of its software pipelining, followed for every loop of the kernel at once over all
schedules; `benchmarks/compiled_truth.py` compares with the compiler.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from codesign.costmodel.gpu.geometry import Array, Geometry, stages_of
from codesign.costmodel.summary import Access, KernelSummary, Nest
from codesign.ir.index import Atom, FloorDiv, Index, Mod, Var, index

SMALLEST_DOT = 16.0
"""Least side of a tile that a matrix unit takes; below it a product is multiplied out."""

WIDEST_ACCESS = 16.0
"""Bytes of the widest load of a thread."""

NARROWEST_COPY = 4.0
"""Bytes of the narrowest copy from global to shared memory that goes on by itself; narrower loads go by registers."""


@dataclass
class Phase:
    """One loop of a kernel, or what follows the last one: the nests that are evaluated in it.

    `roots`: reductions that it does and values that it stores; `loops`: dims that it goes along; `body`: nests
    evaluated in it, roots included; `nested`: reductions of the body that are not its own, each a loop in the loop;
    `outside`: values made before it.
    """

    roots: list[Nest]
    loops: frozenset[str]
    body: list[Nest] = field(default_factory=list)
    nested: list[Nest] = field(default_factory=list)
    outside: list[Nest] = field(default_factory=list)


def phases_of(kernel: KernelSummary) -> list[Phase]:
    """The loops of a kernel in order: reductions and stores along the same dims at the same stage share one."""
    inner = frozenset(kernel.inner)
    by_name = {nest.name: nest for nest in kernel.nests}
    stages = stages_of(kernel)
    grouped: dict[tuple[int, frozenset[str]], Phase] = {}
    last = Phase([], frozenset())
    for nest in kernel.nests:
        along = inner & {*nest.dims}
        if nest.reductions and not along:
            key = stages[nest.name], frozenset(nest.reductions)
            grouped.setdefault(key, Phase([], key[1])).roots.append(nest)
        if nest.stores and along:
            key = stages[nest.name] + bool(nest.reductions), along
            grouped.setdefault(key, Phase([], key[1])).roots.append(nest)
        elif nest.stores:
            last.roots.append(nest)
    found = [grouped[key] for key in sorted(grouped, key=lambda key: key[0])]
    if last.roots:
        found.append(last)
    for phase in found:
        _fill(phase, by_name)
    return found


def _fill(phase: Phase, by_name: dict[str, Nest]) -> None:
    seen: set[str] = set()
    pending = list(phase.roots)
    while pending:
        nest = pending.pop()
        if nest.name in seen:
            continue
        seen.add(nest.name)
        if nest.reductions and not phase.loops & {*nest.reductions, *nest.dims}:
            phase.outside.append(nest)  # made before, in a loop of its own
            continue
        phase.body.append(nest)
        if nest.reductions and not phase.loops & {*nest.reductions}:
            phase.nested.append(nest)
        for name in nest.internal:
            child = by_name[name]
            if child.reductions and not phase.loops & {*child.dims} and name not in seen:
                seen.add(name)
                phase.outside.append(child)
            else:
                pending.append(child)


def product_of(sizes: dict[str, Array], dims: Iterable[str]) -> Array:
    total: Array = 1.0
    for dim in dims:
        total = total * sizes[dim]
    return total


@dataclass
class Tiles:
    """What the rules are evaluated on: sizes of the tiling, threads and pipeline stages of each schedule."""

    g: Geometry
    warps: Array
    threads: Array
    pipeline: Array
    wide: int

    def elements(self, dims: Iterable[str]) -> Array:
        return product_of(self.g.tile, dims)

    def held(self, dims: Iterable[str]) -> Array:
        """Elements of a tile that one thread holds; a tile smaller than the block is repeated."""
        return np.maximum(self.elements(dims) / self.threads, 1.0)

    def goes_along(self, dims: Iterable[str]) -> Array:
        """Whether any of these dims is a loop of more than one trip."""
        found: Array = np.False_
        for dim in dims:
            found = np.logical_or(found, np.greater(self.g.trips.get(dim, 1.0), 1.0))
        return found


@dataclass(frozen=True)
class Product:
    """How a contraction is done: `dot` by a matrix unit's instruction or multiply-adds of a tile (else multiplied out);
    `direct` reads its second operand from shared memory itself. `rows`, `columns` of the result's tile, `depth` of
    the reduction; which factors (rows', columns') arrive as loaded."""

    dot: Array
    direct: Array
    rows: Array
    columns: Array
    depth: Array
    row_dims: tuple[str, ...]
    column_dims: tuple[str, ...]
    plain: tuple[bool, bool]
    bytes: tuple[int, int]


def product(nest: Nest, tiles: Tiles) -> Product:
    """How a contraction is done under each schedule. The result's first side is the rows, whichever factor has it."""
    found = nest.contraction
    assert found is not None
    swapped = nest.dims.index(found.n[-1]) < nest.dims.index(found.m[-1])
    row_dims, column_dims = (found.n, found.m) if swapped else (found.m, found.n)
    plain = found.plain[::-1] if swapped else found.plain
    sides = (found.right, found.left) if swapped else (found.left, found.right)
    rows, columns, depth = (tiles.elements(dims) for dims in (row_dims, column_dims, found.k))
    dot = np.greater_equal(np.minimum(np.minimum(rows, columns), depth), SMALLEST_DOT)
    if found.batch:
        dot = np.logical_and(dot, np.less_equal(tiles.elements(found.batch), 1.0))
    direct: Array = np.False_
    if tiles.wide and max(side.bits for side in sides) <= 16:
        warps_fit = np.isin(tiles.warps, (4.0, 8.0)) if tiles.wide == 2 else np.greater_equal(tiles.warps, 4.0)
        direct = np.logical_and(np.logical_and(dot, warps_fit), np.greater_equal(rows, 64.0))
    return Product(dot, direct, rows, columns, depth, row_dims, column_dims, plain, (sides[0].bytes, sides[1].bytes))


@lru_cache(maxsize=4096)
def aligned_run(access: Access) -> tuple[str, int]:
    """The dim along which neighbours of an access are adjacent in memory, and how many of them a thread may take at
    once: a power of two that divides every other step of its address and the dim's extent; ("", 1) where there is none.

    This is what Triton's axis analysis finds; sizes that are not constants are taken to be multiples of 16.
    """
    address = index(0)
    for expression, stride in zip(access.index, access.strides, strict=True):
        address = address + expression * stride
    dim, step = "", 0
    for monomial, coefficient in address.terms:
        sizes = [atom for atom in monomial if isinstance(atom, Var) and atom.name not in access.dims]
        varying, every = _unit(monomial[0]) if len(monomial) == 1 else ("", 0)
        if varying in access.dims and abs(coefficient) == 1 and not dim:
            dim, step = varying, math.gcd(step, every)
        else:
            step = math.gcd(step, coefficient * (16 if sizes else 1))
    for monomial, _ in address.terms:  # a quotient of the dim is constant over runs of its divisor
        for atom in monomial:
            if isinstance(atom, FloorDiv) and dim in Index.atom(atom).variables():
                step = math.gcd(step, atom.denominator.constant if atom.denominator.is_constant else 16)
    if not dim:
        return "", 1
    return dim, (step & -step) or 16


def _unit(atom: Atom) -> tuple[str, int]:
    """The variable that an atom goes along in steps of one and how far: a variable, or its remainder by a constant."""
    if isinstance(atom, Var):
        return atom.name, 0
    if isinstance(atom, Mod) and atom.denominator.is_constant:
        for name in atom.numerator.variables():
            rest = atom.numerator - Index.atom(Var(name))
            if name not in rest.variables():
                steps = [coefficient for _, coefficient in rest.terms]
                return name, math.gcd(atom.denominator.constant, *steps)
    return "", 0


def vector_bytes(access: Access, tiles: Tiles) -> Array:
    """Bytes that one thread loads or stores at once: a run of neighbours, up to 16 bytes, and no more than the thread's
    share of the tile."""
    dim, run = aligned_run(access)
    run = math.gcd(run, _even(tiles.g.extents.get(dim, 1.0)))
    elements = np.minimum(np.minimum(tiles.g.tile.get(dim, 1.0), float(run)), tiles.held(access.dims))
    return np.minimum(elements * access.dtype.bytes, WIDEST_ACCESS)


def _even(extent: Array) -> int:
    """The largest power of two up to 16 that divides an extent (of a whole table: each of them)."""
    whole = np.asarray(extent).astype(np.int64)
    return next(power for power in (16, 8, 4, 2, 1) if not np.any(whole % power))


@dataclass
class Held:
    """What one phase holds: bytes of shared memory, and registers of a thread by what they are for."""

    shared: Array
    parts: dict[str, Array]


def held_by(phase: Phase, tiles: Tiles, last: bool) -> Held:
    """Shared memory and registers of one phase."""
    products = {nest.name: product(nest, tiles) for nest in phase.body + phase.outside if nest.contraction}
    deeper = frozenset(dim for nest in phase.nested for dim in nest.reductions)
    has_inner = tiles.goes_along(deeper)
    pipelined = np.greater(tiles.pipeline, 1.0)
    near: Array = 0.0
    far: Array = 0.0
    parts: dict[str, Array] = dict.fromkeys(
        ("accumulators", "partial", "fragments", "loads", "staged", "vectors", "values", "outside", "copies", "stores"), 0.0
    )
    seen: set[tuple[object, ...]] = set()
    for nest in phase.body:
        found = products.get(nest.name)
        for access in nest.loads:
            key = access.tensor, access.index
            if key in seen:
                continue
            seen.add(key)
            size = tiles.elements(access.dims) * access.dtype.bytes
            inner = tiles.goes_along(deeper & {*access.dims})
            in_loop = np.logical_or(
                inner, np.logical_and(tiles.goes_along(phase.loops & {*access.dims}), np.logical_not(has_inner))
            )
            vector = vector_bytes(access, tiles)
            staged = in_loop & pipelined & np.greater_equal(vector, NARROWEST_COPY)
            side = _side(nest, access)
            direct = found.direct if found and side is not None else np.False_
            dot = found.dot if found and side is not None else np.False_
            buffers = np.where(direct, tiles.pipeline, tiles.pipeline - 1.0)
            taken = np.where(staged, size * buffers, np.where(dot, size, 0.0))
            near = near + np.where(inner, taken, 0.0)
            far = far + np.where(inner, 0.0, taken)
            each = np.maximum(size / tiles.threads, access.dtype.bytes)
            parts["copies"] = parts["copies"] + np.where(staged, each / vector, 0.0)
            parts["vectors"] = parts["vectors"] + np.where(staged, 0.0, each / vector)
            words = each / np.minimum(np.maximum(vector, access.dtype.bytes), 4.0)  # a narrow load takes a register
            parts["loads"] = parts["loads"] + np.where(staged | dot, 0.0, words)
            parts["staged"] = parts["staged"] + np.where(staged & ~np.asarray(dot), each / 4.0, 0.0)
        if found is not None:
            for side, (rows, plain) in enumerate(zip((found.rows, found.columns), found.plain, strict=True)):
                if plain:
                    continue
                size = rows * found.depth * found.bytes[side]
                if side == 0:  # into registers or tensor memory: only what changes hands at a time
                    part = np.minimum(size, tiles.threads * SCRATCH_ELEMENTS * 0.5 * found.bytes[side])
                    size = np.where(found.direct, part, size)
                size = np.where(_in_place(nest, side, found, products, tiles), 0.0, size)
                along = deeper & {*nest.reductions}
                taken = np.where(found.dot, size, 0.0)
                if tiles.goes_along(along) is np.False_ or not np.any(tiles.goes_along(along)):
                    far = far + taken
                else:
                    near = near + np.where(tiles.goes_along(along), taken, 0.0)
                    far = far + np.where(tiles.goes_along(along), 0.0, taken)
        mine = tiles.held(nest.dims)
        if found is not None:
            parts["accumulators"] = parts["accumulators"] + np.where(found.dot, mine, 0.0)
            parts["partial"] = parts["partial"] + np.where(found.dot, 0.0, tiles.held((*nest.dims, *nest.reductions)))
            parts["fragments"] = np.maximum(parts["fragments"], np.where(found.dot, fragments(found, tiles), 0.0))
        elif nest.reductions:
            whole = tiles.held((*nest.dims, *nest.reductions))
            looped = tiles.goes_along(nest.reductions)
            parts["partial"] = parts["partial"] + np.where(looped, whole, 0.0)
            parts["values"] = np.maximum(parts["values"], whole)
        else:
            parts["values"] = np.maximum(parts["values"], mine)
        if nest.stores:
            access = nest.stores[0]
            parts["stores"] = parts["stores"] + mine * access.dtype.bytes / np.maximum(
                vector_bytes(access, tiles), access.dtype.bytes
            )
    for nest in phase.outside:
        parts["outside"] = parts["outside"] + tiles.held(nest.dims)
    scratch: Array = 0.0
    reads_dot = any(nest.contraction for nest in phase.body + phase.outside)
    for nest in phase.roots:
        if nest.stores and reads_dot and not phase.loops & {*nest.reductions}:
            size = np.minimum(tiles.elements(nest.dims), tiles.threads * SCRATCH_ELEMENTS) * nest.dtype.bytes
            dot = np.any([value.dot for value in products.values()], axis=0)
            scratch = np.maximum(scratch, np.where(dot & np.greater(tiles.warps, 1.0), size, 0.0))
    if phase.loops:
        shared = np.where(has_inner, np.maximum(near, far + scratch), near + far + scratch)
    else:
        shared = np.maximum(near + far, scratch)
    if tiles.wide == 2:
        direct = np.any([value.direct for value in products.values()], axis=0) if products else np.False_
        shared = shared + np.where(direct, np.where(pipelined, 16.0, 8.0), 0.0)
    return Held(shared, parts)


def _in_place(nest: Nest, side: int, found: Product, products: dict[str, Product], tiles: Tiles) -> Array:
    """Whether a computed factor goes to the unit without shared memory: rows that a product before left in the same
    threads (or in tensor memory), and what one warp exchanges among its lanes."""
    alone = np.less_equal(tiles.warps, 1.0)
    before = any(name != nest.name and name in products for name in products)
    if side == 1:
        return np.logical_and(alone, np.logical_not(found.direct))
    if not before:
        return alone
    return alone | np.asarray(found.direct) | np.greater_equal(found.rows, SMALLEST_DOT * tiles.warps)


SCRATCH_ELEMENTS = 64.0
"""Elements of a thread that go through shared memory at once where a tile changes its layout."""


def fragments(found: Product, tiles: Tiles) -> Array:
    """Registers of a warp's fragments for one step of 16 along the reduction; none where the unit reads shared memory."""
    side = np.sqrt(found.rows * found.columns / tiles.warps)
    rows = np.maximum(np.minimum(side, found.rows), SMALLEST_DOT)
    columns = np.maximum(found.rows * found.columns / tiles.warps / rows, 8.0)
    return np.where(found.direct, 0.0, (rows / 16.0 * 4.0 + columns / 8.0 * 2.0))


def _side(nest: Nest, access: Access) -> int | None:
    """Which factor of a contraction a load is as it is: 0 rows, 1 columns; None for neither."""
    found = nest.contraction
    if found is None:
        return None
    for side, dims in enumerate((found.m, found.n)):
        other = (found.n, found.m)[side]
        if found.plain[side] and {*access.dims} & {*dims} and not {*access.dims} & {*other}:
            return side
    return None
