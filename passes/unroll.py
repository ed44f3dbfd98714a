"""Unrolling of dims: a compute becomes one for each point of them, with the point's place written in it.

rewrite (s: 2 unrolled):
    %v = compute[i: M, s: 2] { f(i, s) }  ->  %v_0 = compute[i: M] { f(i, 0) };  %v_1 = compute[i: M] { f(i, 1) }
    %t = compute[i: M] sum(s: 2, k: K) { g(i, s, k) }  ->  two sums over k, and what adds them
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.index import Bounds, index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim
from codesign.ir.tiling.monoids import combine
from codesign.passes.algebra import Rewriting, simplify_scalar
from codesign.passes.rebase import redirected

Point = tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """A value as its parts: one for each point of the dims `along`, all over the other dims of the compute that made it."""

    compute: Compute
    along: tuple[str, ...]
    values: Mapping[Point, Value]

    def at(self, point: Mapping[str, int]) -> Value:
        """The part at a point, which may say more than is asked."""
        return self.values[tuple(point[name] for name in self.along)]


def unrolled(
    computes: Sequence[Compute], sizes: Mapping[str, int], outer: Bounds
) -> tuple[list[Compute], dict[Value, Parts]]:
    """The computes without the dims of these sizes, and the parts of each value; dims are named so that equal names are the same loop.

    ValueError for a reduction that reports positions along such a dim.
    """
    made: list[Compute] = []
    parts: dict[Value, Parts] = {}
    for op in computes:
        along = tuple(dim.name for dim in op.dims if dim.name in sizes)
        values: dict[Point, Value] = {}
        for point in itertools.product(*(range(sizes[name]) for name in along)):
            new = _at(op, dict(zip(along, point, strict=True)), sizes, parts, outer)
            values[point] = new[-1].result
            made.extend(new)
        parts[op.result] = Parts(op, along, values)
    return made, parts


def joined(parts: Parts) -> Compute:
    """The compute that gives a value whole again, of its parts."""
    op = parts.compute

    def chosen(known: Point) -> Scalar:
        if len(known) == len(parts.along):
            value = parts.values[known]
            return Read(value, [dim.name for dim in op.dims if dim.name not in parts.along])
        places = sorted({point[len(known)] for point in parts.values})
        result = chosen((*known, places[-1]))
        for place in reversed(places[:-1]):
            here = apply("lt", IndexValue(parts.along[len(known)]), Literal(place + 1, IndexValue(index(0)).dtype))
            result = select(here, chosen((*known, place)), result)
        return result

    return Compute(op.dims, chosen(()), dtype=op.dtype, name=op.result.name, location=op.location)


def _at(
    op: Compute, point: Mapping[str, int], sizes: Mapping[str, int], parts: Mapping[Value, Parts], outer: Bounds
) -> list[Compute]:
    """What a compute does at a point of its unrolled dims: one compute, or one for each point of those it reduces over and their sum."""
    inner = [dim.name for dim in op.reductions if dim.name in sizes]
    if not inner:
        return [_copy(op, point, sizes, parts, outer)]
    if op.monoid in ("argmax", "argmin") or op.monoid is None:
        raise ValueError(f"%{op.result.name} reports a position along an unrolled dim")
    pieces = [
        _copy(op, {**point, **dict(zip(inner, place, strict=True))}, sizes, parts, outer, partial=True)
        for place in itertools.product(*(range(sizes[name]) for name in inner))
    ]
    dims = pieces[0].dims
    total: Scalar = Read(pieces[0].result, [dim.name for dim in dims])
    for piece in pieces[1:]:
        total = combine(op.monoid, total, Read(piece.result, [dim.name for dim in dims]))
    whole = Compute(dims, cast(total, op.dtype), dtype=op.dtype, name=op.result.name, location=op.location)
    return [*pieces, whole]


def _copy(
    op: Compute,
    point: Mapping[str, int],
    sizes: Mapping[str, int],
    parts: Mapping[Value, Parts],
    outer: Bounds,
    *,
    partial: bool = False,
) -> Compute:
    dims, reductions = _without(op.dims, sizes), _without(op.reductions, sizes)
    read = {read.source: parts[read.source].at(point) for read in op.body.reads() if read.source in parts}
    body = op.body
    if point or read:
        body = redirected(body.substitute(dict(point)), read, {new: _dims(new) for new in read.values()})
        extents = {dim.name: dim.extent for dim in (*dims, *reductions)}
        body = simplify_scalar(body, Rewriting(outer.with_extents(extents)))
    dtype = op.accumulate if partial and op.monoid not in ("any", "all") else op.dtype
    if not reductions and op.reductions:
        body = cast(body, dtype)
    return Compute(
        dims,
        body,
        dtype=dtype,
        reductions=reductions,
        monoid=op.monoid if reductions else None,
        accumulate=op.accumulate if reductions else None,
        name=op.result.name,
        location=op.location,
    )


def _without(dims: Iterable[Dim], sizes: Mapping[str, int]) -> tuple[Dim, ...]:
    return tuple(dim for dim in dims if dim.name not in sizes)


def _dims(value: Value) -> tuple[Dim, ...]:
    assert isinstance(value.owner, Compute)
    return value.owner.dims
