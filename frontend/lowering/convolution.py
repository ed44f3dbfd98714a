"""Convolution of any rank, with groups, dilation and transposition: a sum of products over a moving window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.transposed import Places, by_phase, places_of
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.index import Index, IndexLike, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast
from codesign.ir.types import TensorType


def per_dim(values: Sequence[IndexLike], rank: int) -> list[Index]:
    """One value per spatial dim; a single one counts for all."""
    given = [index(value) for value in values]
    return given * rank if len(given) == 1 else given


@dataclass(frozen=True)
class Sliding:
    """How a window slides, per spatial dim: its step, the padding before the first place, the distance of its points."""

    steps: Sequence[Index]
    pads: Sequence[Index]
    spread: Sequence[Index]

    @classmethod
    def of(
        cls, rank: int, stride: Sequence[IndexLike], padding: Sequence[IndexLike], dilation: Sequence[IndexLike]
    ) -> Sliding:
        return cls(per_dim(stride, rank), per_dim(padding, rank), per_dim(dilation, rank))

    @property
    def padded(self) -> bool:
        return any(p != 0 for p in self.pads)

    def places(self, weight: Value) -> list[Places] | None:
        """The places that windows of a weight cover, by phase; None where no step is longer than one, or one is not known."""
        return places_of(self.steps, self.pads, self.spread, shape_of(weight)[2:])

    def covered(self, y: Point, k: Point) -> list[Index]:
        """The place that point k of window y covers: y * step + k * spread - padding."""
        return [y * s + k * d - p for y, k, s, p, d in zip(y, k, self.steps, self.pads, self.spread, strict=True)]

    def covering(self, place: Point, k: Point) -> tuple[list[Index], Scalar | None]:
        """The window whose point k covers a place, and the condition that there is one (None: always)."""
        hit: Scalar | None = None
        windows = []
        for x, r, s, p, d in zip(place, k, self.steps, self.pads, self.spread, strict=True):
            offset = x + p - r * d
            if s != 1:
                on_step = apply("eq", IndexValue(offset % s), IndexValue(index(0)))
                hit = on_step if hit is None else apply("and", hit, on_step)
                offset = offset // s
            windows.append(offset)
        return windows, hit


def gathered(
    b: Builder,
    x: Value,
    weight: Value,
    sliding: Sliding,
    groups: int,
    kind: TensorType,
    *,
    name: str = "",
) -> Value:
    """out[n, o, y] = sum over c, r of x[n, group(o) + c, y * stride + r * dilation - padding] * weight[o, c, r]."""
    channels, filters = shape_of(x)[1] // groups, kind.shape[1] // groups
    zero = literal(0, tensor_type(x).dtype) if sliding.padded else None
    sums = accumulator(tensor_type(x).dtype)

    def body(i: Point, r: Point) -> Scalar:
        channel = _group(b, i[1], filters, groups, kind.shape[1]) * channels + r[0]
        value = read(x, (i[0], channel, *sliding.covered(i[2:], r[1:])), zero)
        return b.products.multiply(value, read(weight, (i[1], *r)), sums, "convolution")

    over = (channels, *shape_of(weight)[2:])
    return b.reduce("sum", kind.shape, over, body, accumulate=sums, dtype=kind.dtype, name=name)


def scattered(
    b: Builder,
    x: Value,
    weight: Value,
    sliding: Sliding,
    groups: int,
    kind: TensorType,
    *,
    name: str = "",
) -> Value:
    """The adjoint of `gathered`: every place sums what the windows that cover it hold; weight is [channels of x, o, r]."""
    channels, filters = shape_of(x)[1] // groups, kind.shape[1] // groups
    zero = literal(0, tensor_type(x).dtype)
    sums = accumulator(tensor_type(x).dtype)

    def body(i: Point, r: Point) -> Scalar:
        group = _group(b, i[1], filters, groups, kind.shape[1])
        channel = group * channels + r[0]
        windows, hit = sliding.covering(i[2:], r[1:])
        value: Scalar = read(x, (i[0], channel, *windows), zero)
        value = value if hit is None else where(hit, value, zero)
        return b.products.multiply(value, read(weight, (channel, i[1] - group * filters, *r[1:])), sums, "convolution")

    over = (channels, *shape_of(weight)[2:])
    return b.reduce("sum", kind.shape, over, body, accumulate=sums, dtype=kind.dtype, name=name)


def _group(b: Builder, channel: Index, size: Index, groups: int, count: Index) -> Index:
    return index(0) if groups == 1 else b.simplify(channel // size, {"i1": count})


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
    """A sum of products over a moving window, or its adjoint when transposed, plus a bias per channel."""
    sliding = Sliding.of(len(shape_of(x)) - 2, stride, padding, dilation)
    places = sliding.places(weight) if transposed else None
    if places is not None:
        return by_phase(b, x, weight, bias, places, groups, b.out, b.name)
    product = scattered if transposed else gathered
    if bias is None:
        return product(b, x, weight, sliding, groups, b.out)
    compute = opmath(b.dtype) if b.dtype.is_float else b.dtype
    kind = TensorType(compute, b.shape)
    total = product(b, x, weight, sliding, groups, kind, name=f"{b.name}_product")
    return b.compute(
        b.shape,
        lambda i: cast(apply("add", read(total, i), cast(read(bias, (i[1],)), compute)), b.dtype),
    )


@lower("aten.convolution_backward.default")
def convolution_backward(
    b: Builder,
    grad: Value,
    x: Value,
    weight: Value,
    bias_sizes: Sequence[IndexLike] | None,
    stride: Sequence[IndexLike],
    padding: Sequence[IndexLike],
    dilation: Sequence[IndexLike],
    transposed: bool,
    output_padding: Sequence[IndexLike],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    """Gradients of the input (the adjoint product), of the weight (a product over batch and places) and of the bias (a sum)."""
    rank = len(shape_of(x)) - 2
    sliding = Sliding.of(rank, stride, padding, dilation)
    given: Value | None = None
    if wanted[0]:
        places = None if transposed else sliding.places(weight)
        if places is not None:
            given = by_phase(b, grad, weight, None, places, groups, tensor_type(x), f"{b.name}_input")
        else:
            product = gathered if transposed else scattered
            given = product(b, grad, weight, sliding, groups, tensor_type(x), name=f"{b.name}_input")
    of_weight = _weight_gradient(b, grad, x, weight, sliding, groups, transposed) if wanted[1] else None
    if not wanted[2]:
        return given, of_weight, None
    kind, sums = tensor_type(grad), accumulator(tensor_type(grad).dtype)
    of_bias = b.reduce(
        "sum",
        kind.shape[1:2],
        (kind.shape[0], *kind.shape[2:]),
        lambda i, r: cast(read(grad, (r[0], i[0], *r[1:])), sums),
        accumulate=sums,
        dtype=kind.dtype,
        name=f"{b.name}_bias",
    )
    return given, of_weight, of_bias


def _weight_gradient(
    b: Builder, grad: Value, x: Value, weight: Value, sliding: Sliding, groups: int, transposed: bool
) -> Value:
    """out[o, c, k] = sum over n, y of windows[n, o, y] * covered[n, group(o) + c, y * stride + k * dilation - padding].

    The windows are those of the gradient, and the input is what they cover; the other way round when transposed.
    """
    windows, covered = (x, grad) if transposed else (grad, x)
    kind, sums = tensor_type(weight), accumulator(tensor_type(weight).dtype)
    rows, channels = kind.shape[0], kind.shape[1]
    zero = literal(0, tensor_type(covered).dtype) if sliding.padded else None
    places = shape_of(windows)

    def body(i: Point, r: Point) -> Scalar:
        group = index(0) if groups == 1 else b.simplify(i[0] // (rows // groups), {"i0": rows})
        value = read(covered, (r[0], group * channels + i[1], *sliding.covered(r[1:], i[2:])), zero)
        return b.products.multiply(value, read(windows, (r[0], i[0], *r[1:])), sums, "convolution")

    over = (places[0], *places[2:])
    return b.reduce("sum", kind.shape, over, body, accumulate=sums, dtype=kind.dtype, name=f"{b.name}_weight")


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
