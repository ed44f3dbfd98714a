"""Interpolation: up- and downsampling of images, and sampling at positions given by a grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F32, I64, DType
from codesign.ir.index import Index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

Taps = list[tuple[Scalar, Scalar]]
"""Positions along one dim (i64) with their weights."""


def _times(a: Scalar, c: Scalar) -> Scalar:
    return apply("mul", a, c)


def _plus(a: Scalar, c: Scalar) -> Scalar:
    return apply("add", a, c)


def _minus(a: Scalar, c: Scalar) -> Scalar:
    return apply("sub", a, c)


def _clamped(a: Scalar, low: Scalar, high: Scalar) -> Scalar:
    return apply("min", apply("max", a, low), high)


def _weighted(b: Builder, x: Value, lead: Sequence[Index], taps: Sequence[Taps], compute: DType) -> Scalar:
    """The sum over all combinations of taps; positions outside the image count as 0."""
    zero = literal(0, tensor_type(x).dtype)
    total: Scalar | None = None
    for chosen in itertools.product(*taps):
        weight = chosen[0][1]
        for _, other in chosen[1:]:
            weight = _times(weight, other)
        value = cast(read(x, (*lead, *(place.as_index() for place, _ in chosen)), zero), compute)
        term = _times(value, weight)
        total = term if total is None else _plus(total, term)
    assert total is not None
    return total


# -- images of another size ----------------------------------------------------------------------------------------------------
def _scale(b: Builder, size: Index, out: Index, align: bool, given: float | None, compute: DType) -> Scalar:
    """Input positions per output position."""
    if align:
        if out == 1:
            return literal(0, compute)
        return apply("div", b.number(size - 1, compute), b.number(out - 1, compute))
    if given is not None and given > 0:
        return literal(1.0 / given, compute)
    return apply("div", b.number(size, compute), b.number(out, compute))


def _linear_taps(b: Builder, i: Index, size: Index, out: Index, align: bool, given: float | None, kind: DType) -> Taps:
    scale, position = _scale(b, size, out, align, given, kind), cast(IndexValue(i), kind)
    half = literal(0.5, kind)
    if align:
        source = _times(scale, position)
    else:
        source = apply("max", _minus(_times(scale, _plus(position, half)), half), literal(0, kind))
    last = b.number(size - 1, I64)
    first = apply("min", cast(source, I64), last)
    second = apply("min", _plus(first, literal(1, I64)), last)
    share = _clamped(_minus(source, cast(first, kind)), literal(0, kind), literal(1, kind))
    return [(first, _minus(literal(1, kind), share)), (second, share)]


def _cubic_weights(t: Scalar, a: float) -> list[Scalar]:
    """The four weights of cubic convolution (Keys 1981) at a distance t from the second tap."""
    kind = t.dtype

    def near(x: Scalar) -> Scalar:  # ((a + 2) x - (a + 3)) x x + 1
        inner = _minus(_times(literal(a + 2, kind), x), literal(a + 3, kind))
        return _plus(_times(_times(inner, x), x), literal(1, kind))

    def far(x: Scalar) -> Scalar:  # ((a x - 5 a) x + 8 a) x - 4 a
        inner = _plus(_times(_minus(_times(literal(a, kind), x), literal(5 * a, kind)), x), literal(8 * a, kind))
        return _minus(_times(inner, x), literal(4 * a, kind))

    one, two = literal(1, kind), literal(2, kind)
    return [far(_plus(t, one)), near(t), near(_minus(one, t)), far(_minus(two, t))]


def _cubic_taps(b: Builder, i: Index, size: Index, out: Index, align: bool, given: float | None, kind: DType) -> Taps:
    scale, position = _scale(b, size, out, align, given, kind), cast(IndexValue(i), kind)
    half = literal(0.5, kind)
    source = _times(scale, position) if align else _minus(_times(scale, _plus(position, half)), half)
    base = apply("floor", source)
    weights = _cubic_weights(_minus(source, base), -0.75)
    zero, last = literal(0, I64), b.number(size - 1, I64)
    start = cast(base, I64)
    return [(_clamped(_plus(start, literal(k - 1, I64)), zero, last), w) for k, w in enumerate(weights)]


def _nearest_taps(b: Builder, i: Index, size: Index, out: Index, given: float | None, exact: bool) -> Taps:
    scale, position = _scale(b, size, out, False, given, F32), cast(IndexValue(i), F32)
    source = _times(_plus(position, literal(0.5, F32)), scale) if exact else _times(position, scale)
    return [(apply("min", cast(source, I64), b.number(size - 1, I64)), literal(1, F32))]


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
        size, out, place = source[d], b.shape[2 + d], i[2 + d]
        if "nearest" in b.target:
            return _nearest_taps(b, place, size, out, scales[d], "exact" in b.target)
        rule = _cubic_taps if "bicubic" in b.target else _linear_taps
        return rule(b, place, size, out, align, scales[d], compute)

    def body(i: Point) -> Scalar:
        chosen = [taps(i, d) for d in range(rank)]
        if "nearest" in b.target:
            return read(x, (*i[:2], *(t[0][0].as_index() for t in chosen)), literal(0, b.dtype))
        return cast(_weighted(b, x, i[:2], chosen, compute), b.dtype)

    return b.compute(b.shape, body)


# -- grids -----------------------------------------------------------------------------------------------------------------------
_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


@lower("aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default", "aten.grid_sampler.default")
def grid_sampler(b: Builder, x: Value, grid: Value, mode: int, padding: int, align: bool) -> Value:
    """The image at the positions of a grid in [-1, 1], whose last dim holds (x, y[, z])."""
    rank = len(shape_of(x)) - 2
    kind, source = opmath(b.dtype), shape_of(x)[2:]

    def position(i: Point, d: int) -> Scalar:
        at = cast(read(grid, (i[0], *i[2:], Index(()) + (rank - 1 - d))), kind)
        size = b.number(source[d], kind)
        one, two = literal(1, kind), literal(2, kind)
        if align:
            return _times(apply("div", _plus(at, one), two), _minus(size, one))
        return apply("div", _minus(_times(_plus(at, one), size), one), two)

    def padded(place: Scalar, d: int) -> Scalar:
        """A position moved into the image, as border and reflection padding want it."""
        last = b.number(source[d] - 1, kind)
        zero = literal(0, kind)
        if _PADDINGS[padding] == "reflection":
            place = _reflected(b, place, source[d], align)
        return _clamped(place, zero, last)

    def taps(i: Point, d: int) -> Taps:
        place = position(i, d)
        if _MODES[mode] == "bicubic":
            base = apply("floor", place)
            weights = _cubic_weights(_minus(place, base), -0.75)
            spots = [_plus(base, literal(k - 1, kind)) for k in range(4)]
            moved = spots if padding == 0 else [padded(spot, d) for spot in spots]
            return [(cast(spot, I64), w) for spot, w in zip(moved, weights, strict=True)]
        if padding != 0:
            place = padded(place, d)
        if _MODES[mode] == "nearest":
            return [(cast(apply("round", place), I64), literal(1, kind))]
        base = apply("floor", place)
        share = _minus(place, base)
        first = cast(base, I64)
        return [(first, _minus(literal(1, kind), share)), (_plus(first, literal(1, I64)), share)]

    return b.compute(b.shape, lambda i: cast(_weighted(b, x, i[:2], [taps(i, d) for d in range(rank)], kind), b.dtype))


def _reflected(b: Builder, place: Scalar, size: Index, align: bool) -> Scalar:
    """A position mirrored at the image's edges (at pixel centres when corners are aligned, else at pixel borders)."""
    kind = place.dtype
    low = literal(0 if align else -0.5, kind)
    span = b.number(size - 1 if align else size, kind)
    zero, two = literal(0, kind), literal(2, kind)
    distance = apply("abs", _minus(place, low))
    extra = apply("fmod", distance, span)
    flips = apply("floor", apply("div", distance, span))
    even = apply("eq", apply("fmod", flips, two), zero)
    mirrored = where(even, _plus(extra, low), _plus(_minus(span, extra), low))
    if align:
        return where(apply("eq", span, zero), zero, mirrored)
    return mirrored
