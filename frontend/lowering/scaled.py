"""Products of low precision: operands of 8 bits and less, multiplied as they are, and their scales applied to the sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codesign.frontend.lowering.block_scales import (
    LARGEST_EXACT,
    Scales,
    element,
    length,
    told_by_recipe,
    told_by_shape,
)
from codesign.frontend.lowering.builder import Builder, Point, literal, read
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value
from codesign.ir.dtypes import BF16, F32, I32
from codesign.ir.index import Index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast


@lower("aten._int_mm.default")
def int_mm(b: Builder, x: Value, y: Value) -> Value:
    """x[m, k] times y[k, n], both of 8 bits, in 32 bits."""
    return b.reduce(
        "sum",
        (shape_of(x)[0], shape_of(y)[1]),
        shape_of(x)[1:],
        lambda i, r: b.products.multiply(read(x, (i[0], r[0])), read(y, (r[0], i[1])), I32),
        accumulate=I32,
    )


@lower("aten._scaled_mm.default")
def scaled_mm(
    b: Builder,
    x: Value,
    y: Value,
    scale_x: Value,
    scale_y: Value,
    bias: Value | None = None,
    scale_result: Value | None = None,
    out_dtype: object = None,
    use_fast_accum: bool = False,
) -> Any:
    """x[m, k] times y[k, n] in 8 or 4 bits with their scales, and a bias.

    The scale of an 8-bit result stays with the routine: CPUs divide by it, GPUs multiply.
    """
    if scale_result is not None and b.dtype.bits == 8:
        return NotImplemented
    m, n, k = shape_of(x)[0], shape_of(y)[1], length(x, 1)
    return _scaled(b, x, y, told_by_shape(scale_x, m, k, 0), told_by_shape(scale_y, n, k, 1), bias)


@lower("aten._scaled_mm_v2.default")
def scaled_mm_by_recipe(
    b: Builder,
    x: Value,
    y: Value,
    scales_x: list[Value],
    recipe_x: list[int],
    swizzle_x: list[int],
    scales_y: list[Value],
    recipe_y: list[int],
    swizzle_y: list[int],
    bias: Value | None = None,
    out_dtype: object = None,
    contraction_dim: list[int] | None = None,
    use_fast_accum: bool = False,
) -> Any:
    """The same with scales whose layouts are said."""
    k = length(x, 1)
    left = told_by_recipe(scales_x, recipe_x, swizzle_x, k, 0)
    right = told_by_recipe(scales_y, recipe_y, swizzle_y, k, 1)
    return NotImplemented if contraction_dim else _scaled(b, x, y, left, right, bias)


def _scaled(b: Builder, x: Value, y: Value, left: Scales | None, right: Scales | None, bias: Value | None) -> Any:
    if left is None or right is None or left.size != right.size:
        return NotImplemented
    if left.size > LARGEST_EXACT:
        total = _in_blocks(b, x, y, left, right)
    else:
        total = _of_numbers(b, x, y, left, right)

    def body(i: Point) -> Scalar:
        value = apply("mul", read(total, i), apply("mul", left.of_rows(i[0]), right.of_rows(i[1])))
        return cast(value if bias is None else apply("add", value, cast(read(bias, (i[1],)), F32)), b.dtype)

    return b.compute((shape_of(x)[0], shape_of(y)[1]), body)


def _of_numbers(b: Builder, x: Value, y: Value, left: Scales, right: Scales) -> Value:
    """The product of operands as they are, or of the numbers that small blocks stand for.

    An element of 8 or 4 bits times the scale of its block is a number of bf16: a power of two leaves the digits as they are, and 2 digits times
    4 are 6, of which bf16 has 8.
    """

    def number(value: Value, point: Sequence[Index], scales: Scales, kept: Index, k: Index) -> Scalar:
        found = element(value, point, scales.side)
        return apply("mul", cast(found, BF16), cast(scales.of_blocks(kept, k), BF16)) if scales.size else found

    return b.reduce(
        "sum",
        (shape_of(x)[0], shape_of(y)[1]),
        (length(x, 1),),
        lambda i, r: b.products.multiply(
            number(x, (i[0], r[0]), left, i[0], r[0]), number(y, (r[0], i[1]), right, i[1], r[0]), F32
        ),
        accumulate=F32,
        name=f"{b.name}_product",
    )


def _in_blocks(b: Builder, x: Value, y: Value, left: Scales, right: Scales) -> Value:
    """Blocks of the summed dim, each multiplied as it is, scaled, and added up."""
    (m, k), n, size = shape_of(x), shape_of(y)[1], left.size
    parts = b.reduce(
        "sum",
        (m, n, k // size),
        (size,),
        lambda i, r: b.products.multiply(read(x, (i[0], i[2] * size + r[0])), read(y, (i[2] * size + r[0], i[1])), F32),
        accumulate=F32,
        name=f"{b.name}_parts",
    )

    def scaled(i: Point, r: Point) -> Scalar:
        both = apply("mul", left.of_blocks(i[0], r[0] * size), right.of_blocks(i[1], r[0] * size))
        return apply("mul", read(parts, (*i, r[0])), both)

    return b.reduce("sum", (m, n), (k // size,), scaled, accumulate=F32, name=f"{b.name}_product")


@lower("aten._weight_int8pack_mm.default")
def weight_int8pack_mm(b: Builder, x: Value, weight: Value, scales: Value) -> Value:
    """x[m, k] times weight[n, k] of 8 bits transposed, times scales[n]."""
    (m, k), n = shape_of(x), shape_of(weight)[0]
    product = b.reduce(
        "sum",
        (m, n),
        (k,),
        lambda i, r: b.products.multiply(read(x, (i[0], r[0])), read(weight, (i[1], r[0])), F32),
        accumulate=F32,
        name=f"{b.name}_product",
    )
    return b.compute((m, n), lambda i: cast(apply("mul", read(product, i), cast(read(scales, (i[1],)), F32)), b.dtype))


@lower("aten._weight_int4pack_mm.default")
def weight_int4pack_mm(b: Builder, x: Value, weight: Value, group: int, scales: Value) -> Value:
    """x[m, k] times weight[n, k] of 4 bits transposed, each number of `group` along k with the scale and the middle that scales[k // group, n] says.

    The weight lies as CUDA's tiles of 8 times 16 want it, `[n / 8, k / (16 T), 32 lanes, T / 2]` words of two tiles' numbers of a lane: the even
    places of a pair of columns in the lower half of a word, the odd ones in the upper (torch's `matrix_to_m16n8k16_Bint4_layout`).
    """
    m, k = shape_of(x)
    rows, _, _, words = shape_of(weight)
    tiles = 2 * words.constant

    def number(n: Index, k: Index) -> Scalar:
        tile, inside = k // 16, k % 16
        lane = (n % 8) * 4 + (inside % 8) // 2
        word = read(weight, (n // 8, tile // tiles, lane, (tile % tiles) // 2))
        place = (tile % 2) * 8 + (inside // 8) * 4 + (inside % 2) * 16
        bits = apply("and", apply("shr", word, cast(IndexValue(place), I32)), literal(15, I32))
        steps = cast(cast(apply("sub", bits, literal(8, I32)), BF16), F32)
        scale, middle = (cast(read(scales, (k // group, n, part)), F32) for part in (0, 1))
        return cast(apply("add", apply("mul", steps, scale), middle), BF16)

    return b.reduce(
        "sum",
        (m, rows * 8),
        (k,),
        lambda i, r: b.products.multiply(read(x, (i[0], r[0])), number(i[1], r[0]), F32),
        accumulate=F32,
        dtype=b.dtype,
    )
