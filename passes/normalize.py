"""Normal form of a fused group before it is tiled: as few dims as its accesses allow.

Dims of extent 1 go; a dim that both factors of a product have becomes its digits where something takes one of them only (keys that several
query heads share); dims that always travel together contiguously become one; the several row, column or summed dims of a matrix
product (a convolution's pixels, or its window and channels) become one each: of rows and columns where no single one fills tiles
and goes along memory.
Schedules and summaries speak of the dims of this form. Results keep their shape in memory: an `OutputMap` says where they go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from codesign.ir.analysis import contraction
from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import BOOL, I64
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, FloorDiv, Index, Mod, index, product
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.tiling.outputs import OutputMap, output_maps
from codesign.ir.types import row_major
from codesign.passes.rebase import digits_asked_for

WIDE = 128
"""Lanes along one side of a matrix product that fill a tile of any machine here; narrower sides are made of several dims."""

WASTE = 1.125
"""Lanes of whole tiles over the extent, beyond which a side is made of several dims as well."""


@dataclass(frozen=True)
class Normalized:
    """A group in normal form, the maps of its results, and how its dims follow from the original ones (in original terms)."""

    fusion: Fusion
    outputs: tuple[OutputMap, ...]
    merged: Mapping[str, tuple[str, ...]]


def normalize(fusion: Fusion, bounds: Bounds | None = None) -> Normalized:
    """The normal form of a group. The given group is left as it is."""
    ranges = bounds or Bounds()
    for op in fusion.body.ops:
        if not isinstance(op, Compute):
            raise UnsupportedError(f"a {op.opcode} cannot be part of a fused kernel", place=op.location)
    start = Normalized(_over_dims(fusion), output_maps(fusion), {d: (d,) for d in fusion.dims()})
    squeezed = _squeeze(start, ranges)
    if any(extent == 0 for extent in squeezed.fusion.dims().values()):
        return squeezed  # nothing to compute, and no quotient by an empty extent
    cut = _cut(squeezed, ranges)
    collapsed = _merge(cut, _contiguous_groups(cut, ranges), ranges)
    return _merge(collapsed, _matrix_groups(collapsed), ranges)


def _over_dims(fusion: Fusion) -> Fusion:
    """The group with results of the shapes of their dims: where they go in memory is told by maps."""
    if not fusion.shapes:
        return fusion
    names = [value.name for value in fusion.results]
    return Fusion(fusion.body, names=names, label=fusion.label, writes=fusion.writes, location=fusion.location)


# -- which dims to merge --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _AccessForm:
    """An access as a linear address: the coefficient of each dim (None: not linear), and the dims that keep it from merging."""

    coefficients: Mapping[str, Index | None]


def _roles(fusion: Fusion) -> dict[str, tuple[int, ...]]:
    """For each dim, its role in every compute: 0 absent, 1 parallel, 2 reduced. Only dims of equal roles can be one."""
    roles: dict[str, tuple[int, ...]] = {}
    for name in fusion.dims():
        roles[name] = tuple(
            1 if any(d.name == name for d in c.dims) else 2 if any(d.name == name for d in c.reductions) else 0
            for c in fusion.computes
        )
    return roles


def _contiguous_groups(group: Normalized, bounds: Bounds) -> list[tuple[str, ...]]:
    """Runs of dims (slowest first) that every access walks as one contiguous run."""
    fusion = group.fusion
    extents = fusion.dims()
    forms, pinned = _access_forms(group, bounds.with_extents(extents))
    roles = _roles(fusion)
    runs: list[tuple[str, ...]] = [(name,) for name in extents]
    merged = True
    while merged:
        merged = False
        for a in runs:
            for b in runs:
                if a is b or pinned & {*a, *b} or roles[a[0]] != roles[b[0]]:
                    continue
                size = product(extents[name] for name in b)
                if all(_follows(form, a[-1], b[-1], size) for form in forms):
                    runs = [(*a, *b) if run is a else run for run in runs if run is not b]
                    merged = True
                    break
            if merged:
                break
    return [run for run in runs if len(run) > 1]


def _follows(form: _AccessForm, slow: str, fast: str, size: Index) -> bool:
    a, b = form.coefficients.get(slow), form.coefficients.get(fast)
    return a is not None and b is not None and a == b * size


def _access_forms(group: Normalized, bounds: Bounds) -> tuple[list[_AccessForm], set[str]]:
    """Every access of external memory as an address, and the dims whose single values matter (borders, indices as values)."""
    fusion = group.fusion
    names = list(fusion.dims())
    members = {compute.result for compute in fusion.computes}
    forms: list[_AccessForm] = []
    pinned: set[str] = set()
    for compute in fusion.computes:
        for node in compute.body.walk():
            if isinstance(node, IndexValue):
                pinned |= node.index.variables()
            elif isinstance(node, Read) and node.source not in members:
                forms.append(_address(node.indices, node.source.shape, names))
                if node.otherwise is not None:
                    pinned |= _at_borders(node.indices, node.source.shape, bounds)
    for position, where in enumerate(group.outputs):
        forms.append(_address(where.indices, where.type.shape, names))
        if position in fusion.writes:
            pinned |= _at_borders(where.indices, where.type.shape, bounds)
    return forms, pinned


def _at_borders(indices: Sequence[Index], shape: tuple[Index, ...], bounds: Bounds) -> set[str]:
    """Dims that may lead outside of a tensor."""
    unsure = (
        expression.variables()
        for expression, size in zip(indices, shape, strict=True)
        if not (expression.proves_at_least(0, bounds) and expression.proves_less(size, bounds))
    )
    return set().union(*unsure)


def _address(indices: Sequence[Index], shape: tuple[Index, ...], names: Iterable[str]) -> _AccessForm:
    total = index(0)
    for expression, stride in zip(indices, row_major(shape), strict=True):
        total = total + _opaque(expression) * stride
    return _AccessForm({name: total.coefficient(name) for name in names})


def _opaque(expression: Index) -> Index:
    """The expression with data reads as unknown constants: they are accesses of their own."""
    data = expression.data()
    if not data:
        return expression
    stand_ins: dict[Scalar, Scalar] = {s: IndexValue(f"?{s}") for s in data}
    return expression.substitute({}, lambda s: stand_ins.get(s, s))


def _matrix_groups(group: Normalized) -> list[tuple[str, ...]]:
    """Dims of matrix products to merge side by side."""
    fusion = group.fusion
    extents = fusion.dims()
    roles = _roles(fusion)
    groups: list[tuple[str, ...]] = []
    taken: set[str] = set()
    along = _along_memory(group)
    for compute in fusion.computes:
        form = contraction(compute)
        if form is None:
            continue
        order = {dim.name: position for position, dim in enumerate(compute.domain)}
        for side in (form.m, form.n):
            ordered = tuple(sorted(side, key=order.__getitem__))
            runs = tuple(name for name in ordered if name in along) or ordered
            if _mergeable(ordered, roles, taken) and not any(_fills_tiles(extents[name]) for name in runs):
                groups.append(ordered)
                taken |= set(ordered)
        ordered = tuple(sorted(form.k, key=lambda name: (_size(extents[name]), order[name])))
        if _mergeable(ordered, roles, taken):
            groups.append(ordered)  # the longest varies fastest: a tile of it meets one value of each other dim
            taken |= set(ordered)
    return groups


def _mergeable(names: tuple[str, ...], roles: Mapping[str, tuple[int, ...]], taken: set[str]) -> bool:
    return len(names) > 1 and not taken & set(names) and len({roles[name] for name in names}) == 1


def _along_memory(group: Normalized) -> frozenset[str]:
    """Dims whose neighbours are adjacent in memory in some access, so that a tile without them is made of single values.

    What has one value for a whole row or column of each product (a weight of each head) is made of single values anyway.
    """
    forms, _ = _access_forms(group, Bounds())
    batch = _batch(group.fusion)
    return frozenset(
        name
        for form in forms
        for name, step in form.coefficients.items()
        if step == 1 and any(other != 0 for dim, other in form.coefficients.items() if dim not in {name, *batch})
    )


def _batch(fusion: Fusion) -> frozenset[str]:
    """Dims along which there are several products."""
    forms = (contraction(compute, vector=True) for compute in fusion.computes)
    return frozenset(name for form in forms if form is not None for name in form.batch)


def _fills_tiles(extent: Index) -> bool:
    """Whether tiles along a dim have enough lanes, and few that lie outside."""
    if not extent.is_constant or extent.constant < WIDE:
        return False
    return -(-extent.constant // WIDE) * WIDE <= WASTE * extent.constant


def _size(extent: Index) -> int:
    """The extent, or more than any when it is symbolic."""
    return extent.constant if extent.is_constant else 1 << 62


# -- which dims to cut ---------------------------------------------------------------------------------------------------
def _cut(group: Normalized, bounds: Bounds) -> Normalized:
    """The group over digits of dims, so that who shares what is told by whole dims."""
    for name in _along_products(group):
        extents = group.fusion.dims()
        split = digits_asked_for(name, extents[name], _expressions(group))
        if split is None:
            continue
        taken = set(extents) | {variable for extent in extents.values() for variable in extent.variables()}
        names: dict[str, str] = {}
        for digit in split.digits:
            names[digit.name] = fresh = _joined_name((digit.name,), taken)
            taken.add(fresh)
        digits = tuple(Dim(names[digit.name], digit.extent) for digit in split.digits)
        made = _rebuild(group, {name: split.value.substitute(names)}, {name: digits}, bounds)
        if _tells_apart(set(names.values()), made):
            group = made
    return group


def _along_products(group: Normalized) -> list[str]:
    """Dims along which there are several products, which nothing reduces and which don't go along memory."""
    roles, along, batch = _roles(group.fusion), _along_memory(group), _batch(group.fusion)
    return [name for name in group.fusion.dims() if name in batch and 2 not in roles[name] and name not in along]


def _tells_apart(digits: set[str], group: Normalized) -> bool:
    """Whether digits stand for themselves in every expression, and a read from outside depends on some of them only."""
    if any(digits & atom.numerator.variables() for i in _expressions(group) for atom in _quotients(i)):
        return False
    members = {compute.result for compute in group.fusion.computes}
    reads = (read for compute in group.fusion.computes for read in compute.body.reads())
    used = (set().union(*(i.variables() for i in read.indices)) for read in reads if read.source not in members)
    return any(digits & names and digits - names for names in used)


def _quotients(expression: Index) -> list[FloorDiv | Mod]:
    return [atom for atom in expression.atoms() if isinstance(atom, FloorDiv | Mod)]


def _expressions(group: Normalized) -> list[Index]:
    """All index expressions of a group."""
    nodes = (node for compute in group.fusion.computes for node in compute.body.walk())
    return [
        *(i for node in nodes for i in node.index_expressions()),
        *(i for where in group.outputs for i in where.indices),
    ]


# -- rebuilding -----------------------------------------------------------------------------------------------------------
def _squeeze(group: Normalized, bounds: Bounds) -> Normalized:
    ones = {name for name, extent in group.fusion.dims().items() if extent.simplify(bounds) == 1}
    if not ones:
        return group
    return _rebuild(group, {name: index(0) for name in ones}, {}, bounds)


def _merge(group: Normalized, runs: list[tuple[str, ...]], bounds: Bounds) -> Normalized:
    if not runs:
        return group
    extents = group.fusion.dims()
    taken = set(extents) | {name for extent in extents.values() for name in extent.variables()}
    values: dict[str, Index] = {}
    joined: dict[str, tuple[Dim, ...]] = {}
    for run in runs:
        name = _joined_name(run, taken)
        taken.add(name)
        dim = Dim(name, product(extents[part] for part in run))
        faster = index(1)
        for part in reversed(run):
            quotient = index(name) // faster
            values[part] = quotient if part == run[0] else quotient % extents[part]
            faster = faster * extents[part]
        joined.update(dict.fromkeys(run, (dim,)))
    return _rebuild(group, values, joined, bounds)


def _joined_name(run: tuple[str, ...], taken: set[str]) -> str:
    base = name = ("" if all(len(part) == 1 for part in run) else "_").join(run)
    count = 1
    while name in taken:
        count += 1
        name = f"{base}{count}"
    return name


def _rebuild(
    group: Normalized, values: Mapping[str, Index], instead: Mapping[str, tuple[Dim, ...]], bounds: Bounds
) -> Normalized:
    """The group over other dims: `values` of old dims over new ones; `instead`: the new dims that stand for an old one.

    An old dim that has a value but no new dims goes away.
    """
    fusion = group.fusion

    def dims(old: Iterable[Dim]) -> tuple[Dim, ...]:
        return tuple(
            dict.fromkeys(new for dim in old for new in instead.get(dim.name, () if dim.name in values else (dim,)))
        )

    extents = {dim.name: dim.extent for compute in fusion.computes for dim in dims(compute.domain)}
    inside = bounds.with_extents(extents)
    made: dict[Value, Value] = {}

    def change(node: Scalar) -> Scalar | None:
        if isinstance(node, Read):
            new = made.get(node.source)
            if new is not None:
                owner = new.owner
                assert isinstance(owner, Compute)
                return Read(new, [dim.name for dim in owner.dims])
            return Read(node.source, [i.simplify(inside) for i in node.indices], node.otherwise)
        if isinstance(node, IndexValue):
            return IndexValue(node.index.simplify(inside), node.dtype)
        return None

    ops: list[Op] = []
    for compute in fusion.computes:
        op = _rebuilt(
            compute, dims(compute.dims), dims(compute.reductions), compute.body.substitute(values).rewrite(change)
        )
        made[compute.result] = op.result
        ops.append(op)
    body = Block([], ops, [made[value] for value in fusion.body.yields])
    outputs = tuple(
        replace(where, indices=tuple(i.substitute(values).simplify(inside) for i in where.indices))
        for where in group.outputs
    )
    merged = {name: parts for name, parts in group.merged.items() if name not in values}
    for name, new_dims in instead.items():
        for dim in new_dims:
            merged[dim.name] = (*merged.get(dim.name, ()), *group.merged[name])
    names = [value.name for value in fusion.results]
    writes = {k: replace(write, at=outputs[k].indices) for k, write in fusion.writes.items()}
    new = Fusion(body, names=names, label=fusion.label, writes=writes, location=fusion.location)
    return Normalized(new, outputs, merged)


def _rebuilt(compute: Compute, dims: tuple[Dim, ...], reductions: tuple[Dim, ...], body: Scalar) -> Compute:
    monoid = compute.monoid
    if compute.reductions and not reductions:  # reduced over single elements only
        if monoid in ("argmax", "argmin"):
            body = Literal(0, I64)
        elif monoid in ("any", "all"):
            body = body if body.dtype is BOOL else apply("ne", body, Literal(0, body.dtype))
        else:
            body = cast(body, compute.accumulate)
        body = cast(body, compute.dtype)
    return compute.with_domain(dims, reductions, body)
