"""How values of each element type are held in NumPy, rounded, and converted into each other.

Formats that NumPy lacks (bf16, the floats of 8 bits and fewer) are held in float32 arrays whose every element is a value of the
format. Rounding is to nearest, ties to even. Conversions follow PyTorch on a CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.dtypes import (
    BF16,
    BOOL,
    F4E2M1,
    F5E0M4,
    F6E2M3,
    F6E3M2,
    F8E0M7,
    F8E4M3,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F16,
    DType,
)
from codesign.ir.small_floats import ONE_ZERO, decode, encode

Array = npt.NDArray[Any]

_LEAST_EXPONENT = {
    F8E4M3: -6,
    F8E5M2: -14,
    F8E4M3FNUZ: -7,
    F8E5M2FNUZ: -15,
    F6E2M3: 0,
    F6E3M2: -2,
    F4E2M1: 0,
    F8E0M7: 1,
    F5E0M4: 1,
}
GREATEST = {
    F8E4M3: 448.0,
    F8E5M2: 57344.0,
    F8E4M3FNUZ: 240.0,
    F8E5M2FNUZ: 57344.0,
    F6E2M3: 7.5,
    F6E3M2: 28.0,
    F4E2M1: 6.0,
    F8E0M7: 127 / 64,
    F5E0M4: 15 / 8,
}
"""The largest finite number of each small float."""

_BEYOND = {**GREATEST, F8E5M2: np.inf, F8E4M3FNUZ: np.nan, F8E5M2FNUZ: np.nan}


def round_to(array: npt.ArrayLike, dtype: DType) -> Array:
    """The array's numbers rounded to the nearest value of a float format, in the NumPy dtype that holds it.

    Too large values become infinite; in f8e4m3, which has no infinity, the greatest value (as conversion instructions
    and PyTorch saturate), and in the elements of blocks too; in the fnuz formats NaN. Narrow formats are reached through
    float32, as in PyTorch: a float64 is rounded twice.
    """
    values = np.asarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.bits >= 32:
            return values.astype(dtype.numpy, copy=False)
        single = values.astype(np.float32, copy=False)
        if dtype is F16:
            return single.astype(np.float16) if values.dtype != np.float16 else values
        if dtype is BF16:
            return _drop_bits(single, 16)
        return _round_small(single, dtype)


def reinterpret(array: npt.ArrayLike, source: DType, target: DType) -> Array:
    """The bits of values of one dtype as values of another of the same width. Of 8-bit floats one NaN is kept, not its bits."""
    held = np.asarray(array)
    if source.is_float and source.bits == 8:
        held = encode(np.asarray(held, np.float32), source)
    if target.is_float and target.bits == 8:
        return decode(held.view(np.uint8), target)
    if source is BF16:  # the upper half of a float32
        held = (np.asarray(held, np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    if target is BF16:
        return np.asarray((held.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32))
    if target is BOOL:
        return np.asarray(held.view(np.uint8) != 0)
    return np.asarray(held.view(target.numpy))


def round_to_tf32(array: Array) -> Array:
    """float32 rounded to the 10-bit mantissa of tensor-float-32 (ties to even)."""
    return _drop_bits(array.astype(np.float32, copy=False), 13)


def _drop_bits(single: Array, count: int) -> Array:
    """float32 with the low `count` bits of the mantissa rounded away."""
    bits = np.ascontiguousarray(single).reshape(single.shape).view(np.uint32)
    rounded = bits >> np.uint32(count)
    rounded &= np.uint32(1)
    rounded += np.uint32((1 << (count - 1)) - 1)
    rounded += bits
    rounded &= np.uint32((0xFFFFFFFF << count) & 0xFFFFFFFF)
    numbers: Array = np.asarray(rounded).view(np.float32)
    undefined = np.isnan(single)
    return np.where(undefined, np.float32(np.nan), numbers) if np.any(undefined) else numbers


def _round_small(single: Array, dtype: DType) -> Array:
    _, exponent = np.frexp(single)
    quantum = np.maximum(exponent - 1, _LEAST_EXPONENT[dtype]) - dtype.mantissa
    rounded = np.ldexp(np.rint(np.ldexp(single, -quantum)), quantum).astype(np.float32)
    kept = np.where(np.isfinite(single), rounded, single)
    beyond = np.copysign(np.float32(_BEYOND[dtype]), single)
    small = np.where(np.abs(kept) > GREATEST[dtype], beyond, kept)
    return (small + np.float32(0) if dtype in ONE_ZERO else small).astype(np.float32, copy=False)


def convert(array: npt.ArrayLike, dtype: DType) -> Array:
    """The array's values converted to an element type.

    To bool: whether not zero. Float to integer: towards zero, then modulo 2**bits (what is too large for 64 bits is
    unspecified, as in C). Integer to integer: modulo 2**bits. To float: rounded.
    """
    values = np.asarray(array)
    if dtype is BOOL:
        return values.astype(np.bool_, copy=False)
    if dtype.is_float:
        return round_to(values, dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        if values.dtype.kind == "f" and dtype.numpy != np.int64:
            if dtype.kind == "uint" and dtype.bits == 64:
                return np.where(values < 0, values.astype(np.int64).astype(np.uint64), values.astype(np.uint64))
            values = values.astype(np.int64)
        return values.astype(dtype.numpy, copy=False)


def held(array: npt.ArrayLike, dtype: DType) -> Array:
    """Data from outside as the interpreter holds it: the right NumPy dtype, and a value of the format in every element."""
    values = np.asarray(array)
    if values.dtype == dtype.numpy and (not dtype.is_float or np.dtype(dtype.numpy).itemsize * 8 == dtype.bits):
        return values
    return convert(values.astype(np.float32) if values.dtype.kind == "V" else values, dtype)


def finish(array: npt.ArrayLike, dtype: DType) -> Array:
    """The result of a NumPy operation on values of `dtype`, brought back into that format."""
    values = np.asarray(array)
    if dtype.is_float and dtype.bits < 32:
        return round_to(values, dtype)
    return values if values.dtype == dtype.numpy else values.astype(dtype.numpy)


def combine_at(array: Array, places: tuple[Array, ...], values: Array, combine: str, dtype: DType) -> None:
    """Write values into elements of an array of a dtype ("set"), or combine them with what is there, one after the other."""
    if not places:  # an array of no dims, whose only element all values are for
        array, places = array.reshape(1), (np.zeros(np.shape(values), np.intp),)
    with np.errstate(all="ignore"):
        if combine == "set":
            array[places] = values
            return
        _COMBINE[combine].at(array, places, values)
        if dtype.is_float and dtype.bits < 32:
            array[places] = convert(array[places], dtype)


_COMBINE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def lowest(dtype: DType) -> Any:
    """The identity of `max`: minus infinity, the least integer, or False."""
    if dtype is BOOL:
        return np.bool_(False)
    return dtype.numpy.type(-np.inf) if dtype.is_float else np.iinfo(np.dtype(dtype.numpy.type)).min


def highest(dtype: DType) -> Any:
    """The identity of `min`: infinity, the greatest integer, or True."""
    if dtype is BOOL:
        return np.bool_(True)
    return dtype.numpy.type(np.inf) if dtype.is_float else np.iinfo(np.dtype(dtype.numpy.type)).max


def next_after(a: Array, b: Array, dtype: DType) -> Array:
    """The neighbour of `a` towards `b` among the values of a float dtype."""
    if dtype is not BF16:
        return np.asarray(np.nextafter(a, b))
    low = np.ascontiguousarray(np.broadcast_arrays(a, b)[0]).view(np.int32) >> 16
    away = (b > a) == (low >= 0)
    stepped = np.where(away, low + 1, low - 1)
    tiny = np.where(b > 0, 1, -32767)  # from either zero to the least number of b's sign
    moved = (np.where(a == 0, tiny, stepped).astype(np.int32) << 16).view(np.float32)
    return np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), np.where(a == b, b, moved)).astype(np.float32)
