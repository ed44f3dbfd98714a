"""Grouped products: rows sorted by group, each times the matrix of its group (experts of a mixture).

The rows of each group are cut into blocks that belong to it alone, the last of which is padded: a batch of plain products, whose weights
are those of the block's group. A row's result is read back from its place in its block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F32, I64, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast
from codesign.ir.types import TensorType

LARGEST_BLOCK = 128
"""Rows of a block where groups have many: the rows of a tile at which a matrix unit reads each weight seldom enough."""

SMALLEST_BLOCK = 16
"""Rows of a block where they have few: the fewest that a matrix unit multiplies at once."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of rows in sorted order.

    `size`: rows of a block. `count`: an upper limit of their number. `group`, `first`: of each block, its group (the last one's for blocks beyond)
    and its first row. `place`: of each row, where it lies among the rows of all blocks.
    """

    size: int
    count: Index
    group: Value
    first: Value
    place: Value


def block_size(rows: Index, groups: Index) -> int:
    """A power of two near the rows that a group has on average."""
    if not (rows.is_constant and groups.is_constant and groups.constant):
        return LARGEST_BLOCK // 2
    average = -(-rows.constant // groups.constant)
    return min(max(1 << (average - 1).bit_length() if average > 1 else 1, SMALLEST_BLOCK), LARGEST_BLOCK)


def most_blocks(rows: Index, groups: Index, size: int) -> Index:
    """The most blocks that so many rows can make: as many groups as can be have one row too many."""
    if rows.is_constant and groups.is_constant:
        ragged = min(rows.constant, groups.constant)
        return index(ragged + (rows.constant - ragged) // size)
    return rows // size + groups


def blocks_of(b: Builder, rows: Index, ends: Value) -> Blocks:
    """The blocks of rows of which group g has those before `ends[g]`."""
    groups = tensor_type(ends).shape[0]
    size = block_size(rows, groups)
    count = most_blocks(rows, groups, size)

    def end(g: Index) -> Scalar:
        return cast(read(ends, (g,), literal(0, tensor_type(ends).dtype)), I64)

    def blocks(g: Index) -> Scalar:
        mine = apply("sub", end(g), end(g - 1))
        return apply("floordiv", apply("add", mine, literal(size - 1, I64)), literal(size, I64))

    def until(i: Point, r: Point) -> Scalar:
        inside = apply("le", IndexValue(r[0]), IndexValue(i[0]))
        return where(inside, blocks(r[0]), literal(0, I64))

    last = b.reduce("sum", (groups,), (groups,), until, accumulate=I64, name=f"{b.name}_blocks")

    def past(value: Value) -> Any:
        return lambda i, r: cast(apply("le", cast(read(value, r), I64), IndexValue(i[0])), I64)

    passed = b.reduce("sum", (count,), (groups,), past(last), accumulate=I64, name=f"{b.name}_passed")
    highest = literal(groups.constant - 1, I64) if groups.is_constant else IndexValue(groups - 1)
    group = b.compute((count,), lambda i: apply("min", read(passed, i), highest), name=f"{b.name}_group")

    def first_row(i: Point) -> Scalar:
        before = read(group, i).as_index() - 1
        rank = apply("sub", IndexValue(i[0]), read(last, (before,), literal(0, I64)))
        return apply("add", end(before), apply("mul", rank, literal(size, I64)))

    own = b.reduce("sum", (rows,), (groups,), past(ends), accumulate=I64, name=f"{b.name}_of_row")

    def place_of(i: Point) -> Scalar:
        before = read(own, i).as_index() - 1
        start = apply("mul", read(last, (before,), literal(0, I64)), literal(size, I64))
        return apply("add", start, apply("sub", IndexValue(i[0]), end(before)))

    first = b.compute((count,), first_row, name=f"{b.name}_first")
    return Blocks(size, count, group, first, b.compute((rows,), place_of, name=f"{b.name}_place"))


def product_by_groups(b: Builder, x: Value, y: Value, ends: Value, sums: DType, dtype: DType) -> tuple[Value, Blocks]:
    """Of each block, its rows of x[m, k] times the matrix y[g, k, n] of its group: [blocks, rows of a block, n], and the blocks."""
    rows, inner = tensor_type(x).shape
    blocks = blocks_of(b, rows, ends)
    zero = literal(0, tensor_type(x).dtype)

    def term(i: Point, r: Point) -> Scalar:
        row = read(blocks.first, (i[0],)).as_index() + i[1]
        group = read(blocks.group, (i[0],)).as_index()
        return b.products.multiply(read(x, (row, r[0]), zero), read(y, (group, r[0], i[2])), sums)

    shape = (blocks.count, blocks.size, tensor_type(y).shape[2])
    name = f"{b.name}_product"
    return b.reduce("sum", shape, (inner,), term, accumulate=sums, dtype=dtype, name=name), blocks


def rows_of(b: Builder, product: Value, blocks: Blocks, ends: Value, i: Point) -> Scalar:
    """An element of the product of all rows; 0 for rows of no group."""
    place = read(blocks.place, (i[0],)).as_index()
    kind = tensor_type(product).dtype
    found = read(product, (place // blocks.size, place % blocks.size, i[1]), literal(0, kind))
    end = cast(read(ends, (tensor_type(ends).shape[0] - 1,)), I64)
    return where(apply("lt", IndexValue(i[0]), end), found, literal(0, kind))


def _takes(x: Value, y: Value, ends: Value | None) -> bool:
    ranks = len(tensor_type(x).shape), len(tensor_type(y).shape)
    return ends is not None and ranks == (2, 3) and tensor_type(y).shape[0] != 0


@lower("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default")
def grouped_mm(b: Builder, x: Value, y: Value, ends: Value | None = None, bias: Value | None = None, *_: object) -> Any:
    """Rows of x[m, k] times the matrix y[g, k, n] of their group: group g holds the rows before ends[g] (rows beyond: 0)."""
    if bias is not None or ends is None or not _takes(x, y, ends):
        return NotImplemented
    kind = tensor_type(x).dtype
    product, blocks = product_by_groups(b, x, y, ends, accumulator(kind), b.dtype)
    return b.compute(b.shape, lambda i: rows_of(b, product, blocks, ends, i))


@lower("aten._scaled_grouped_mm.default")
def scaled_grouped_mm(
    b: Builder,
    x: Value,
    y: Value,
    scale_x: Value,
    scale_y: Value,
    ends: Value | None = None,
    bias: Value | None = None,
    scale_result: Value | None = None,
    *_: object,
) -> Any:
    """The same of narrow floats, times a scale of each row and one of each column of the group's matrix."""
    shapes = TensorType(F32, tensor_type(x).shape[:1]), TensorType(F32, (tensor_type(y).shape[0], b.shape[-1]))
    given = tensor_type(scale_x), tensor_type(scale_y)
    if bias is not None or scale_result is not None or ends is None or not _takes(x, y, ends) or given != shapes:
        return NotImplemented
    product, blocks = product_by_groups(b, x, y, ends, F32, F32)

    def scaled(i: Point) -> Scalar:
        row = read(blocks.first, (i[0],)).as_index() + i[1]
        group = read(blocks.group, (i[0],)).as_index()
        scales = apply("mul", read(scale_x, (row,), literal(0, F32)), read(scale_y, (group, i[2])))
        return cast(apply("mul", read(product, i), scales), b.dtype)

    result = b.compute(tensor_type(product).shape, scaled, name=f"{b.name}_scaled")
    return b.compute(b.shape, lambda i: rows_of(b, result, blocks, ends, i))
