"""Kernels on a CUDA device: the same as in the interpreter, natively. `make gpu` runs these; without a device they are skipped."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from codesign.backends.triton.dynamo import compile_fx_graph
from codesign.backends.triton.interpret import run_kernel
from codesign.backends.triton.verify import verify_kernel
from codesign.ir.dtypes import BF16, F16, F32, F64, I64, DType
from codesign.ir.interpreter import run_kernel as reference
from codesign.ir.scalar import Scalar, apply
from codesign.ir.schedule import Schedule
from codesign.passes.tile import lower
from tests.backends.triton.kernels import gemm, gemm_expected, gemm_inputs, held, pointwise
from tests.backends.triton.test_functions import LOOSE, all_functions, inputs
from tests.backends.triton.test_verify import linear, softmax

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize("extras", [{}, {"group": 8}, {"persistent": 1, "group": 4}], ids=str)
def test_gemm_with_remainders(dtype: DType, extras: dict[str, int]) -> None:
    arrays = gemm_inputs(np.random.default_rng(1), 1000, 520, 712, dtype)
    (got,) = run_kernel(gemm(1000, 520, 712, tile=(64, 64, 32), dtype=dtype, **extras), arrays, device="cuda")
    want = gemm_expected(*arrays)
    assert np.abs(got - want).max() <= np.abs(want).max() * (dtype.epsilon + 1e-5)


@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16, I64], ids=str)
@pytest.mark.parametrize("arity", [1, 2])
def test_functions(dtype: DType, arity: int) -> None:
    """The hardware's exponentials and logarithms are good to a few units in the last place, so the tolerance is four times that of the CPU."""
    kernel, names = all_functions(dtype, arity)
    given = [array for name in names for array in inputs(name, arity, dtype)]
    expected = [np.zeros(256, value.type.dtype.numpy) for value in kernel.results]
    reference(kernel, [*given, *expected])
    wrong = []
    for name, want, got in zip(names, expected, run_kernel(kernel, given, device="cuda"), strict=True):
        tolerance = 32 * dtype.epsilon * (LOOSE.get(name, 1.0) if dtype is F64 else 1.0)
        if not np.allclose(got, want, rtol=tolerance, atol=max(tolerance, 8e-8), equal_nan=True):
            wrong.append(name)
    assert not wrong


@pytest.mark.parametrize("mode", ["looped", "resident"])
def test_softmax(mode: str) -> None:
    problem = softmax(333, 1000)
    kernel = lower(problem.fusion, Schedule(tiles={"i": 4, "j": 128}, reduce={"j": mode}), outputs=problem.outputs)
    assert verify_kernel(problem, kernel, device="cuda", seed=0).ok


@pytest.mark.parametrize("warps", [4, 8])
@pytest.mark.parametrize("pipeline", [1, 3])
def test_linear(warps: int, pipeline: int) -> None:
    problem = linear(512, 768, 1024)
    schedule = Schedule(tiles={"i": 128, "j": 128, "l": 64}, pipeline=pipeline, extras={"warps": warps, "group": 8})
    kernel = lower(problem.fusion, schedule, outputs=problem.outputs)
    assert verify_kernel(problem, kernel, device="cuda", seed=0).ok


def test_interpreter_and_device_agree() -> None:
    body: Callable[[Scalar], Scalar] = lambda x: apply("mul", x, apply("tanh", x))  # noqa: E731
    values = held(np.random.default_rng(2).standard_normal(256), F32)
    kernel = pointwise("agree", F32, body)
    np.testing.assert_allclose(
        run_kernel(kernel, [values], device="cuda")[0],
        run_kernel(kernel, [values], device="cpu")[0],
        rtol=2e-6,
        atol=2e-6,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_torch_compile(dtype: torch.dtype, tmp_path: Path) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 64)).to("cuda", dtype)
    x = torch.randn(100, 256, device="cuda", dtype=dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    with torch.no_grad():
        got = torch.compile(model, backend=compile_fx_graph)(x)
        assert got.device == x.device
        torch.testing.assert_close(got, model(x), rtol=tolerance, atol=tolerance)
