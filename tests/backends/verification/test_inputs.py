"""Inputs that groups are checked on: divisors without zeros, indices that stay inside, functions met where they are defined."""

from collections.abc import Callable

import numpy as np
import pytest

from codesign.backends.verification import compare
from codesign.backends.verification.inputs import random_inputs
from codesign.backends.verification.special import sprinkled
from codesign.ir.core import Block, Value
from codesign.ir.dtypes import F32, I32, I64, DType
from codesign.ir.index import Datum, Index, index
from codesign.ir.interpreter import evaluate_block
from codesign.ir.scalar import Read, Scalar, apply, cast
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.types import tensor
from codesign.passes.normalize import normalize


def group(dtype: DType, arity: int, body: Callable[..., Scalar]) -> Fusion:
    values = [Value(tensor(dtype, 400), f"v{i}") for i in range(arity)]
    y = Compute([Dim("i", index(400))], body(*[Read(value, ["i"]) for value in values]), name="y")
    return Fusion(Block([], [y], [y.result]))


@pytest.mark.parametrize("function", ["floordiv", "truncdiv", "mod", "fmod"])
def test_integer_divisors_are_not_zero(function: str) -> None:
    fusion = group(I32, 2, lambda a, b: apply(function, cast(a, I64), cast(b, I64)))
    for seed in range(5):
        dividend, divisor = random_inputs(fusion, {}, np.random.default_rng(seed))
        assert (divisor != 0).all()
        assert (divisor < 0).any()
        assert (dividend == 0).any()


def test_floats_that_index_stay_inside() -> None:
    table, where = Value(tensor(F32, 7), "table"), Value(tensor(F32, 400), "where")
    row = Index.atom(Datum(cast(Read(where, ["i"]), I64)))
    y = Compute([Dim("i", index(400))], Read(table, [row]), name="y")
    fusion = Fusion(Block([], [y], [y.result]))
    drawn = random_inputs(fusion, {}, np.random.default_rng(0))
    places = drawn[fusion.uses().index(where)]
    assert places.min() >= 0
    assert len(np.unique(places.astype(int))) > 3
    assert places.max() < 7
    assert np.array_equal(sprinkled(fusion, drawn, {}, np.random.default_rng(0))[fusion.uses().index(where)], places)


@pytest.mark.parametrize("function", ["sqrt", "log", "asin", "acosh", "atanh", "erfinv"])
def test_functions_of_half_a_line_are_compared_as_numbers(function: str) -> None:
    """One that is right for NaN only does not pass: enough of the results are numbers."""
    problem = normalize(group(F32, 1, lambda a: apply(function, a)))
    seen = []

    def run(arrays: list[np.ndarray], sizes: object) -> list[np.ndarray]:
        env = dict(zip(problem.fusion.uses(), arrays, strict=True))
        with np.errstate(all="ignore"):
            evaluate_block([problem.fusion], env, {})
        results = [env[value] for value in problem.fusion.results]
        seen.append(np.isfinite(results[0]).mean())
        return results

    assert compare(problem, run, sizes={}, seed=1).ok
    assert seen[0] > 0.8


def test_special_values_are_among_the_inputs() -> None:
    fusion = group(F32, 1, lambda a: apply("add", a, a))
    (plain,) = random_inputs(fusion, {}, np.random.default_rng(0))
    (values,) = sprinkled(fusion, [plain], {}, np.random.default_rng(0))
    assert np.isnan(values).any()
    assert (values == np.inf).any()
    assert (values == -np.inf).any()
    assert ((values == 0) & np.signbit(values)).any()
    assert (values == np.finfo(np.float32).max).any()
    assert (np.abs(values) == np.finfo(np.float32).smallest_subnormal).any()
    assert (values == plain).mean() > 0.7


def test_what_is_undefined_is_not_compared() -> None:
    """A float that no integer holds: whatever a machine makes of it is right; what it makes of others is not."""
    problem = normalize(group(F32, 1, lambda a: cast(a, I32)))

    def run(change: int, undefined: int) -> bool:
        def result(arrays: list[np.ndarray], sizes: object) -> list[np.ndarray]:
            bad = ~(np.abs(arrays[0]) < 2.0**31)
            assert bad.any()
            with np.errstate(all="ignore"):
                return [np.where(bad, undefined, arrays[0].astype(np.int32) + change).astype(np.int32)]

        return compare(problem, result, sizes={}, seed=1).ok

    assert run(0, 0)
    assert run(0, 123)
    assert not run(1, 0)


def product(function: str) -> Fusion:
    a, b = Value(tensor(F32, 8, 16), "a"), Value(tensor(F32, 16, 8), "b")
    body = apply(function, Read(a, ["i", "r"]), Read(b, ["r", "j"]))
    dims, reductions = [Dim("i", index(8)), Dim("j", index(8))], [Dim("r", index(16))]
    y = Compute(dims, body, reductions=reductions, monoid="sum", name="y")
    return Fusion(Block([], [y], [y.result]))


@pytest.mark.parametrize("function", ["mul", "mul_tf32"])
def test_no_denormals_meet_infinities_where_factors_are_rounded(function: str) -> None:
    """To zero a unit may round them, and an infinity makes NaN of zero."""
    fusion, rng = product(function), np.random.default_rng(0)
    drawn = sprinkled(fusion, random_inputs(fusion, {}, rng), {}, rng)
    small = [bool(((array != 0) & (np.abs(array) < 2.0**-126)).any()) for array in drawn]
    assert all(np.isinf(array).any() for array in drawn)
    assert small == [function == "mul"] * 2


def test_an_index_that_lies_outside_at_an_edge_is_drawn_alike_everywhere() -> None:
    """A place in a window of three by which a padded row of 20 is read: the first window has no first place, the last no last one."""
    where, row = Value(tensor(I64, 10), "where"), Value(tensor(F32, 20), "row")
    place = index("i") * 2 - 1 + Index.atom(Datum(Read(where, ["i"])))
    y = Compute([Dim("i", index(10))], Read(row, [place]), name="y")
    problem = normalize(Fusion(Block([], [y], [y.result])))
    uses = [value.name for value in problem.fusion.uses()]

    def run(arrays: list[np.ndarray], sizes: object) -> list[np.ndarray]:
        given = dict(zip(uses, arrays, strict=True))
        return [given["row"][np.arange(10) * 2 - 1 + given["where"]]]

    checked = compare(problem, run, sizes={}, seed=1)
    assert checked.ok, checked.message
