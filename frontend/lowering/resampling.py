"""Interpolation: up- and downsampling of images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, literal, read
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F32, I64, DType
from codesign.ir.index import Index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

Taps = list[tuple[Scalar, Scalar]]
"""Positions along one dim (i64) with their weights."""


def times(a: Scalar, c: Scalar) -> Scalar:
    return apply("mul", a, c)


def plus(a: Scalar, c: Scalar) -> Scalar:
    return apply("add", a, c)


def minus(a: Scalar, c: Scalar) -> Scalar:
    return apply("sub", a, c)


def clamped(a: Scalar, low: Scalar, high: Scalar) -> Scalar:
    return apply("min", apply("max", a, low), high)


def weighted(b: Builder, x: Value, lead: Sequence[Index], taps: Sequence[Taps], compute: DType) -> Scalar:
    """The sum over all combinations of taps; positions outside the image count as 0."""
    zero = literal(0, tensor_type(x).dtype)
    total: Scalar | None = None
    for chosen in itertools.product(*taps):
        weight = chosen[0][1]
        for _, other in chosen[1:]:
            weight = times(weight, other)
        value = cast(read(x, (*lead, *(place.as_index() for place, _ in chosen)), zero), compute)
        term = times(value, weight)
        total = term if total is None else plus(total, term)
    assert total is not None
    return total


# -- images of another size ----------------------------------------------------------------------------------------------------
def scale_of(b: Builder, size: Index, out: Index, align: bool, given: float | None, compute: DType) -> Scalar:
    """Input positions per output position."""
    if align:
        if out == 1:
            return literal(0, compute)
        return apply("div", b.number(size - 1, compute), b.number(out - 1, compute))
    if given is not None and given > 0:
        return literal(1.0 / given, compute)
    return apply("div", b.number(size, compute), b.number(out, compute))


def _linear_taps(b: Builder, i: Index, size: Index, out: Index, align: bool, given: float | None, kind: DType) -> Taps:
    scale, position = scale_of(b, size, out, align, given, kind), cast(IndexValue(i), kind)
    half = literal(0.5, kind)
    if align:
        source = times(scale, position)
    else:
        source = apply("max", minus(times(scale, plus(position, half)), half), literal(0, kind))
    last = b.number(size - 1, I64)
    first = apply("min", cast(source, I64), last)
    second = apply("min", plus(first, literal(1, I64)), last)
    share = clamped(minus(source, cast(first, kind)), literal(0, kind), literal(1, kind))
    return [(first, minus(literal(1, kind), share)), (second, share)]


def cubic_weights(t: Scalar, a: float) -> list[Scalar]:
    """The four weights of cubic convolution (Keys 1981) at a distance t from the second tap."""
    kind = t.dtype

    def near(x: Scalar) -> Scalar:  # ((a + 2) x - (a + 3)) x x + 1
        inner = minus(times(literal(a + 2, kind), x), literal(a + 3, kind))
        return plus(times(times(inner, x), x), literal(1, kind))

    def far(x: Scalar) -> Scalar:  # ((a x - 5 a) x + 8 a) x - 4 a
        inner = plus(times(minus(times(literal(a, kind), x), literal(5 * a, kind)), x), literal(8 * a, kind))
        return minus(times(inner, x), literal(4 * a, kind))

    one, two = literal(1, kind), literal(2, kind)
    return [far(plus(t, one)), near(t), near(minus(one, t)), far(minus(two, t))]


def _cubic_taps(b: Builder, i: Index, size: Index, out: Index, align: bool, given: float | None, kind: DType) -> Taps:
    scale, position = scale_of(b, size, out, align, given, kind), cast(IndexValue(i), kind)
    half = literal(0.5, kind)
    source = times(scale, position) if align else minus(times(scale, plus(position, half)), half)
    base = apply("floor", source)
    weights = cubic_weights(minus(source, base), -0.75)
    zero, last = literal(0, I64), b.number(size - 1, I64)
    start = cast(base, I64)
    return [(clamped(plus(start, literal(k - 1, I64)), zero, last), w) for k, w in enumerate(weights)]


def _nearest_taps(b: Builder, i: Index, size: Index, out: Index, given: float | None, exact: bool) -> Taps:
    scale, position = scale_of(b, size, out, False, given, F32), cast(IndexValue(i), F32)
    source = times(plus(position, literal(0.5, F32)), scale) if exact else times(position, scale)
    return [(apply("min", cast(source, I64), b.number(size - 1, I64)), literal(1, F32))]


def resizing_taps(b: Builder, i: Index, size: Index, out: Index, align: bool, given: float | None, kind: DType) -> Taps:
    """What an output position of the node's kind of resizing reads along one dim. A given factor that leaves the size as it is counts not, nor one
    that doubles it where the nearest is taken: torch's CPU kernels, but for cubic and exact ones, go by the sizes then."""
    if "exact" in b.target:
        return _nearest_taps(b, i, size, out, given, True)
    if "nearest" in b.target:
        return _nearest_taps(b, i, size, out, None if out in (size, 2 * size) else given, False)
    if "bicubic" in b.target:
        return _cubic_taps(b, i, size, out, align, given, kind)
    return _linear_taps(b, i, size, out, align, None if out == size else given, kind)


def _arguments(b: Builder, x: Value, rest: Sequence[Any]) -> tuple[int, list[float | None], bool]:
    """Rank, given scales per dim and align_corners, for both generations of the signature (`.vec` and `.default`)."""
    rank = next(k for k in (1, 2, 3) if f"{k}d" in b.target)
    values = list(rest[1:])  # without the output size, which torch has already worked out
    align = False
    if "nearest" not in b.target:
        align = bool(values.pop(0))
    if b.target.endswith(".vec"):
        scales = values[0] if values else None
        return rank, list(scales) if scales else [None] * rank, align
    return rank, [values[d] if d < len(values) else None for d in range(rank)], align


@lower(
    *(
        f"aten.upsample_{kind}.{form}"
        for kind in ("linear1d", "bilinear2d", "trilinear3d")
        for form in ("vec", "default")
    ),
    *(f"aten.upsample_bicubic2d.{form}" for form in ("vec", "default")),
    *(
        f"aten.{kind}{d}d.{form}"
        for kind in ("upsample_nearest", "_upsample_nearest_exact")
        for d in (1, 2, 3)
        for form in ("vec", "default")
    ),
)
def upsample(b: Builder, x: Value, *rest: Any) -> Any:
    """Every output position reads its nearest input positions, weighted by distance.

    Integers are a call: torch weighs one dim after the other, by weights of 15 bits, and rounds to integers between them.
    """
    if not b.dtype.is_float and "nearest" not in b.target:
        return NotImplemented
    rank, scales, align = _arguments(b, x, rest)
    compute = opmath(b.dtype)
    source = shape_of(x)[2:]

    def taps(i: Point, d: int) -> Taps:
        return resizing_taps(b, i[2 + d], source[d], b.shape[2 + d], align, scales[d], compute)

    def body(i: Point) -> Scalar:
        chosen = [taps(i, d) for d in range(rank)]
        if "nearest" in b.target:
            return read(x, (*i[:2], *(t[0][0].as_index() for t in chosen)), literal(0, b.dtype))
        return cast(weighted(b, x, i[:2], chosen, compute), b.dtype)

    return b.compute(b.shape, body)
