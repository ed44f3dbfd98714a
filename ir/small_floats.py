"""Floats of 8 bits and fewer as bits: sign, exponent, mantissa, the sign in the highest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.ir.dtypes import F8E4M3, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, DType

Codes = npt.NDArray[np.uint8]

ONE_ZERO = (F8E4M3FNUZ, F8E5M2FNUZ)
"""The formats of AMD's CDNA 3 have neither infinities nor a negative zero, whose pattern is their only NaN."""


def encode(numbers: npt.NDArray[np.float32], dtype: DType) -> Codes:
    """The bits of numbers of a format, one number in each byte; of NaN the pattern of all ones behind the sign, or the only one there is."""
    size = 1 << (dtype.bits - 1)
    table = decode(np.arange(size, dtype=np.uint8), dtype)
    codes = np.searchsorted(np.where(np.isnan(table), np.inf, table), np.abs(numbers)).astype(np.uint8)
    sign = np.signbit(numbers)
    if dtype in ONE_ZERO:
        codes, sign = np.where(np.isnan(numbers), np.uint8(0), codes), (sign & (numbers != 0)) | np.isnan(numbers)
    else:
        codes = np.where(np.isnan(numbers), np.uint8(size - 1), codes)
    return (codes | (sign.astype(np.uint8) << (dtype.bits - 1))).astype(np.uint8)


def decode(codes: Codes, dtype: DType) -> npt.NDArray[np.float32]:
    """The numbers of bits of a format, in float32."""
    exponent_bits, mantissa = dtype.exponent, dtype.mantissa
    bias = (1 << exponent_bits >> 1) - (0 if dtype in ONE_ZERO or dtype.is_fixed else 1)
    wide = codes.astype(np.int32)
    power = (wide >> mantissa) & ((1 << exponent_bits) - 1)
    part = wide & ((1 << mantissa) - 1)
    number = np.ldexp(
        part + np.where(power > 0, 1 << mantissa, 0).astype(np.float64), np.maximum(power, 1) - bias - mantissa
    )
    top, negative = power == (1 << exponent_bits) - 1, (wide >> (dtype.bits - 1)) & 1
    if dtype is F8E5M2:
        number = np.where(top, np.where(part == 0, np.inf, np.nan), number)
    elif dtype is F8E4M3:
        number = np.where(top & (part == 7), np.nan, number)
    elif dtype in ONE_ZERO:
        number = np.where((negative == 1) & (number == 0), np.nan, number)
    return np.asarray(number * np.where(negative, -1.0, 1.0), np.float32)
