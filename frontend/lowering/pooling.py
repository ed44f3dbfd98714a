"""Pooling of any rank: reductions over a moving window, with padding, dilation, ceil mode and positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.convolution import per_dim
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I64, DType
from codesign.ir.index import Index, IndexLike, index, maximum, minimum, product
from codesign.ir.numerics import lowest
from codesign.ir.scalar import IndexValue, Literal, Scalar, apply, cast


def lowest_literal(dtype: DType) -> Literal:
    """The identity of max as a literal: minus infinity or the least integer."""
    value = lowest(dtype)
    return literal(value.item() if hasattr(value, "item") else value, dtype)


def _window_point(window: Sequence[Index], r: Index) -> list[Index]:
    """A position in a flattened window, taken apart in row-major order."""
    point, rest = [], r
    for size in reversed(window[1:]):
        point.append(rest % size)
        rest = rest // size
    return [rest, *point[::-1]]


def _winner(
    b: Builder, window: Sequence[Index], element: Callable[[Point, Sequence[Index]], Scalar]
) -> Callable[[Point], Scalar]:
    """The place in the flattened window of its greatest value: the first of equal ones, but of NaN the last, as torch's kernels have it."""
    flat = (product(window),)
    first = b.reduce(
        "argmax", b.shape, flat, lambda i, r: element(i, _window_point(window, r[0])), name=f"{b.name}_window"
    )
    if not b.dtype.is_float:
        return lambda i: read(first, i)

    def place_of_nan(i: Point, r: Point) -> Scalar:
        value = element(i, _window_point(window, r[0]))
        return where(apply("ne", value, value), IndexValue(r[0]), literal(-1, I64))

    last = b.reduce("max", b.shape, flat, place_of_nan, name=f"{b.name}_nan")

    def place(i: Point) -> Scalar:
        return where(apply("lt", read(last, i), literal(0, I64)), read(first, i), read(last, i))

    return place


@lower(
    "aten.max_pool2d_with_indices.default",
    "aten.max_pool3d_with_indices.default",
    "aten.max_pool1d_with_indices.default",
)
def max_pool(
    b: Builder,
    x: Value,
    kernel: Sequence[IndexLike],
    stride: Sequence[IndexLike] = (),
    padding: Sequence[IndexLike] = (0,),
    dilation: Sequence[IndexLike] = (1,),
    ceil_mode: bool = False,
) -> tuple[Value, Value]:
    """The greatest value of each window, and its position in the flattened image."""
    rank = _spatial_rank(b)
    window = per_dim(kernel, rank)
    steps = per_dim(stride, rank) if stride else window
    pads, spread = per_dim(padding, rank), per_dim(dilation, rank)
    lead, source = len(b.shape) - rank, shape_of(x)
    outside = lowest_literal(tensor_type(x).dtype)

    def element(i: Point, offsets: Sequence[Index]) -> Scalar:
        places = [y * s + k * d - p for y, s, k, d, p in zip(i[lead:], steps, offsets, spread, pads, strict=True)]
        return read(x, (*i[:lead], *places), outside)

    values = b.reduce("max", b.shape, window, lambda i, r: element(i, r))
    winner = _winner(b, window, element)

    def flat(i: Point) -> Scalar:
        """The winner's position; of a window of nothing but the identity of max, whose winner may be padding, the first inside."""
        total: Scalar = literal(0, I64)
        rest: Scalar = winner(i)
        offsets: list[Scalar] = []
        for size in reversed(window[1:]):
            offsets.append(apply("mod", rest, b.number(size, I64)))
            rest = apply("floordiv", rest, b.number(size, I64))
        for d, offset in enumerate([rest, *offsets[::-1]]):
            start = i[lead + d] * steps[d] - pads[d]
            place = apply("add", IndexValue(start), apply("mul", offset, b.number(spread[d], I64)))
            first = start + spread[d] * maximum((spread[d] - 1 - start) // spread[d], 0)
            place = where(apply("eq", read(values, i), outside), IndexValue(first), place)
            total = place if d == 0 else apply("add", apply("mul", total, b.number(source[lead + d], I64)), place)
        return total

    return values, b.compute(b.shape, flat, name=f"{b.name}_1")


def _spatial_rank(b: Builder) -> int:
    return next(k for k in (1, 2, 3) if f"pool{k}d" in b.target)


@lower("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def avg_pool(
    b: Builder,
    x: Value,
    kernel: Sequence[IndexLike],
    stride: Sequence[IndexLike] = (),
    padding: Sequence[IndexLike] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The mean of each window; what it is divided by counts the padding or not, but never what lies beyond it."""
    rank = _spatial_rank(b)
    window = per_dim(kernel, rank)
    steps = per_dim(stride, rank) if stride else window
    pads = per_dim(padding, rank)
    lead, source = len(b.shape) - rank, shape_of(x)
    sums = accumulator(b.dtype)
    zero = literal(0, tensor_type(x).dtype)

    def element(i: Point, r: Point) -> Scalar:
        places = [y * s + k - p for y, s, k, p in zip(i[lead:], steps, r, pads, strict=True)]
        return cast(read(x, (*i[:lead], *places), zero), sums)

    total = b.reduce("sum", b.shape, window, element, accumulate=sums, dtype=sums, name=f"{b.name}_sum")
    plain = not ceil_mode and (count_include_pad or all(p == 0 for p in pads))

    def count(i: Point) -> Scalar:
        if divisor_override:
            return literal(divisor_override, sums)
        if plain:
            return b.number(product(window), sums)
        points = index(1)
        for d in range(rank):
            start = i[lead + d] * steps[d] - pads[d]
            size = source[lead + d]
            end = minimum(start + window[d], size + pads[d])
            if not count_include_pad:
                start, end = maximum(start, 0), minimum(end, size)
            points = points * (end - start)
        return cast(IndexValue(points), sums)

    divide = "div" if sums.is_float else "truncdiv"
    return b.compute(b.shape, lambda i: cast(apply(divide, read(total, i), count(i)), b.dtype))


# -- adaptive ------------------------------------------------------------------------------------------------------------------
def _spans(b: Builder, x: Value, rank: int) -> tuple[list[int], Any]:
    """The largest window per dim, and `start, length` of the window of output position `i` along dim `d`."""
    lead = len(b.shape) - rank
    sizes = [_known(b, n) for n in shape_of(x)[lead:]]
    outs = [_known(b, n) for n in b.shape[lead:]]
    largest = [
        max((-(-(k + 1) * n // o) - k * n // o for k in range(o)), default=1) for n, o in zip(sizes, outs, strict=True)
    ]

    def span(i: Index, d: int) -> tuple[Index, Index]:
        size, out = sizes[d], outs[d]
        if size % out == 0:
            return i * (size // out), index(size // out)
        start = (i * size) // out
        return start, ((i + 1) * size + (out - 1)) // out - start

    return largest, span


def _known(b: Builder, size: Index) -> int:
    if not size.is_constant:
        raise b.unsupported("adaptive pooling over a dynamic size", "fix the spatial size")
    return size.constant


def _covered(offsets: Sequence[Index], lengths: Sequence[Index]) -> Scalar | None:
    """The condition that an offset lies in its window, or None when the window always has its largest size."""
    result: Scalar | None = None
    for offset, length in zip(offsets, lengths, strict=True):
        if length.is_constant:
            continue
        here = apply("lt", IndexValue(offset), IndexValue(length))
        result = here if result is None else apply("and", result, here)
    return result


@lower(
    "aten._adaptive_avg_pool2d.default",
    "aten._adaptive_avg_pool3d.default",
    "aten.adaptive_avg_pool1d.default",
    "aten.adaptive_avg_pool2d.default",
)
def adaptive_avg_pool(b: Builder, x: Value, *_: object) -> Value:
    """Output position i averages the input from floor(i * n / out) to ceil((i + 1) * n / out)."""
    rank = _spatial_rank(b)
    lead = len(b.shape) - rank
    window, span = _spans(b, x, rank)
    sums = accumulator(b.dtype)
    zero = literal(0, tensor_type(x).dtype)

    def element(i: Point, r: Point) -> Scalar:
        spans = [span(i[lead + d], d) for d in range(rank)]
        covered = _covered(r, [length for _, length in spans])
        places = [start + offset for (start, _), offset in zip(spans, r, strict=True)]
        value = cast(read(x, (*i[:lead], *places), None if covered is None else zero), sums)
        return value if covered is None else where(covered, value, literal(0, sums))

    total = b.reduce(
        "sum", b.shape, [index(k) for k in window], element, accumulate=sums, dtype=sums, name=f"{b.name}_sum"
    )

    def mean(i: Point) -> Scalar:
        points = product(span(i[lead + d], d)[1] for d in range(rank))
        return cast(apply("div", read(total, i), b.number(points, sums)), b.dtype)

    return b.compute(b.shape, mean)


@lower("aten.adaptive_max_pool2d.default", "aten.adaptive_max_pool3d.default", "aten.adaptive_max_pool1d.default")
def adaptive_max_pool(b: Builder, x: Value, *_: object) -> tuple[Value, Value]:
    rank = _spatial_rank(b)
    lead, source = len(b.shape) - rank, shape_of(x)
    window, span = _spans(b, x, rank)
    outside = lowest_literal(tensor_type(x).dtype)
    sizes = [index(k) for k in window]

    def element(i: Point, r: Sequence[Index]) -> Scalar:
        spans = [span(i[lead + d], d) for d in range(rank)]
        covered = _covered(r, [length for _, length in spans])
        places = [start + offset for (start, _), offset in zip(spans, r, strict=True)]
        value = read(x, (*i[:lead], *places), None if covered is None else outside)
        return value if covered is None else where(covered, value, outside)

    values = b.reduce("max", b.shape, sizes, lambda i, r: element(i, r))
    winner = _winner(b, sizes, element)

    def flat(i: Point) -> Scalar:
        rest: Scalar = winner(i)
        offsets: list[Scalar] = []
        for size in reversed(sizes[1:]):
            offsets.append(apply("mod", rest, b.number(size, I64)))
            rest = apply("floordiv", rest, b.number(size, I64))
        total: Scalar = literal(0, I64)
        for d, offset in enumerate([rest, *offsets[::-1]]):
            place = apply("add", IndexValue(span(i[lead + d], d)[0]), offset)
            total = place if d == 0 else apply("add", apply("mul", total, b.number(source[lead + d], I64)), place)
        return total

    return values, b.compute(b.shape, flat, name=f"{b.name}_1")


@lower(
    "aten.max_pool2d_with_indices_backward.default",
    "aten.max_pool3d_with_indices_backward.default",
    "aten.adaptive_max_pool2d_backward.default",
    "aten.adaptive_max_pool3d_backward.default",
    "aten.fractional_max_pool2d_backward.default",
    "aten.fractional_max_pool3d_backward.default",
)
def max_pool_backward(b: Builder, grad: Value, x: Value, *rest: Any) -> Value:
    """The gradient of every window added where its greatest value was."""
    indices: Value = rest[-1]
    rank = _spatial_rank(b)
    lead, image = len(b.shape) - rank, b.shape[len(b.shape) - rank :]
    sums = accumulator(b.dtype)
    zeros = b.compute(b.shape, lambda i: literal(0, sums), name=f"{b.name}_zeros")

    def body(i: Point) -> tuple[Sequence[Index], Scalar]:
        flat: Scalar = read(indices, i)
        places: list[Index] = []
        for size in reversed(image[1:]):
            places.append(apply("mod", flat, b.number(size, I64)).as_index())
            flat = apply("floordiv", flat, b.number(size, I64))
        return (*i[:lead], flat.as_index(), *places[::-1]), cast(read(grad, i), sums)

    total = b.scatter("add", zeros, shape_of(grad), body, name=f"{b.name}_sum")
    return b.compute(b.shape, lambda i: cast(read(total, i), b.dtype))
