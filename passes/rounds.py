"""The first few of a row in order, one after the other: each is the greatest of those that were not taken before it.

rewrite:
    %v, %p = sort %x dim 1 descending keep 2
    ->  %m0 = compute[i: M] max(j: N) { x[i, j] };                             %p0 = compute[i: M] min(j: N) { select(x[i, j] == m0[i], j, N) }
        %m1 = compute[i: M] max(j: N) { select(j == p0[i], -inf, x[i, j]) };   %p1 = compute[i: M] min(j: N) { ... };  %p, %v by both

Twice as many steps as elements for each that is kept, where ranks take one for each pair of elements; and each is a reduction along the row,
which what makes the row may join.
"""

from __future__ import annotations

from codesign.ir.dtypes import BOOL, I32, I64
from codesign.ir.index import index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim, Sort
from codesign.ir.tiling.monoids import lowest

MOST = 16
"""Elements kept, beyond which a kernel would be too long."""

ROW = 1024
"""Elements of a row that a program can hold: 4 for each of 256 lanes, say."""


def steps_of_rounds(op: Sort) -> int | None:
    """Steps for each element of the row, where rounds are for it: the greatest few of a row of moderate length, floats or integers."""
    along = op.source.shape[op.dim]
    keep = along if op.keep is None else op.keep
    if not (op.descending and keep.is_constant and along.is_constant) or op.source.type.dtype is BOOL:
        return None
    few = keep.constant <= MOST and 4 * keep.constant <= along.constant <= ROW
    return 2 * keep.constant if few else None


def in_rounds(op: Sort) -> list[Compute]:
    """The computes of a top-k, of which the last two are its results."""
    assert op.keep is not None
    source, names, place = op.source, [f"i{k}" for k in range(len(op.source.shape))], op.location
    own, label = names[op.dim], op.results[0].name
    along, x = Dim(own, source.shape[op.dim]), Read(source, names)
    dims = [Dim(name, size) for name, size in zip(names, source.shape, strict=True)]
    rest = [dim for dim in dims if dim.name != own]
    made: list[Compute] = []
    taken: Scalar = Literal(False, BOOL)
    places: list[Scalar] = []
    for number in range(op.keep.constant):
        left = select(taken, lowest(x.dtype), x) if places else x
        name = f"{label}_{number}"
        most = Compute(rest, left, reductions=[along], monoid="max", name=name, location=place)
        found = equal(x, Read(most.result, [dim.name for dim in rest]))
        if places:
            found = apply("and", found, apply("not", taken))
        where = select(found, cast(IndexValue(own), I32), cast(IndexValue(along.extent), I32))
        at = Compute(rest, where, reductions=[along], monoid="min", name=f"{name}_place", location=place)
        made.extend((most, at))
        places.append(Read(at.result, [dim.name for dim in rest]))
        here = apply("eq", cast(IndexValue(own), I32), places[-1])
        taken = here if number == 0 else apply("or", taken, here)
    result = [Dim("kept", op.keep) if dim.name == own else dim for dim in dims]
    chosen = places[-1]
    for number in reversed(range(len(places) - 1)):
        chosen = select(apply("eq", IndexValue("kept"), IndexValue(index(number))), places[number], chosen)
    value = select(apply("eq", cast(IndexValue(own), I32), chosen), x, lowest(x.dtype))
    values = Compute(result, value, reductions=[along], monoid="max", name=label, location=place)
    positions = Compute(result, cast(chosen, I64), name=op.results[1].name, location=place)
    return [*made, values, positions]


def equal(a: Scalar, b: Scalar) -> Scalar:
    """Whether neither of two values is before the other in order."""
    same = apply("eq", a, b)
    if not a.dtype.is_float:
        return same
    return apply("or", same, apply("and", apply("isnan", a), apply("isnan", b)))
