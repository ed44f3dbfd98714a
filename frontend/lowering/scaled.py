"""Products of low precision: operands of 8 bits and less, multiplied as they are, and their scales applied to the sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, read
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value
from codesign.ir.dtypes import F32, I32, DType
from codesign.ir.index import Index
from codesign.ir.scalar import Scalar, apply, cast

Factor = Callable[[Index, Index], Scalar]
"""A scale of an operand at its kept dim and at its block of the summed one."""


@lower("aten._int_mm.default")
def int_mm(b: Builder, x: Value, y: Value) -> Value:
    """x[m, k] times y[k, n], both of 8 bits, in 32 bits."""
    return _sums(b, x, y, I32, I32, "")


def _sums(b: Builder, x: Value, y: Value, sums: DType, dtype: DType, name: str) -> Value:
    rows, columns = shape_of(x), shape_of(y)
    return b.reduce(
        "sum",
        (rows[0], columns[1]),
        (rows[1],),
        lambda i, r: b.products.multiply(read(x, (i[0], r[0])), read(y, (r[0], i[1])), sums),
        accumulate=sums,
        dtype=dtype,
        name=name,
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
    """x[m, k] times y[k, n] in 8 bits, each with one scale, one a row (column), or one a block of the summed dim, and a bias.

    The scale of an 8-bit result stays with the routine: CPUs divide by it, GPUs multiply.
    """
    if scale_result is not None and b.dtype.bits == 8:
        return NotImplemented
    (m, k), n = shape_of(x), shape_of(y)[1]
    left, right = _blocks(scale_x, m, k, 0), _blocks(scale_y, n, k, 1)
    if left is None or right is None or left.blocks != right.blocks:
        return NotImplemented
    if left.blocks == 1:
        product = _sums(b, x, y, F32, F32, f"{b.name}_product")

        def body(i: Point) -> Scalar:
            total = apply("mul", read(product, i), apply("mul", left.at(i[0], 0), right.at(i[1], 0)))
            return _finished(b, total, bias, i[1])

        return b.compute((m, n), body)
    return _in_blocks(b, x, y, left, right, bias)


def _finished(b: Builder, total: Scalar, bias: Value | None, column: Index) -> Scalar:
    return cast(total if bias is None else apply("add", total, cast(read(bias, (column,)), F32)), b.dtype)


def _in_blocks(b: Builder, x: Value, y: Value, left: _Scale, right: _Scale, bias: Value | None) -> Value:
    """Blocks of the summed dim, each multiplied as it is, scaled, and added up."""
    (m, k), n = shape_of(x), shape_of(y)[1]
    size = k // left.blocks
    parts = b.reduce(
        "sum",
        (m, n, left.blocks),
        (size,),
        lambda i, r: b.products.multiply(read(x, (i[0], i[2] * size + r[0])), read(y, (i[2] * size + r[0], i[1])), F32),
        accumulate=F32,
        name=f"{b.name}_parts",
    )
    total = b.reduce(
        "sum",
        (m, n),
        (left.blocks,),
        lambda i, r: apply("mul", read(parts, (*i, r[0])), apply("mul", left.at(i[0], r[0]), right.at(i[1], r[0]))),
        accumulate=F32,
        name=f"{b.name}_product",
    )
    return b.compute((m, n), lambda i: _finished(b, read(total, i), bias, i[1]))


class _Scale:
    """The scales of an operand: of its kept dim in groups of `group` (0: one for all), of the summed dim in `blocks`."""

    def __init__(self, value: Value, group: int, blocks: int, side: int) -> None:
        self.value, self.group, self.blocks, self.side = value, group, blocks, side

    def at(self, kept: Index, block: Index | int) -> Scalar:
        """The scale at an element of the kept dim and a block of the summed one."""
        place: list[Index | int] = [0] * len(shape_of(self.value))
        if self.group:
            place[self.side] = kept // self.group
        if self.blocks > 1:
            place[1 - self.side] = block
        return cast(read(self.value, place), F32)


def _blocks(scale: Value, kept: Index, summed: Index, side: int) -> _Scale | None:
    """How a scale's shape covers an operand whose kept dim is at `side` of it: one for all, rows, or blocks of 128; None for other layouts."""
    shape = shape_of(scale)
    if all(size == 1 for size in shape):
        return _Scale(scale, 0, 1, side)
    if len(shape) != 2 or not (summed.is_constant and all(size.is_constant for size in shape)):
        return None
    rows, blocks = shape[side], shape[1 - side].constant
    if blocks > 1 and summed.constant != blocks * BLOCK:
        return None
    for group in (1, BLOCK):
        if rows == (kept + group - 1) // group:
            return _Scale(scale, group, blocks, side)
    return None


BLOCK = 128
"""Elements of the summed dim that share a scale (and rows, where these do): the blocks of `torch._scaled_mm` that are no MX formats."""


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
