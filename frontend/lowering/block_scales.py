"""Scales of an operand of a product: one for all, one a row, or one a block of the summed dim, in the layouts that torch's routines take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.frontend.lowering.builder import literal, read
from codesign.frontend.lowering.formats import four_bits, in_dtype
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F4X2, F8E8M0, F32
from codesign.ir.index import Index, IndexLike, product
from codesign.ir.scalar import Scalar

ALL, ROWS, BLOCK_1X16, BLOCK_1X32, BLOCK_1X128, BLOCK_128X128 = range(6)
"""`torch.nn.functional.ScalingType`."""

SIZES = {BLOCK_1X16: 16, BLOCK_1X32: 32, BLOCK_1X128: 128, BLOCK_128X128: 128}
LARGEST_EXACT = 32
"""Blocks up to this size have scales whose products with the elements are numbers of bf16 (MX formats and NVFP4)."""


@dataclass(frozen=True)
class Scales:
    """The scales of an operand whose kept dim is at `side`: of rows (or of all: `every`), and of blocks of `size` of the summed dim (0: none).

    `group`: rows that share a block's scale. `swizzled`: of how many blocks along the summed dim, where scales lie in the order of
    tensor cores, 0 where they are a matrix.
    """

    side: int
    rows: Value | None = None
    every: bool = True
    blocks: Value | None = None
    size: int = 0
    group: int = 1
    swizzled: int = 0

    def of_rows(self, kept: Index) -> Scalar:
        """The scale that a whole row has."""
        if self.rows is None:
            return literal(1.0, F32)
        place: list[IndexLike] = [0] * len(shape_of(self.rows))
        if not self.every:
            place[self.side if len(place) > 1 else 0] = kept
        return in_dtype(read(self.rows, place), F32)

    def of_blocks(self, kept: Index, summed: Index) -> Scalar:
        """The scale of the block that an element is in."""
        assert self.blocks is not None
        row, block = kept // self.group, summed // self.size
        shape = shape_of(self.blocks)
        if self.swizzled:
            across = (self.swizzled + 3) // 4
            place = ((row // 128) * across + block // 4) * 512 + (row % 32) * 16 + (row % 128) // 32 * 4 + block % 4
            points = [place] if len(shape) == 1 else [place // shape[1], place % shape[1]]
        else:
            points = [row, block] if self.side == 0 else [block, row]
        return in_dtype(read(self.blocks, points), F32)


def length(value: Value, dim: int) -> Index:
    """How many numbers an operand has along its summed dim."""
    size = shape_of(value)[dim]
    return size * 2 if tensor_type(value).dtype is F4X2 else size


def element(value: Value, point: Sequence[Index], side: int) -> Scalar:
    """A number of an operand whose kept dim is at `side`."""
    if tensor_type(value).dtype is not F4X2:
        return read(value, point)
    summed = point[1 - side]
    place = [point[0], summed // 2] if side == 0 else [summed // 2, point[1]]
    return four_bits(read(value, place), summed)


def told_by_shape(scale: Value, kept: Index, summed: Index, side: int) -> Scales | None:
    """What scales cover, by their dtype and shape; None for layouts that are not known."""
    shape, dtype = shape_of(scale), tensor_type(scale).dtype
    if not (summed.is_constant and all(size.is_constant for size in shape)):
        return _plain(scale, kept, side)
    if dtype is F8E8M0 or (dtype.is_float and dtype.bits == 8):
        size = 32 if dtype is F8E8M0 else 16
        blocks = -(-summed.constant // size)
        padded = (kept + 127) // 128 * 128 * (-(-blocks // 4) * 4)
        known = product(shape) == padded
        return Scales(side, blocks=scale, size=size, swizzled=blocks) if known else None
    if len(shape) != 2 or shape[1 - side] == 1:
        return _plain(scale, kept, side)
    if summed != shape[1 - side] * 128:
        return None
    group = next((group for group in (1, 128) if shape[side] == (kept + group - 1) // group), None)
    return None if group is None else Scales(side, blocks=scale, size=128, group=group)


def _plain(scale: Value, kept: Index, side: int) -> Scales | None:
    shape = shape_of(scale)
    if all(size == 1 for size in shape):
        return Scales(side, rows=scale)
    return Scales(side, rows=scale, every=False) if product(shape) == kept else None


def told_by_recipe(
    scales: Sequence[Value], recipe: Sequence[int], swizzle: Sequence[int], summed: Index, side: int
) -> Scales | None:
    """What scales cover, as they are said to; None for others. A second scale, of all, may go with those of blocks."""
    first, *rest = recipe
    if first in (ALL, ROWS):
        return Scales(side, rows=scales[0], every=first == ALL) if not rest else None
    if rest not in ([], [ALL]) or not summed.is_constant:
        return None
    size = SIZES[first]
    swizzled = -(-summed.constant // size) if swizzle and swizzle[0] else 0
    group = 128 if first == BLOCK_128X128 else 1
    more = scales[1] if rest else None
    return Scales(side, rows=more, blocks=scales[0], size=size, group=group, swizzled=swizzled)
