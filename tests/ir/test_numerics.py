"""Rounding, conversion and scalar functions agree with PyTorch on a CPU."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codesign.ir.dtypes import (
    BF16,
    BOOL,
    DTYPES,
    F8E4M3,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    DType,
)
from codesign.ir.functions import FUNCTIONS
from codesign.ir.numerics import combine_at, convert, finish, next_after, reinterpret, round_to

TORCH = {
    BOOL: torch.bool,
    I8: torch.int8,
    I16: torch.int16,
    I32: torch.int32,
    I64: torch.int64,
    U8: torch.uint8,
    F8E4M3: torch.float8_e4m3fn,
    F8E5M2: torch.float8_e5m2,
    F8E4M3FNUZ: torch.float8_e4m3fnuz,
    F8E5M2FNUZ: torch.float8_e5m2fnuz,
    F16: torch.float16,
    BF16: torch.bfloat16,
    F32: torch.float32,
    F64: torch.float64,
}
FLOATS = [
    0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 1 + 2**-8, 1 + 3 * 2**-8, 3.14159, 1e-3, 1e-8, -1e-20, 448.0, 463.9, 464.0,
    464.1, 480.0, 57344.0, 61439.0, 61440.0, 65504.0, 65519.0, 65520.0, 1e10, 3.4e38, 2.0**-9, 2.0**-10, 3 * 2.0**-10, 2.0**-17,
    2.0**-24, 2.0**-25, 3 * 2.0**-26, np.inf, -np.inf, np.nan,
]  # fmt: skip


SATURATES = float(torch.tensor(1e10).to(torch.float8_e4m3fn)) == 448.0
"""Older PyTorch made NaN of what is too large for f8e4m3."""


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.generic]:
    wide = tensor.float() if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4 else tensor
    array: npt.NDArray[np.generic] = wide.numpy()
    return array


def _torch(array: npt.NDArray[np.generic], dtype: DType) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).to(TORCH[dtype])


@pytest.mark.parametrize("dtype", [BF16, F16, F8E4M3, F8E5M2, F8E4M3FNUZ, F8E5M2FNUZ, F32], ids=str)
def test_rounding_of_chosen_values(dtype: DType) -> None:
    values = np.array(FLOATS, np.float64)
    if dtype is F8E4M3 and not SATURATES:
        values = values[np.abs(values) <= 464]
    np.testing.assert_array_equal(round_to(values, dtype), _numpy(torch.from_numpy(values).to(TORCH[dtype])))


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=64),
    st.sampled_from([BF16, F16, F8E4M3, F8E5M2, F8E4M3FNUZ, F8E5M2FNUZ]),
)
def test_rounding_of_any_float(values: list[float], dtype: DType) -> None:
    array = np.array(values, np.float32)
    if dtype is F8E4M3 and not SATURATES:
        array = array[np.abs(array) <= 464]
    rounded = round_to(array, dtype)
    np.testing.assert_array_equal(rounded, _numpy(torch.from_numpy(array).to(TORCH[dtype])))
    np.testing.assert_array_equal(round_to(rounded, dtype), rounded)
    signed = ~np.isnan(rounded) & ((rounded != 0) | (dtype not in (F8E4M3FNUZ, F8E5M2FNUZ)))  # those have one zero
    np.testing.assert_array_equal(np.signbit(rounded)[signed], np.signbit(array)[signed])


@pytest.mark.parametrize("target", [BOOL, I8, I16, I32, I64, U8, F16, BF16, F32, F64], ids=str)
@pytest.mark.parametrize("source", [BOOL, I8, I32, I64, U8, F16, BF16, F32, F64], ids=str)
def test_conversions(source: DType, target: DType) -> None:
    if source.is_float:
        values = np.array([0.0, -0.0, 0.3, -0.7, 1.5, 2.5, -2.5, 100.7, -100.2, 127.0])
        if target in (I32, I64):
            values = np.append(values, [-40000.0, 32767.0])
    else:
        values = np.array([0, 1, 2, 100, 127, 3, 7] + ([] if source in (BOOL, U8) else [-1, -7, -128]))
        if source in (I32, I64):
            values = np.append(values, [300, -300, 65537, 16777217, -(2**31), 2**31 - 1])
    given_values = convert(values, source)
    expected = _torch(given_values, source).to(TORCH[target])
    np.testing.assert_array_equal(convert(given_values, target), _numpy(expected))
    assert convert(given_values, target).dtype == target.numpy


BINARY: Mapping[str, Callable[..., torch.Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div,
    "floordiv": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "truncdiv": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "mod": torch.remainder, "fmod": torch.fmod, "pow": torch.pow, "atan2": torch.atan2, "hypot": torch.hypot,
    "copysign": torch.copysign, "min": torch.minimum, "max": torch.maximum, "fmin": torch.fmin, "fmax": torch.fmax,
    "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne,
    "and": torch.bitwise_and, "or": torch.bitwise_or, "xor": torch.bitwise_xor,
    "shl": torch.bitwise_left_shift, "shr": torch.bitwise_right_shift, "nextafter": torch.nextafter,
    "mul_tf32": torch.mul, "mul_tf32x3": torch.mul, "mul_bf16x3": torch.mul,
}  # fmt: skip
UNARY: Mapping[str, Callable[..., torch.Tensor]] = {
    "not": torch.bitwise_not, "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "exp": torch.exp,
    "exp2": torch.exp2, "expm1": torch.expm1, "log": torch.log, "log2": torch.log2, "log10": torch.log10,
    "log1p": torch.log1p, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "sin": torch.sin,
    "cos": torch.cos, "tan": torch.tan, "asin": torch.asin, "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh,
    "cosh": torch.cosh, "tanh": torch.tanh, "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh,
    "erf": torch.erf, "erfc": torch.erfc, "erfinv": torch.erfinv, "lgamma": torch.lgamma, "digamma": torch.digamma,
    "floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc, "round": torch.round,
    "isnan": torch.isnan, "isinf": torch.isinf,
}  # fmt: skip


def test_every_function_is_compared_with_torch() -> None:
    assert set(BINARY) | set(UNARY) | {"select", "cast", "bitcast", "philox"} == set(FUNCTIONS)


def _samples(dtype: DType) -> npt.NDArray[np.generic]:
    if dtype.is_float:
        return convert(
            np.array([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, -2.5, -3.0, 3.7, -7.25, np.inf, -np.inf, np.nan]),
            dtype,
        )
    if dtype is BOOL:
        return np.array([False, True])
    low = [] if dtype.kind == "uint" else [-1, -2, -3, -7, -100]
    return convert(np.array([0, 1, 2, 3, 5, 7, 31, 40, 100, *low]), dtype)


DTYPES_HERE = [F32, F64, F16, BF16, I64, I32, I8, U8, BOOL]


NOT_IN_TORCH = {("nextafter", F16), ("abs", BOOL)}
CASES = [
    (name, dtype)
    for name in [*BINARY, *UNARY]
    for dtype in DTYPES_HERE
    if FUNCTIONS[name].takes(dtype) and (name, dtype) not in NOT_IN_TORCH
]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda value: str(value))
def test_function(name: str, dtype: DType) -> None:
    row = FUNCTIONS[name]
    values = _samples(dtype)
    if row.arity == 2:
        a, b = (np.ascontiguousarray(x) for x in np.broadcast_arrays(values[:, None], values[None, :]))
        if not dtype.is_float and name in ("floordiv", "truncdiv", "mod", "fmod"):
            a, b = a[:, 1:], b[:, 1:]  # division by zero raises in torch
        if name == "copysign" and dtype.is_float:
            a, b = a[:, :-1], b[:, :-1]  # the sign of NaN is nobody's promise
        args = [a, b]
        expected = BINARY[name](*(_torch(x, dtype) for x in args))
    else:
        args = [values]
        expected = UNARY[name](_torch(values, dtype))
    with np.errstate(all="ignore"):
        if name == "nextafter":
            result = next_after(args[0], args[1], dtype)
        else:
            result = finish(row.evaluate(*args), BOOL if row.result == "bool" else dtype)
    tolerance = (
        0.0 if not dtype.is_float else 64 * dtype.epsilon if name in ("lgamma", "digamma") else 8 * dtype.epsilon
    )
    np.testing.assert_allclose(
        np.asarray(result, np.float64), _numpy(expected).astype(np.float64), rtol=tolerance, atol=tolerance / 8
    )


def test_dtypes_hold_their_epsilon() -> None:
    for dtype in DTYPES.values():
        if dtype.is_float:
            one = round_to(np.array([1.0 + dtype.epsilon]), dtype)
            assert float(one[0]) == 1.0 + dtype.epsilon
            assert float(round_to(np.array([1.0 + dtype.epsilon * 0.49]), dtype)[0]) == 1.0


REINTERPRETED = [
    (F32, I32, torch.float32, torch.int32),
    (F64, I64, torch.float64, torch.int64),
    (F16, BF16, torch.float16, torch.bfloat16),
    (BF16, I16, torch.bfloat16, torch.int16),
    (I16, F16, torch.int16, torch.float16),
    (U8, I8, torch.uint8, torch.int8),
    (BOOL, U8, torch.bool, torch.uint8),
]


@pytest.mark.parametrize(("source", "target", "theirs", "other"), REINTERPRETED, ids=str)
def test_reinterpreted_bits(source: DType, target: DType, theirs: torch.dtype, other: torch.dtype) -> None:
    values = _samples(source)
    values = values[values == values]  # a NaN changes its payload on the way to bfloat16
    expected = torch.from_numpy(values.copy()).to(theirs).view(other)
    if other is torch.bfloat16:
        expected = expected.float()
    np.testing.assert_array_equal(reinterpret(values, source, target), expected.numpy())


@pytest.mark.parametrize(("combine", "expected"), [("set", -5.0), ("add", -1.0), ("max", 2.0), ("min", -5.0)])
def test_several_values_for_an_array_of_no_dims(combine: str, expected: float) -> None:
    array = np.array(1.0, np.float32)
    combine_at(array, (), np.array([1.0, 2.0, -5.0], np.float32), combine, F32)
    assert array == expected
