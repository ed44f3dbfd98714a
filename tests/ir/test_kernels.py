"""The tile-level interpreter: masked loads, loops, dots, atomics, gathers, symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from codesign.ir.core import Module
from codesign.ir.errors import EvaluationError
from codesign.ir.interpreter import evaluate, run_kernel
from codesign.ir.text import parse
from codesign.ir.verify import verify

rng = np.random.default_rng(3)


def floats(*shape: int) -> npt.NDArray[Any]:
    return rng.standard_normal(shape).astype(np.float32)


def kernel(text: str) -> Module:
    module = parse(text)
    verify(module)
    return module


GEMM = """module @gemm
symbol M: 1 to inf
func @main(%x: f16[M, 70], %w: f16[50, 70], %b: f32[50]) {
  %y = launch @linear(%x, %w, %b) : f16[M, 50]
  return %y
}
kernel @linear(%x: buffer<f16[M, 70]>, %w: buffer<f16[50, 70]>, %b: buffer<f32[50]>) -> (%o: buffer<f16[M, 50]>)
    grid(pm: (M + 31) // 32, pn: 4) symbols(M) schedule {"tiles": {"m": 32, "n": 16, "k": 32}, "pipeline": 3} {
  %zero = map f32[m: 32, n: 16] { 0.0 }
  %sum = for kk in 0 to 70 step 32 (%acc = %zero) pipeline 3 {
    %a = load %x [m: 32, k: 32] at [pm*32 + m, kk + k] where pm*32 + m < M, kk + k < 70
    %c = load %w [k: 32, n: 16] at [pn*16 + n, kk + k] where pn*16 + n < 50, kk + k < 70
    %next = dot %a, %c, %acc
    yield %next
  }
  %bias = load %b [n: 16] at [pn*16 + n] where pn*16 + n < 50 else 99.0
  %y = map f16[m: 32, n: 16] { f16(max(%sum[m, n] + %bias[n], 0.0)) }
  store %y -> %o [m: 32, n: 16] at [pm*32 + m, pn*16 + n] where pm*32 + m < M, pn*16 + n < 50
}
"""


@pytest.mark.parametrize("m", [1, 32, 45])
def test_launch_of_a_masked_gemm_with_epilogue(m: int) -> None:
    x, w, b = floats(m, 70).astype(np.float16), floats(50, 70).astype(np.float16), floats(50)
    (y,) = evaluate(kernel(GEMM), [x, w, b])
    expected = np.maximum(x.astype(np.float32) @ w.astype(np.float32).T + b, 0).astype(np.float16)
    assert y.shape == (m, 50)
    np.testing.assert_allclose(y.astype(float), expected.astype(float), rtol=2e-3, atol=2e-3)


def test_atomics_add_what_programs_give() -> None:
    module = kernel("""
        kernel @sum(%x: buffer<f32[100]>) -> (%o: buffer<f32[]>) grid(p: 4) schedule {} {
          %t = load %x [m: 32] at [p*32 + m] where p*32 + m < 100
          %s = reduce f32[] sum(m: 32) { %t[m] }
          store %s -> %o [] at [] atomic add
        }""")
    x, out = floats(100), np.zeros((), np.float32)
    run_kernel(module.kernels["sum"], [x, out])
    np.testing.assert_allclose(out, x.sum(), rtol=1e-5)


def test_gather_transposition_and_positions() -> None:
    module = kernel("""
        kernel @k(%table: buffer<f32[9, 16]>, %ids: buffer<i64[32]>)
            -> (%o: buffer<f32[16, 32]>, %best: buffer<i64[32]>, %where: buffer<i64[32]>)
            grid() schedule {} {
          %i = load %ids [m: 32] at [m]
          %rows = load %table [m: 32, d: 16] at [%i[m], d] where 0 <= %i[m] < 9 else -1.0
          %turned = map f32[d: 16, m: 32] { %rows[m, d] }
          store %turned -> %o [d: 16, m: 32] at [d, m]
          %b = reduce i64[m: 32] argmax(d: 16) { %rows[m, d] }
          store %b -> %best [m: 32] at [m]
          %w = map i64[m: 32] { index(m*2) + %i[m] }
          store %w -> %where [m: 32] at [m]
        }""")
    table, ids = floats(9, 16), rng.integers(-2, 12, 32)
    out, best, where = np.zeros((16, 32), np.float32), np.zeros(32, np.int64), np.zeros(32, np.int64)
    run_kernel(module.kernels["k"], [table, ids, out, best, where])
    inside = (ids >= 0) & (ids < 9)
    rows = np.where(inside[:, None], table[np.clip(ids, 0, 8)], -1.0)
    np.testing.assert_array_equal(out, rows.T)
    np.testing.assert_array_equal(best, rows.argmax(1))
    np.testing.assert_array_equal(where, np.arange(32) * 2 + ids)


def test_tf32_rounds_operands() -> None:
    text = """
        kernel @k(%x: buffer<f32[16, 16]>, %y: buffer<f32[16, 16]>) -> (%o: buffer<f32[16, 16]>) grid() schedule {} {
          %a = load %x [m: 16, k: 16] at [m, k]
          %b = load %y [k: 16, n: 16] at [k, n]
          %z = map f32[m: 16, n: 16] { 0.0 }
          %c = dot %a, %b, %z PRECISION
          store %c -> %o [m: 16, n: 16] at [m, n]
        }"""
    x, y = np.full((16, 16), 1 + 2.0**-12, np.float32), np.eye(16, dtype=np.float32)
    fast, exact = np.zeros((16, 16), np.float32), np.zeros((16, 16), np.float32)
    run_kernel(kernel(text.replace("PRECISION", "precision tf32")).kernels["k"], [x, y, fast])
    run_kernel(kernel(text.replace("PRECISION", "")).kernels["k"], [x, y, exact])
    assert (fast == 1.0).all()
    np.testing.assert_array_equal(exact, x)


def test_bf16_tiles_stay_bf16() -> None:
    module = kernel("""
        kernel @k(%x: buffer<bf16[16]>) -> (%o: buffer<bf16[16]>) grid() schedule {} {
          %t = load %x [m: 16] at [m]
          %u = map bf16[m: 16] { %t[m] + 0.001:bf16 }
          store %u -> %o [m: 16] at [m]
        }""")
    x, out = np.ones(16, np.float32), np.zeros(16, np.float32)
    run_kernel(module.kernels["k"], [x, out])
    assert (out == 1.0).all()  # the sum rounds back


@pytest.mark.parametrize(
    ("indices", "message"),
    [("[p*16 + m + S]", "reaches index 7..22 along dim 0 of %x, whose size is 20"), ("[m - S]", "reaches index -7..8")],
)
def test_lanes_outside_are_an_error(indices: str, message: str) -> None:
    module = kernel(f"""
        kernel @k(%x: buffer<f32[20]>, %s: buffer<f32[S]>) -> () grid(p: 1) symbols(S) schedule {{}} {{
          %t = load %x [m: 16] at {indices}
        }}""")
    with pytest.raises(EvaluationError, match=message.replace("[", r"\[")):
        run_kernel(module.kernels["k"], [floats(20), floats(7)])


def test_buffers_must_have_the_declared_dtype_and_shape() -> None:
    linear = kernel(GEMM).kernels["linear"]
    good: list[npt.NDArray[Any]] = [
        np.zeros((3, 70), np.float16),
        np.zeros((50, 70), np.float16),
        np.zeros(50, np.float32),
        np.zeros((3, 50), np.float16),
    ]
    with pytest.raises(EvaluationError, match=r"takes 4 buffers, got 3"):
        run_kernel(linear, good[:3])
    with pytest.raises(EvaluationError, match=r"buffer %b of @linear holds float64, needs float32"):
        run_kernel(linear, [*good[:2], np.zeros(50), good[3]])
    with pytest.raises(EvaluationError, match=r"size 0 of %o is 4"):
        run_kernel(linear, [*good[:3], np.zeros((4, 50), np.float16)])
