"""Remainders and whole quotients of floats: exact at any quotient, which hardware's own `%` and `/` are not."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from codesign.backends.triton.aot import compile_aot
from codesign.backends.triton.interpret import run_interpreted
from codesign.ir.core import Block
from codesign.ir.dtypes import F32, F64, I32, DType
from codesign.ir.scalar import Read, Scalar, apply, cast, literal
from codesign.ir.schedule import Schedule
from codesign.ir.tile import Axis, Kernel, Load, Map, Store
from tests.backends.triton.kernels import Array, buffer, pointwise

COUNT = 1024


def bits(dtype: DType, seed: int) -> Array:
    """Numbers whose bits are drawn: of every size, subnormal, infinite, or none."""
    rng = np.random.default_rng(seed)
    kind = np.uint64 if dtype is F64 else np.uint32
    drawn = rng.integers(0, np.iinfo(kind).max, COUNT, dtype=kind, endpoint=True)
    return drawn.view(dtype.numpy)


def pairs(dtype: DType) -> dict[str, tuple[Array, Array]]:
    rng, kind = np.random.default_rng(3), np.float64 if dtype is F64 else np.float32
    divisors = rng.standard_normal(COUNT).astype(kind)
    multiples = (rng.integers(1, 2**40, COUNT) * divisors.astype(np.float64)).astype(kind)
    subnormal = (rng.integers(1, 1000, COUNT) * float(np.finfo(kind).smallest_subnormal)).astype(kind)
    ends = [float(np.finfo(kind).max), float(np.finfo(kind).tiny)]
    edges = [0.0, 1.0, np.inf, np.nan, 3.0, 0.1, 1e10, 2**24 + 2, *ends]
    edges += [-edge for edge in edges]
    first, second = (side.reshape(-1) for side in np.meshgrid(edges, edges))
    fill = np.ones(COUNT - len(first), kind)
    return {
        "any bits": (bits(dtype, 1), bits(dtype, 2)),
        "multiples": (multiples, divisors),
        "just below multiples": (np.nextafter(multiples, np.zeros_like(multiples)), divisors),
        "subnormal divisors": (bits(dtype, 4), subnormal),
        "subnormal": (subnormal, np.roll(subnormal, 1)),
        "edges": (np.concatenate([first, fill]).astype(kind), np.concatenate([second, fill]).astype(kind)),
    }


def wanted(function: str, a: Array, b: Array) -> npt.NDArray[np.floating]:
    rest: npt.NDArray[np.floating] = np.fmod(a, b)
    return rest if function == "fmod" else np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("function", ["fmod", "mod"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_remainder_has_every_bit(function: str, dtype: DType) -> None:
    kernel = pointwise(f"rest_{function}_{dtype}", dtype, lambda a, b: apply(function, a, b), 2, COUNT)
    for name, (a, b) in pairs(dtype).items():
        (found,), expected = run_interpreted(kernel, [a, b]), wanted(function, a, b)
        np.testing.assert_array_equal(found, expected, err_msg=name)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(expected)[number], err_msg=name)


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("function", ["fmod", "mod", "floordiv"])
def test_a_remainder_is_not_one_rounded_quotient(function: str, target: str) -> None:
    """What Triton makes of `%` of floats is `x - trunc(x / y) * y`: no kernel has it."""
    kernel = pointwise(f"whole_{function}", F32, lambda a, b: apply(function, a, b), 2, 128)
    assert "arith.remf" not in compile_aot(kernel, target).text("ttgir")


def test_a_remainder_of_a_scalar_compiles() -> None:
    value = buffer("x", F32)
    load = Load(value, [], [], name="v")
    rest = Map([], apply("mod", Read(load.result, []), literal(0.3, F32)), name="y")
    out = buffer("out", F32)
    ops = [load, rest, Store(rest.result, out, [], [])]
    kernel = Kernel("rest_of_a_scalar", [value, out], 1, (), Block([], ops), Schedule())
    compile_aot(kernel, "sm_90")
    (found,) = run_interpreted(kernel, [np.array(1e9, np.float32)])
    assert found == np.fmod(np.float32(1e9), np.float32(0.3))


STEPS: dict[str, Callable[..., Scalar]] = {
    "floor": lambda a, b: apply("floor", apply("div", a, b)),
    "a number": lambda a, _: apply("round", apply("div", a, literal(0.1, F32))),
    "an integer": lambda a, b: cast(apply("add", apply("div", a, b), literal(0.5, F32)), I32),
    "an order": lambda a, b: apply("ge", apply("div", a, b), literal(1, F32)),
    "a reciprocal": lambda a, b: apply("floor", apply("mul", apply("reciprocal", a), b)),
    "floor division": lambda a, b: apply("floordiv", a, b),
    "truncated division": lambda a, b: apply("truncdiv", a, b),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_quotient_before_a_step_is_rounded_once(name: str) -> None:
    """49 / 49 is 1 and its floor too: `div.full.f32` may be a unit in the last place less."""
    ptx = compile_aot(pointwise("stepped", F32, STEPS[name], 2, 128), "sm_90").text("ptx")
    assert "div.rn.f32" in ptx or "rcp.rn.f32" in ptx
    assert "div.full.f32" not in ptx or name == "floor division"  # which of two zeros, and of infinities


def test_a_quotient_before_a_step_of_another_operation_is_rounded_once() -> None:
    axis, (x, y) = Axis("i", 128), (buffer(name, F32, 128) for name in ("x", "y"))
    loads = [Load(value, [axis], ["i"], name=f"l_{value.name}") for value in (x, y)]
    ratio = Map([axis], apply("div", *(Read(load.result, ["i"]) for load in loads)), name="ratio")
    low = Map([axis], apply("floor", apply("add", Read(ratio.result, ["i"]), literal(0.5, F32))), name="low")
    out = buffer("out", F32, 128)
    ops = [*loads, ratio, low, Store(low.result, out, [axis], ["i"])]
    kernel = Kernel("stepped_later", [x, y, out], 1, (), Block([], ops), Schedule())
    assert "div.full.f32" not in compile_aot(kernel, "sm_90").text("ptx")


@pytest.mark.parametrize("limit", [0.0, -np.inf])
def test_other_quotients_are_as_fast_as_before(limit: float) -> None:
    plain = pointwise("share", F32, lambda a, b: apply("div", a, b), 2, 128)
    signed = pointwise("signed", F32, lambda a, b: apply("gt", apply("div", a, b), literal(limit, F32)), 2, 128)
    for kernel in (plain, signed):
        assert "div.rn.f32" not in compile_aot(kernel, "sm_90").text("ptx")
