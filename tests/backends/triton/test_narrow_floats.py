"""Conversions to narrow floats: values as the IR's interpreter (and torch) have them, and what compiled code does beyond the range."""

import re

import numpy as np
import pytest

from codesign.backends.triton.aot import compile_aot
from codesign.backends.triton.emit import emit
from codesign.backends.triton.interpret import KernelError, run_interpreted
from codesign.ir.dtypes import BF16, F8E4M3, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F16, F32, F64, I32, DType
from codesign.ir.interpreter import run_kernel
from codesign.ir.numerics import convert
from codesign.ir.scalar import apply, cast, literal
from codesign.ir.tile import Kernel
from tests.backends.triton.kernels import Array, pointwise

ENDS = [
    *(0.0, 1.0, 0.1, 240.0, 247.9, 248.0, 448.0, 463.9, 464.0, 480.0, 57344.0, 61439.0, 61440.0, 65504.0, 65519.0, 65520.0),
    *(1e6, 3.4e38, 1e300, np.inf, np.nan, 2.0**-7, 2.0**-10, 2.0**-11, 1.5 * 2.0**-11, 2.0**-17, 2.0**-18, 2.0**-24, 1e-30),
    *(1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8 + 2.0**-40, 1.0625 + 2.0**-40, 1.125 + 2.0**-40),  # twice rounded: to the even one
]  # fmt: skip
NARROW = [F16, BF16, F8E4M3, F8E5M2, F8E4M3FNUZ, F8E5M2FNUZ]


def casting(source: DType, target: DType) -> Kernel:
    return pointwise(f"cast_{source}_{target}", source, lambda x: cast(x, target))


def ends(dtype: DType) -> Array:
    values = np.array([*ENDS, *(-x for x in ENDS)])
    if not dtype.is_float:
        values = np.nan_to_num(values, nan=7, posinf=1e9, neginf=-1e9).clip(-(2**31), 2**31 - 1)
    return convert(np.resize(values, 256), dtype)


def both(tested: Kernel, array: Array) -> tuple[Array, Array]:
    """What Triton's interpreter and the IR's make of an input."""
    (result,) = tested.results
    want = np.zeros(256, result.type.dtype.numpy)
    run_kernel(tested, [array, want])
    return run_interpreted(tested, [array])[0], want


@pytest.mark.parametrize("target", NARROW, ids=str)
@pytest.mark.parametrize("source", [F64, F32, I32, *NARROW], ids=str)
def test_every_conversion_to_a_narrow_float(source: DType, target: DType) -> None:
    if source is target:
        return
    got, want = both(casting(source, target), ends(source))
    np.testing.assert_array_equal(got, want)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(want)[number])


@pytest.mark.parametrize("target", NARROW, ids=str)
def test_constants_are_values_of_their_format(target: DType) -> None:
    """0.1 in a narrow format is not 0.1, also where the kernel computes in float32."""
    tested = pointwise(
        "constant", target, lambda x: cast(apply("sub", cast(x, F32), cast(literal(0.1, target), F32)), F32)
    )
    got, want = both(tested, ends(target))
    np.testing.assert_array_equal(got, want)
    sum_ = pointwise("sum_", target, lambda x: apply("lt", x, literal(0.1, target)))
    got, want = both(sum_, convert(np.full(256, 0.1), target))
    np.testing.assert_array_equal(got, want)
    assert not want.any()


@pytest.mark.parametrize("source", [F64, F32, F16, BF16], ids=str)
@pytest.mark.parametrize("arch", ["sm_90", "sm_100"])
def test_compiled_e5m2_chooses_infinity(source: DType, arch: str) -> None:
    """PTX's conversion saturates, so the code compares with 61440, halfway beyond the largest number, and selects."""
    ptx = compile_aot(casting(source, F8E5M2), arch).text("ptx")
    assert "satfinite.e5m2" in ptx
    assert re.search(r"setp\.[a-z]+\.f32\s.*0f47700000", ptx), "no comparison with 61440"
    assert re.search(r"\bselp\b", ptx)


@pytest.mark.parametrize("target", [F16, BF16, F8E4M3, F8E5M2], ids=str)
def test_compiled_float64_goes_by_float32(target: DType) -> None:
    ptx = compile_aot(casting(F64, target), "sm_90").text("ptx")
    assert "cvt.rn.f32.f64" in ptx
    assert not re.search(r"cvt\.\w+\.(f16|bf16)\.f64", ptx)


@pytest.mark.parametrize("dtype", [F8E4M3FNUZ, F8E5M2FNUZ], ids=str)
def test_formats_of_cdna3_compile_for_it_and_are_refused_elsewhere(dtype: DType) -> None:
    assert compile_aot(casting(F32, dtype), "gfx942").text("amdgcn")
    assert compile_aot(casting(dtype, F32), "gfx942").text("amdgcn")
    with pytest.raises(KernelError, match=r"for sm_90.*(fp8e4b8|fp8e5b16)"):
        compile_aot(casting(dtype, F32), "sm_90")


@pytest.mark.parametrize("target", [F8E4M3, F8E5M2, F8E4M3FNUZ, F8E5M2FNUZ], ids=str)
def test_no_bare_conversion_is_written(target: DType) -> None:
    """Each target's instruction has its own idea of what is too large: only the device functions use it."""
    body = emit(casting(F32, target)).partition("def cast_")[2]
    assert ".to(tl.float8" not in body
    assert f"_to_float8{'e4nv' if target is F8E4M3 else ''}" in body
