"""Unrolling of dims: a compute becomes one for each piece of them (a point, or a run of points), with the piece's place written in it.

rewrite (s: 2 unrolled):
    %v = compute[i: M, s: 2] { f(i, s) }  ->  %v_0 = compute[i: M] { f(i, 0) };  %v_1 = compute[i: M] { f(i, 1) }
    %t = compute[i: M] sum(s: 2, k: K) { g(i, s, k) }  ->  two sums over k, and what adds them
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim
from codesign.ir.tiling.monoids import combine, truth
from codesign.passes.algebra import Rewriting, simplify_scalar
from codesign.passes.rebase import redirected

Point = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A piece of a dim: what stands for the dim there, over `dims` of the piece's own."""

    value: Index
    dims: tuple[Dim, ...] = ()


Pieces = Mapping[str, Sequence[Piece]]
"""The pieces of dims, which cover each point once."""


def each_point(sizes: Mapping[str, int]) -> dict[str, list[Piece]]:
    """Dims of these sizes point by point."""
    return {name: [Piece(index(place)) for place in range(size)] for name, size in sizes.items()}


@dataclass(frozen=True)
class Parts:
    """A value as its parts: one for each piece of the dims `along`, by their numbers."""

    compute: Compute
    along: tuple[str, ...]
    values: Mapping[Point, Value]

    def at(self, point: Mapping[str, int]) -> Value:
        """The part at a point, which may say more than is asked."""
        return self.values[tuple(point[name] for name in self.along)]


def unrolled(computes: Sequence[Compute], pieces: Pieces, outer: Bounds) -> tuple[list[Compute], dict[Value, Parts]]:
    """The computes with dims in pieces, and the parts of each value; dims are named so that equal names are the same loop.

    ValueError for a reduction that reports positions along such a dim.
    """
    made: list[Compute] = []
    parts: dict[Value, Parts] = {}
    for op in computes:
        along = tuple(dim.name for dim in op.dims if dim.name in pieces)
        values: dict[Point, Value] = {}
        for point in itertools.product(*(range(len(pieces[name])) for name in along)):
            new = _at(op, dict(zip(along, point, strict=True)), pieces, parts, outer)
            values[point] = new[-1].result
            made.extend(new)
        parts[op.result] = Parts(op, along, values)
    return made, parts


def joined(parts: Parts) -> Compute:
    """The compute that gives a value whole again, of its parts at each point."""
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

    return op.with_domain(op.dims, (), chosen(()))


def _at(
    op: Compute, point: Mapping[str, int], pieces: Pieces, parts: Mapping[Value, Parts], outer: Bounds
) -> list[Compute]:
    """What a compute does at a piece of its unrolled dims: one compute, or one for each piece of those it reduces over and their sum."""
    inner = [dim.name for dim in op.reductions if dim.name in pieces]
    if not inner:
        return [_copy(op, point, pieces, parts, outer)]
    if op.monoid in ("argmax", "argmin") or op.monoid is None:
        raise ValueError(f"%{op.result.name} reports a position along an unrolled dim")
    partial = [
        _copy(op, {**point, **dict(zip(inner, place, strict=True))}, pieces, parts, outer, partial=True)
        for place in itertools.product(*(range(len(pieces[name])) for name in inner))
    ]
    dims = partial[0].dims
    total: Scalar = Read(partial[0].result, [dim.name for dim in dims])
    for one in partial[1:]:
        total = combine(op.monoid, total, Read(one.result, [dim.name for dim in dims]))
    return [*partial, op.with_domain(dims, (), cast(total, op.dtype))]


def _copy(
    op: Compute,
    point: Mapping[str, int],
    pieces: Pieces,
    parts: Mapping[Value, Parts],
    outer: Bounds,
    *,
    partial: bool = False,
) -> Compute:
    here = {name: pieces[name][number] for name, number in point.items()}
    dims, reductions = _in_pieces(op.dims, here), _in_pieces(op.reductions, here)
    read = {read.source: parts[read.source].at(point) for read in op.body.reads() if read.source in parts}
    body = op.body
    if here or read:
        body = body.substitute({name: piece.value for name, piece in here.items()})
        body = redirected(body, read, {new: _dims(new) for new in read.values()})
        extents = {dim.name: dim.extent for dim in (*dims, *reductions)}
        body = simplify_scalar(body, Rewriting(outer.with_extents(extents)))
    dtype = op.accumulate if partial and op.monoid not in ("any", "all") else op.dtype
    if not reductions and op.reductions:
        body = cast(truth(op.monoid, body) if op.monoid else body, dtype)
    return op.with_domain(dims, reductions, body, dtype=dtype)


def _in_pieces(dims: Iterable[Dim], here: Mapping[str, Piece]) -> tuple[Dim, ...]:
    return tuple(own for dim in dims for own in (here[dim.name].dims if dim.name in here else (dim,)))


def _dims(value: Value) -> tuple[Dim, ...]:
    assert isinstance(value.owner, Compute)
    return value.owner.dims
