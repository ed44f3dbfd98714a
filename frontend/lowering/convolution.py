"""Convolution of any rank, with groups, dilation and transposition: a sum of products over a moving window."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.index import Index, IndexLike, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast


def per_dim(values: Sequence[IndexLike], rank: int) -> list[Index]:
    """One value per spatial dim; a single one counts for all."""
    given = [index(value) for value in values]
    return given * rank if len(given) == 1 else given


@lower("aten.convolution.default", "aten._convolution.default")
def convolution(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[IndexLike],
    padding: Sequence[IndexLike],
    dilation: Sequence[IndexLike],
    transposed: bool,
    output_padding: Sequence[IndexLike],
    groups: int,
    *_: object,
) -> Value:
    """out[n, o, y] = sum over c, r of x[n, group(o) + c, y * stride + r * dilation - padding] * weight[o, c, r]."""
    rank = len(shape_of(x)) - 2
    steps, pads, spread = (per_dim(v, rank) for v in (stride, padding, dilation))
    window = shape_of(weight)[2:]
    channels = shape_of(x)[1] // groups
    filters = b.shape[1] // groups
    sums = accumulator(b.dtype)
    zero = literal(0, tensor_type(x).dtype)

    def group(i: Point) -> Index:
        return index(0) if groups == 1 else b.simplify(i[1] // filters, {"i1": b.shape[1]})

    def forward(i: Point, r: Point) -> Scalar:
        places = [y * s + k * d - p for y, s, k, d, p in zip(i[2:], steps, r[1:], spread, pads, strict=True)]
        channel = group(i) * channels + r[0]
        inside = all(p == 0 for p in pads)
        value = read(x, (i[0], channel, *places), None if inside else zero)
        return apply("mul", cast(value, sums), cast(read(weight, (i[1], *r)), sums))

    def backward(i: Point, r: Point) -> Scalar:
        channel = group(i) * channels + r[0]
        hit: Scalar = literal(True, BOOL)
        places = []
        for y, s, k, d, p in zip(i[2:], steps, r[1:], spread, pads, strict=True):
            place = y + p - k * d
            if s != 1:
                on_step = apply("eq", IndexValue(place % s), IndexValue(index(0)))
                hit = on_step if hit == literal(True, BOOL) else apply("and", hit, on_step)
                place = place // s
            places.append(place)
        value = where(hit, read(x, (i[0], channel, *places), zero), zero)
        filter_index = i[1] - group(i) * filters
        return apply("mul", cast(value, sums), cast(read(weight, (channel, filter_index, *r[1:])), sums))

    product = b.reduce(
        "sum",
        b.shape,
        (channels, *window),
        backward if transposed else forward,
        accumulate=sums,
        dtype=b.dtype if bias is None else _sums(b),
        name="" if bias is None else f"{b.name}_product",
    )
    if bias is None:
        return product
    compute = _sums(b)
    return b.compute(
        b.shape,
        lambda i: cast(apply("add", read(product, i), cast(read(bias, (i[1],)), compute)), b.dtype),
    )


def _sums(b: Builder) -> DType:
    return opmath(b.dtype) if b.dtype.is_float else b.dtype


@lower("aten.im2col.default")
def im2col(
    b: Builder, x: Value, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Value:
    """Windows as columns: row (c, r, s), column (y, x) holds x[c, y * stride + r * dilation - padding, ...]."""
    source = shape_of(x)
    batched = len(source) == 4
    kernel, dilation, padding, stride = (list(v) * (2 // len(v)) for v in (kernel, dilation, padding, stride))
    width = (source[-1] + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    area = kernel[0] * kernel[1]
    zero = literal(0, b.dtype)

    def body(i: Point) -> Scalar:
        row, column = i[-2:]
        r, s = (row // kernel[1]) % kernel[0], row % kernel[1]
        y = (column // width) * stride[0] + r * dilation[0] - padding[0]
        z = (column % width) * stride[1] + s * dilation[1] - padding[1]
        return read(x, (*((i[0],) if batched else ()), row // area, y, z), zero)

    return b.compute(b.shape, body)


@lower("aten.col2im.default")
def col2im(
    b: Builder,
    x: Value,
    size: Sequence[IndexLike],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """The adjoint of im2col: every place sums what the windows that cover it hold for it."""
    batched = len(shape_of(x)) == 3
    kernel, dilation, padding, stride = (list(v) * (2 // len(v)) for v in (kernel, dilation, padding, stride))
    blocks = [(index(size[d]) + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    sums = accumulator(b.dtype)

    def body(i: Point, r: Point) -> Scalar:
        hit: Scalar | None = None
        places = []
        for d in range(2):
            offset = i[d - 2] + padding[d] - r[d] * dilation[d]
            place = offset // stride[d]
            low = apply("ge", IndexValue(offset), IndexValue(index(0)))
            high = apply("lt", IndexValue(place), IndexValue(blocks[d]))
            step = apply("eq", IndexValue(offset % stride[d]), IndexValue(index(0)))
            here = apply("and", apply("and", low, high), step)
            hit = here if hit is None else apply("and", hit, here)
            places.append(place)
        assert hit is not None
        channel = (i[-3] * kernel[0] + r[0]) * kernel[1] + r[1]
        at = (*((i[0],) if batched else ()), channel, places[0] * blocks[1] + places[1])
        value = read(x, at, literal(0, tensor_type(x).dtype))
        return where(hit, cast(value, sums), literal(0, sums))

    return b.reduce("sum", b.shape, [index(k) for k in kernel], body, accumulate=sums, dtype=b.dtype)
