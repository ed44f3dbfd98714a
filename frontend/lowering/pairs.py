"""Distances of the pairs of one set of points, and gradients of distances between points."""

from __future__ import annotations

import math
from collections.abc import Callable

from codesign.frontend.lowering.builder import Builder, Point, broadcast, literal, read, where
from codesign.frontend.lowering.distances import norm_of_gaps
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F64, I64
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast


def _slope(gap: Scalar, distance: Scalar, p: float) -> Scalar:
    """How fast a p-norm changes with the difference in one dim, as torch has it: 0 where two points lie on each other."""
    kind = gap.dtype
    zero, size = literal(0, kind), apply("abs", gap)
    if p == 0:
        return zero
    sign = apply("sign", gap)
    if p == 1:
        return sign
    if p == math.inf:
        return where(apply("eq", size, distance), sign, zero)
    together = apply("eq", distance, zero)
    if p == 2:
        return where(together, zero, apply("div", gap, distance))
    if p < 1:
        together = apply("or", together, apply("eq", gap, zero))
    share = apply("div", apply("pow", size, literal(p - 1, kind)), apply("pow", distance, literal(p - 1, kind)))
    return where(together, zero, apply("mul", sign, share))


def _summed(b: Builder, count: Index, term: Callable[[Point, Index], Scalar]) -> Value:
    """A gradient that is a sum over the other points."""
    kind = accumulator(b.dtype)
    total = b.reduce("sum", b.shape, (count,), lambda i, r: term(i, r[0]), accumulate=kind, name=f"{b.name}_sum")
    return total if kind is b.dtype else b.compute(b.shape, lambda i: cast(read(total, i), b.dtype))


@lower("aten._cdist_backward.default")
def cdist_backward(b: Builder, grad: Value, x: Value, y: Value, p: float, distances: Value) -> Value:
    """Of each row of x the sum over all rows of y."""
    kind = accumulator(b.dtype)

    def term(i: Point, r: Index) -> Scalar:
        def at(value: Value, *place: Index) -> Scalar:
            return cast(read(value, (*broadcast(shape_of(value)[:-2], i[:-2]), *place)), kind)

        gap = apply("sub", at(x, i[-2], i[-1]), at(y, r, i[-1]))
        return apply("mul", at(grad, i[-2], r), _slope(gap, at(distances, i[-2], r), p))

    return _summed(b, shape_of(y)[-2], term)


@lower("aten._pdist_forward.default")
def pdist(b: Builder, x: Value, p: float = 2.0) -> Value:
    """The distances of the pairs (0, 1), (0, 2), ... (1, 2), ..."""
    points = shape_of(x)[0]

    def gap(i: Point, r: Point) -> Scalar:
        first, second = _pair(b, i[0], points)
        a, c = (cast(read(x, (place.as_index(), r[0])), accumulator(b.dtype)) for place in (first, second))
        return apply("abs", apply("sub", a, c))

    return norm_of_gaps(b, shape_of(x)[1], p, gap)


def _pair(b: Builder, number: Index, points: Index) -> tuple[Scalar, Scalar]:
    """The points of a pair by its number: the first is the number of whole rows of pairs before it. In float64, where the root of the square of
    a whole number is that number."""
    twice = apply("sub", apply("mul", literal(2, F64), b.number(points, F64)), literal(1, F64))
    inner = apply("sub", apply("mul", twice, twice), apply("mul", literal(8, F64), b.number(number, F64)))
    row = apply("floor", apply("mul", apply("sub", twice, apply("sqrt", inner)), literal(0.5, F64)))
    first = cast(row, I64)
    place = apply("sub", apply("add", b.number(number, I64), first), _before(b, first, points))
    return first, apply("add", place, literal(1, I64))


def _before(b: Builder, row: Scalar, points: Index) -> Scalar:
    """How many pairs have a first point before this one."""
    rest = apply("sub", b.number(2 * points - 1, I64), row)
    return apply("floordiv", apply("mul", row, rest), literal(2, I64))


@lower("aten._pdist_backward.default")
def pdist_backward(b: Builder, grad: Value, x: Value, p: float, distances: Value) -> Value:
    """Of each point the sum over all others."""
    kind, points = accumulator(b.dtype), shape_of(x)[0]
    if tensor_type(distances).elements == 0:
        return b.compute(b.shape, lambda i: literal(0, b.dtype))

    def term(i: Point, r: Index) -> Scalar:
        own, other = IndexValue(i[0]), IndexValue(r)
        low, high = apply("min", own, other), apply("max", own, other)
        same = apply("eq", own, other)
        number = apply("add", _before(b, low, points), apply("sub", apply("sub", high, low), literal(1, I64)))
        pair = apply("max", number, literal(0, I64)).as_index()  # of a point with itself some pair or other
        gap = apply("sub", cast(read(x, i), kind), cast(read(x, (r, i[1])), kind))
        slope = _slope(gap, cast(read(distances, (pair,)), kind), p)
        return where(same, literal(0, kind), apply("mul", cast(read(grad, (pair,)), kind), slope))

    return _summed(b, index(points), term)
