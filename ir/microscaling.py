"""Block formats: numbers that share a scale, their values, bits and bytes.

The MX formats are those of the OCP Microscaling Formats (MX) Specification 1.0: blocks of 32 elements with one exponent of 8 bits (f8e8m0).
`mx9` and `mx6` have a second, shared exponent of one bit for each pair of elements in a block of 16 (Rouhani et al., "With Shared
Microexponents, A Little Shifting Goes a Long Way", ISCA 2023); that Microsoft's Maia holds them so is an assumption, its layout is not public.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.ir.dtypes import F1E1M0, F4E2M1, F5E0M4, F6E2M3, F6E3M2, F8E0M7, F8E4M3, F8E5M2, F8E8M0, DType
from codesign.ir.numerics import GREATEST, Array, round_to

Bytes = npt.NDArray[np.uint8]
NOT_A_NUMBER = 255
"""The exponent of a block that holds a NaN."""
BIAS = 127
_MAGNITUDES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
"""Of the numbers of e2m1, by their bits."""


@dataclass(frozen=True)
class BlockFormat:
    """`block` elements along the last axis share a scale of 8 bits. `element` is their float type, or None for integers of `bits`, sign
    included, whose point is behind the first bit of the magnitude. `pair`: elements that share a further exponent of one bit (0: none)."""

    name: str
    block: int
    element: DType | None
    bits: int
    pair: int = 0

    @property
    def greatest_exponent(self) -> int:
        """Of the largest normal number of an element (`emax` of the specification)."""
        return int(np.frexp(GREATEST[self.element])[1]) - 1 if self.element is not None else 0

    def bytes(self, count: int) -> int:
        """Storage of so many elements and their scales; a block that is not full takes all of its own."""
        blocks = -(-count // self.block)
        shared = 8 + (self.block // self.pair if self.pair else 0)
        return -(-blocks * (shared + self.block * self.bits) // 8)


FORMATS: Mapping[str, BlockFormat] = {
    form.name: form
    for form in (
        BlockFormat("mxfp8_e4m3", 32, F8E4M3, 8),
        BlockFormat("mxfp8_e5m2", 32, F8E5M2, 8),
        BlockFormat("mxfp6_e2m3", 32, F6E2M3, 6),
        BlockFormat("mxfp6_e3m2", 32, F6E3M2, 6),
        BlockFormat("mxfp4", 32, F4E2M1, 4),
        BlockFormat("mxint8", 32, None, 8),
        BlockFormat("mx9", 16, F8E0M7, 8, pair=2),
        BlockFormat("mx6", 16, F5E0M4, 5, pair=2),
    )
}


def power_of_two(exponents: Array) -> Array:
    """The numbers of f8e8m0 in float32: 2 ** (bits - 127), and NaN for 255."""
    with np.errstate(over="ignore"):
        numbers = np.ldexp(np.float32(1), exponents.astype(np.int32) - BIAS)
    return np.where(exponents == NOT_A_NUMBER, np.float32(np.nan), numbers).astype(np.float32)


def scale_of(bits: Array, dtype: DType) -> Array:
    """The numbers by which scales of a dtype multiply, in float32."""
    if dtype is F1E1M0:
        return np.asarray(np.ldexp(np.float32(1), -bits.astype(np.int32)), np.float32)
    return power_of_two(bits) if dtype is F8E8M0 else bits


def quantise(array: npt.ArrayLike, form: BlockFormat) -> tuple[Bytes, Array]:
    """The scales of an array's blocks along its last axis, and its elements (in float32), as section 6.3 of the specification has it.

    The scale is the power of two of the block's largest number over that of the format's; elements beyond the greatest are that one. A block
    with a NaN is all NaN; an infinity counts as the power of two beyond the largest number. The last axis is a multiple of the block.
    """
    values = np.asarray(array, np.float32)
    if values.shape[-1] % form.block:
        raise ValueError(f"{form.name} has blocks of {form.block}, the last axis has {values.shape[-1]}")
    blocks = values.reshape(*values.shape[:-1], -1, form.block)
    largest = np.max(np.abs(blocks), axis=-1)
    power = np.where(np.isinf(largest), 128, np.frexp(np.where(np.isfinite(largest), largest, 1.0))[1] - 1)
    power = np.where(largest == 0.0, -BIAS, power - form.greatest_exponent)
    scales = np.clip(power, -BIAS, BIAS) + BIAS
    scales = np.where(np.isnan(largest), NOT_A_NUMBER, scales).astype(np.uint8)
    with np.errstate(invalid="ignore"):
        scaled = np.ldexp(blocks.astype(np.float64), BIAS - scales.astype(np.int32)[..., None])
    elements = _elements(scaled, form)
    return scales, elements.reshape(values.shape)


def _elements(scaled: Array, form: BlockFormat) -> Array:
    if form.element is None:
        step = 2.0 ** (2 - form.bits)
        most = 2 ** (form.bits - 1) - 1
        return np.asarray(np.clip(np.rint(scaled / step), -most, most) * step, np.float32)
    if form.pair:
        halved, scaled = split_pairs(scaled, form)
    greatest = GREATEST[form.element]
    rounded = np.asarray(round_to(np.clip(scaled, -greatest, greatest), form.element))
    return rounded * scale_of(np.repeat(halved, form.pair, axis=-1), F1E1M0) if form.pair else rounded


def split_pairs(elements: Array, form: BlockFormat) -> tuple[Bytes, Array]:
    """The exponents that pairs of elements share (f1e1m0: 1 where both are below 1), and the elements without them."""
    pairs = np.abs(elements).reshape(*elements.shape[:-1], -1, form.pair)
    halved = (np.max(pairs, axis=-1) < 1.0).astype(np.uint8)
    return halved, np.ldexp(elements, np.repeat(halved, form.pair, axis=-1).astype(np.int32))


def halves(pairs: Bytes, half: npt.ArrayLike) -> Array:
    """The numbers of e2m1 at one `half` (0: the lower bits) of bytes that hold two each."""
    bits = (pairs >> (4 * np.asarray(half, np.uint8))) & 15
    return np.asarray(np.where(bits > 7, -1.0, 1.0) * _MAGNITUDES[bits & 7], np.float32)


def dequantise(scales: Bytes, elements: Array, form: BlockFormat) -> Array:
    """The numbers of a block format in float32."""
    with np.errstate(over="ignore"):
        numbers = elements.reshape(*elements.shape[:-1], -1, form.block) * power_of_two(scales)[..., None]
    return np.asarray(numbers.reshape(elements.shape), np.float32)


def pack(codes: Bytes, bits: int) -> Bytes:
    """Codes of so many bits one after the other along the last axis, the first in the lowest bits."""
    each = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & np.uint8(1)
    return np.packbits(each.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    """The first `count` codes of what `pack` made."""
    each = np.unpackbits(packed, axis=-1, bitorder="little", count=count * bits)
    weights = np.left_shift(1, np.arange(bits)).astype(np.uint8)
    return np.asarray((each.reshape(*packed.shape[:-1], count, bits) * weights).sum(axis=-1), np.uint8)
