"""Numbers of formats that the IR has as bytes: the scales of blocks, powers of two, and pairs of 4-bit floats (OCP Microscaling Formats 1.0)."""

from __future__ import annotations

from codesign.ir.dtypes import BF16, F4X2, F8E8M0, F32, U8, U32, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index
from codesign.ir.scalar import IndexValue, Literal, Scalar, apply, bitcast, cast, select


def in_dtype(value: Scalar, dtype: DType) -> Scalar:
    """A number in another dtype, as torch converts it; UnsupportedError for pairs of numbers, which torch does not convert either."""
    if value.dtype is dtype:
        return value
    if F4X2 in (value.dtype, dtype):
        raise UnsupportedError(
            f"{value.dtype} holds two numbers", hint="view it as uint8, or use it in torch._scaled_mm"
        )
    if value.dtype is F8E8M0:
        return cast(power_of_two(value), dtype)
    return exponent(cast(value, F32)) if dtype is F8E8M0 else cast(value, dtype)


def power_of_two(scale: Scalar) -> Scalar:
    """The number of an exponent of 8 bits, in f32: 2 ** (bits - 127), and NaN for 255."""
    bits = cast(scale, U32)
    number = bitcast(apply("shl", bits, Literal(23, U32)), F32)  # right but at both ends
    number = select(apply("eq", bits, Literal(0, U32)), Literal(2.0**-127, F32), number)
    return select(apply("eq", bits, Literal(255, U32)), Literal(float("nan"), F32), number)


def exponent(number: Scalar) -> Scalar:
    """The exponent of f32 that is nearest, ties to the larger, whatever the sign; 255 of infinities and NaN. As torch has it."""
    bits = bitcast(number, U32)
    whole = apply("and", apply("shr", bits, Literal(23, U32)), Literal(255, U32))
    rest = apply("and", bits, Literal(0x7FFFFF, U32))
    half = Literal(0x400000, U32)
    tie = apply("and", apply("eq", rest, half), apply("gt", whole, Literal(0, U32)))
    up = apply("and", apply("or", apply("gt", rest, half), tie), apply("lt", whole, Literal(255, U32)))
    return cast(apply("add", whole, cast(up, U32)), F8E8M0)


def four_bits(pair: Scalar, position: Index) -> Scalar:
    """The number at an even (lower half) or odd position of a pair of e2m1, in bf16: 0, 0.5, 1, 1.5, 2, 3, 4 or 6, and its sign."""
    shift = apply("mul", cast(IndexValue(position % 2), U8), Literal(4, U8))
    bits = apply("shr", cast(pair, U8), shift)
    size = apply("and", bits, Literal(7, U8))
    large = select(
        apply("eq", size, Literal(7, U8)), Literal(6.0, BF16), apply("sub", cast(size, BF16), Literal(2.0, BF16))
    )
    small = apply("mul", cast(size, BF16), Literal(0.5, BF16))
    number = select(apply("gt", size, Literal(4, U8)), large, small)
    negative = apply("ne", apply("and", bits, Literal(8, U8)), Literal(0, U8))
    return select(negative, apply("neg", number), number)
