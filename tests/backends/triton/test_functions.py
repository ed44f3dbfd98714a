"""Every scalar function in Triton's interpreter against its reference meaning, in every dtype that it takes."""

import numpy as np
import pytest

from codesign.backends.triton.functions import ROWS
from codesign.backends.triton.interpret import run_interpreted
from codesign.ir.core import Block
from codesign.ir.dtypes import BF16, BOOL, F16, F32, F64, I32, I64, U8, DType
from codesign.ir.functions import FUNCTIONS
from codesign.ir.interpreter import run_kernel
from codesign.ir.scalar import Read, apply, literal
from codesign.ir.schedule import Schedule
from codesign.ir.tile import Axis, Kernel, Load, Map, Store
from tests.backends.triton.kernels import Array, buffer, held

SIZE = 256
EDGES = [0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 1.5, 2.5, np.inf, -np.inf, np.nan, 3, -3, 7]
MORE = [-1.5, -2.5, 1e-6, -1e-6, 1e-30, 88, -88, 100.0, -100.0, 0.999, 5.5, -5.5, 20.0, -20.0, 1e10]

LOOSE = {"lgamma": 64.0, "digamma": 512.0, "erfinv": 32.0, "atan": 512.0, "atan2": 512.0, "asin": 512.0, "acos": 512.0}
"""Tolerance in float64, in units of 8 epsilon: their approximations are good to about 1e-14 and better in float32."""

ABSOLUTE = {"erfc"}
"""Float64 is the difference 1 - erf(x): right to an epsilon of 1, not of the result."""

ANY_ZERO = {"min", "max", "fmin", "fmax", "nextafter"}
"""Of two zeros either may be the answer."""

NOT_COMPARED = {
    ("nextafter", "bf16"): "the reference steps in float32, which holds bfloat16",
    ("copysign", "bf16"): "the sign of a NaN does not survive rounding",
    ("sub", "bool"): "NumPy does not subtract bools",
    ("neg", "bool"): "NumPy does not negate bools",
    ("sign", "bool"): "NumPy has no sign of bools",
}


def test_every_function_has_a_row() -> None:
    assert set(FUNCTIONS) - {"select", "cast", "bitcast"} == set(ROWS)


def inputs(function: str, arity: int, dtype: DType) -> list[Array]:
    rng = np.random.default_rng(7)
    if dtype.is_float:
        if arity == 1:
            values = [np.concatenate([EDGES, MORE, rng.standard_normal(100) * 3, rng.random(125) * 2 - 1])]
        else:
            first, second = np.array(np.meshgrid(EDGES, EDGES)).reshape(2, SIZE)
            values = [first, second, first[::-1].copy()][:arity]
        return [held(value, dtype) for value in values]
    if dtype is BOOL:
        return [rng.integers(0, 2, SIZE).astype(np.bool_) for _ in range(arity)]
    arrays = [rng.integers(0 if dtype.kind == "uint" else -20, 20, SIZE) for _ in range(arity)]
    if function in ("floordiv", "mod", "fmod", "truncdiv"):
        arrays[1] = np.where(arrays[1] == 0, 3, arrays[1])
    if function in ("shl", "shr"):
        arrays[1] = np.abs(arrays[1]) % (dtype.bits - 1)
    if function == "pow":
        arrays[1] = np.abs(arrays[1]) % 7
    return [array.astype(dtype.numpy) for array in arrays]


def all_functions(dtype: DType, arity: int) -> tuple[Kernel, list[str]]:
    """One kernel with an output per function of the arity: each function on its own inputs."""
    axis = Axis("i", SIZE)
    names = [
        name
        for name, row in FUNCTIONS.items()
        if name not in ("cast", "bitcast")
        and row.arity == arity
        and row.takes(dtype)
        and (name, dtype.name) not in NOT_COMPARED
    ]
    params, results, ops = [], [], []
    for name in names:
        buffers = [buffer(f"{name}_{position}", dtype, SIZE) for position in range(arity)]
        loads = [Load(value, [axis], ["i"], name=f"{name}_in") for value in buffers]
        args = [Read(load.result, ["i"]) for load in loads]
        if name == "select":
            zero = literal(False) if dtype is BOOL else literal(0, dtype)
            body = apply(name, apply("gt", args[0], zero), *args[1:])
        else:
            body = apply(name, *args)
        value = Map([axis], body, name=f"{name}_out")
        out = buffer(f"{name}_result", body.dtype, SIZE)
        params += buffers
        results.append(out)
        ops += [*loads, value, Store(value.result, out, [axis], ["i"])]
    return Kernel(
        f"functions_{dtype}_{arity}", [*params, *results], len(results), (), Block([], ops), Schedule()
    ), names


@pytest.mark.parametrize("arity", [1, 2, 3])
@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16, I64, I32, U8, BOOL], ids=str)
def test_functions_agree_with_the_reference(dtype: DType, arity: int) -> None:
    kernel, names = all_functions(dtype, arity)
    given = [array for name in names for array in inputs(name, arity, dtype)]
    expected = [np.zeros(SIZE, value.type.dtype.numpy) for value in kernel.results]
    run_kernel(kernel, [*given, *expected])
    actual = run_interpreted(kernel, given)
    wrong = []
    for position, (name, want, got) in enumerate(zip(names, expected, actual, strict=True)):
        if want.dtype == np.bool_ or not dtype.is_float:
            bad = want != got
        else:
            tolerance = 8 * dtype.epsilon * (LOOSE.get(name, 1.0) if dtype is F64 else 1.0)
            floor = 8e-8 if name in ABSOLUTE and dtype is F64 else tolerance / 2
            with np.errstate(invalid="ignore"):
                bad = ~np.isclose(got, want, rtol=tolerance, atol=floor, equal_nan=True)
            bad |= (want == 0) & (got == 0) & (np.signbit(want) != np.signbit(got)) & (name not in ANY_ZERO)
        if bad.any():
            at = int(np.argmax(bad))
            points = [float(a[at]) for a in given[position * arity : (position + 1) * arity]]
            wrong.append(f"{name}{tuple(points)} is {got[at]}, should be {want[at]} ({bad.sum()} wrong)")
    assert not wrong, "\n".join(wrong)
