"""Pairwise distances, medians and other compositions that torch keeps as one operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from codesign.frontend.lowering.builder import Builder, Operand, Point, broadcast, literal, read, where
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.reductions import reduce_over
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.scans import sorted_along
from codesign.frontend.lowering.views import reshaped, shape_of, wrap
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, F64, I64
from codesign.ir.index import Index, index
from codesign.ir.scalar import Scalar, apply, cast
from codesign.ir.tensor import Monoid


@lower("aten._cdist_forward.default")
def cdist(b: Builder, x: Value, y: Value, p: float, mode: int | None = None) -> Value:
    """The p-norm of the difference of every row of x and every row of y; the largest difference of p = inf is of those that are numbers, as in
    torch."""
    compute = accumulator(b.dtype)
    left, right = shape_of(x), shape_of(y)

    def gap(i: Point, r: Point) -> Scalar:
        a = read(x, (*broadcast(left[:-2], i[:-2]), i[-2], r[0]))
        c = read(y, (*broadcast(right[:-2], i[:-2]), i[-1], r[0]))
        size = apply("abs", apply("sub", cast(a, compute), cast(c, compute)))
        return where(apply("isnan", size), literal(0, compute), size) if p == math.inf else size

    return norm_of_gaps(b, left[-1], p, gap)


def norm_of_gaps(b: Builder, size: Index, p: float, gap: Callable[[Point, Point], Scalar]) -> Value:
    """The p-norm over `size` absolute differences."""
    compute = accumulator(b.dtype)

    def term(i: Point, r: Point) -> Scalar:
        value = gap(i, r)
        if p == 0:
            return where(apply("isnan", value), value, cast(apply("ne", value, literal(0, compute)), compute))
        if p in (1, math.inf):
            return value
        return apply("mul", value, value) if p == 2 else apply("pow", value, literal(p, compute))

    if size == 0:
        return b.compute(b.shape, lambda i: literal(0, b.dtype))
    monoid: Monoid = "max" if p == math.inf else "sum"
    total = b.reduce(monoid, b.shape, (size,), term, accumulate=compute, dtype=compute, name=f"{b.name}_sum")
    if p in (0, 1, math.inf):
        return b.compute(b.shape, lambda i: cast(read(total, i), b.dtype))
    if p == 2:
        return b.compute(b.shape, lambda i: cast(apply("sqrt", read(total, i)), b.dtype))
    return b.compute(b.shape, lambda i: cast(apply("pow", read(total, i), literal(1 / p, compute)), b.dtype))


@lower("aten.median.default", "aten.nanmedian.default")
def median_of_all(b: Builder, x: Value) -> Value:
    flat = reshaped(b, x, (tensor_type(x).elements,), name=f"{b.name}_flat")
    return _median(b, flat, 0, False)[0]


@lower("aten.median.dim", "aten.nanmedian.dim")
def median(b: Builder, x: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """The lower middle value along a dim and where it is; any NaN gives NaN, or (nanmedian) is left out."""
    rank = len(shape_of(x))
    if rank == 0:
        return x, b.compute((), lambda i: literal(0, I64), name=f"{b.name}_positions")
    return _median(b, x, wrap(dim, rank), keepdim)


def _median(b: Builder, x: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    kind, size = tensor_type(x).dtype, shape_of(x)[dim]
    shape = [index(1) if d == dim else n for d, n in enumerate(shape_of(x)) if keepdim or d != dim]
    values, positions = sorted_along(b, x, dim, False, None, f"{b.name}_sorted")
    missing: Value | None = None
    if kind.is_float:  # NaNs are sorted last
        missing = reduce_over(
            b,
            "sum",
            x,
            [dim],
            keepdim,
            element=lambda a: cast(apply("isnan", cast(a, opmath(kind))), I64),
            accumulate=I64,
            dtype=I64,
            name=f"{b.name}_missing",
        )

    def middle(i: Point) -> Scalar:
        half = apply("floordiv", b.number(size - 1, I64), literal(2, I64))
        if missing is None:
            return half
        count = read(missing, i)
        if "nanmedian" in b.target:
            kept = apply("sub", b.number(size - 1, I64), count)
            return apply("floordiv", apply("max", kept, literal(0, I64)), literal(2, I64))
        first_missing = apply("sub", b.number(size, I64), count)
        return where(apply("gt", count, literal(0, I64)), first_missing, half)

    def pick(source: Value, name: str) -> Value:
        def body(i: Point) -> Scalar:
            rest = i[dim + 1 :] if keepdim else i[dim:]
            return read(source, (*i[:dim], middle(i).as_index(), *rest))

        return b.compute(shape, body, name=name)

    return pick(values, b.name), pick(positions, f"{b.name}_positions")


@lower("aten.angle.default")
def angle(b: Builder, x: Value) -> Value:
    """Of real numbers: pi for negative ones, else 0; NaN stays."""
    kind = tensor_type(x).dtype
    compute = opmath(b.dtype)
    if kind is BOOL or kind.kind == "uint":
        return b.compute(b.shape, lambda i: literal(0, b.dtype))

    def body(a: Scalar) -> Scalar:
        side = where(apply("lt", a, literal(0, compute)), literal(math.pi, compute), literal(0, compute))
        return where(apply("isnan", a), a, side)

    return b.pointwise(body, x, compute=compute)


@lower("aten.histc.default")
def histc(b: Builder, x: Value, bins: int = 100, low: Operand = 0, high: Operand = 0) -> Any:
    """How many elements fall into each of equal bins between two limits; the last bin holds its upper end."""
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or low >= high:
        return NotImplemented  # the limits are the data's own
    kind = tensor_type(x).dtype
    compute = F64 if kind.is_integer else opmath(kind)
    first, width = literal(low, compute), literal(high - low, compute)
    zeros = b.compute((bins,), lambda i: literal(0, b.dtype), name=f"{b.name}_start")

    def place(i: Point) -> tuple[list[Index], Scalar]:
        value = cast(read(x, i), compute)
        share = apply("div", apply("mul", apply("sub", value, first), literal(bins, compute)), width)
        inside = apply("and", apply("ge", value, first), apply("le", value, literal(high, compute)))
        number = apply("min", cast(share, I64), literal(bins - 1, I64))
        return [where(inside, number, literal(-1, I64)).as_index()], literal(1, b.dtype)

    return b.scatter("add", zeros, shape_of(x), place, within=False)
