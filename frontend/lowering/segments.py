"""Reductions over consecutive segments of a dim, whose lengths data decides, and their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, data_index, literal, read, where
from codesign.frontend.lowering.indexing import COMBINERS, identity_of
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.scans import scan
from codesign.frontend.lowering.views import shape_of, wrap
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I64, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

KINDS = {"sum": "sum", "mean": "sum", "max": "amax", "min": "amin", "prod": "prod"}


@dataclass(frozen=True)
class _Segments:
    """`numbers`: the segment of each place along the axis (as many as there are: in none), `sizes`: how many places each has."""

    b: Builder
    axis: int
    numbers: Value
    sizes: Value
    kind: DType

    @classmethod
    def of(cls, b: Builder, x: Value, lengths: Value | None, offsets: Value | None, axis: int) -> _Segments:
        """Of lengths, or of the places where segments begin, the end of the last among them."""
        given = lengths if lengths is not None else offsets
        if given is None:
            raise b.unsupported("segments by indices", "give lengths or offsets")
        lead, kind = shape_of(given)[:-1], accumulator(tensor_type(x).dtype)
        if lengths is not None:
            ends = scan(b, lengths, len(lead), "sum", I64, I64, f"{b.name}_ends")
            count = shape_of(lengths)[-1]
        else:
            ends, count = given, shape_of(given)[-1] - 1

        def bound(row: Point, number: Index) -> Scalar:
            """Where a segment ends; before the first one, where that begins."""
            if lengths is None:
                return cast(read(ends, (*row, number + 1)), I64)
            return cast(read(ends, (*row, number), literal(0, I64)), I64)

        def passed(i: Point, r: Point) -> Scalar:
            return cast(apply("le", bound(i[:-1], r[0]), IndexValue(i[-1])), I64)

        shape = (*lead, shape_of(x)[axis])
        numbers = b.reduce("sum", shape, (count,), passed, accumulate=I64, name=f"{b.name}_numbers")
        if lengths is None:
            inside = numbers

            def outside(i: Point) -> Scalar:
                early = apply("lt", IndexValue(i[-1]), bound(i[:-1], index(-1)))
                return where(early, b.number(count, I64), read(inside, i))

            numbers = b.compute(shape, outside, name=f"{b.name}_segments")
        sizes = b.compute(
            (*lead, count),
            lambda i: apply("sub", bound(i[:-1], i[-1]), bound(i[:-1], i[-1] - 1)),
            name=f"{b.name}_sizes",
        )
        return cls(b, wrap(axis, len(shape_of(x))), numbers, sizes, kind)

    def target(self, i: Point) -> Point:
        """Where a place of the data goes; outside where it is in no segment."""
        number = read(self.numbers, i[: self.axis + 1])
        return (*i[: self.axis], data_index(number, index(1), wrap=False), *i[self.axis + 1 :])

    def found(self, i: Point, value: Value, otherwise: float) -> Scalar:
        """What a tensor of segments has for a place of the data."""
        held = read(value, self.target(i), literal(otherwise, tensor_type(value).dtype))
        return cast(held, self.kind)

    def length(self, i: Point) -> Scalar:
        """How many places the segment of a place of the data has."""
        return self.found(i[: self.axis + 1], self.sizes, 1)

    def combined(self, how: str, start: Value, x: Value, value: Any, name: str) -> Value:
        b, shape = self.b, shape_of(x)
        return b.scatter(how, start, shape, lambda i: (self.target(i), value(i)), within=False, name=f"{b.name}_{name}")

    def filled(self, shape: Any, value: float, name: str) -> Value:
        return self.b.compute(shape, lambda i: literal(value, self.kind), name=f"{self.b.name}_{name}")


@lower("aten.segment_reduce.default")
def segment_reduce(
    b: Builder,
    x: Value,
    reduce: str,
    *,
    lengths: Value | None = None,
    indices: Value | None = None,
    offsets: Value | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Value:
    """Each place is combined into its segment; the mean of no values is no number, unless there is an initial one."""
    parts = _Segments.of(b, x, lengths, offsets, axis)
    kind, combine = parts.kind, COMBINERS[KINDS[reduce]]
    zero = literal(0, kind)
    start = parts.filled(b.shape, identity_of(combine, kind) if initial is None else initial, "start")
    total = parts.combined(combine, start, x, lambda i: cast(read(x, i), kind), "total")

    def body(i: Point) -> Scalar:
        value = read(total, i)
        if reduce != "mean":
            return cast(value, b.dtype)
        size = cast(read(parts.sizes, i[: parts.axis + 1]), kind)
        mean = apply("div", value, size)
        return cast(mean if initial is None else where(apply("eq", size, zero), value, mean), b.dtype)

    return b.compute(b.shape, body)


@lower("aten._segment_reduce_backward.default")
def segment_reduce_backward(
    b: Builder,
    grad: Value,
    output: Value,
    x: Value,
    reduce: str,
    *,
    lengths: Value | None = None,
    offsets: Value | None = None,
    axis: int = 0,
    initial: float | None = None,
) -> Value:
    """What each place contributed: equal extremes share, of a product with a zero that place gets the product of the others."""
    parts = _Segments.of(b, x, lengths, offsets, axis)
    kind, shape = parts.kind, shape_of(output)
    one, zero = literal(1, kind), literal(0, kind)

    def own(i: Point) -> Scalar:
        return cast(read(x, i), kind)

    if reduce in ("max", "min"):

        def chosen(i: Point) -> Scalar:
            return apply("or", apply("eq", own(i), parts.found(i, output, 0)), apply("isnan", own(i)))

        start = parts.filled(shape, 0, "none")
        count = parts.combined("add", start, x, lambda i: where(chosen(i), one, zero), "count")
    elif reduce == "prod":
        first = parts.filled(shape, 1 if initial is None else initial, "first")
        none = parts.filled(shape, 0, "none")
        others = parts.combined("mul", first, x, lambda i: where(apply("eq", own(i), zero), one, own(i)), "others")
        zeros = parts.combined("add", none, x, lambda i: cast(apply("eq", own(i), zero), kind), "zeros")

    def share(i: Point) -> Scalar:
        if reduce == "sum":
            return one
        if reduce == "mean":
            return apply("div", one, parts.length(i))
        if reduce == "prod":
            single = apply("eq", parts.found(i, zeros, 0), one)
            at_zero = where(single, parts.found(i, others, 0), zero)
            return where(apply("eq", own(i), zero), at_zero, apply("div", parts.found(i, output, 0), own(i)))
        return where(chosen(i), apply("div", one, parts.found(i, count, 1)), zero)

    return b.compute(b.shape, lambda i: cast(apply("mul", parts.found(i, grad, 0), share(i)), b.dtype))
