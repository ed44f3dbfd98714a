"""Short scans and sorts as reductions: the same values as those of the operations themselves, and only where they are short."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute, Fusion, Scan, Sort
from codesign.ir.text import parse
from codesign.passes import CLEAN_UP, Context, optimize

nan, inf = float("nan"), float("inf")
ROWS = np.array(
    [[2, nan, -0.0, 0.0, inf, 2, nan], [3, 1, 2, 3, 1, 2, 3], [-inf, 0, -0.0, -inf, 5, 5, -1], [nan] * 7], np.float32
)


def evaluated(text: str, x: npt.NDArray[np.generic], *, steps: int) -> list[npt.NDArray[np.generic]]:
    module = optimize(parse(text), Context(), pipeline=f"orders{{steps={steps}}}")
    left = any(isinstance(op, (Scan, Sort)) for op in module.main.body.ops)
    assert left == (steps == 0)
    return evaluate(module, [x])


def same(text: str, x: npt.NDArray[np.generic]) -> None:
    for got, want in zip(evaluated(text, x, steps=1 << 20), evaluated(text, x, steps=0), strict=True):
        np.testing.assert_array_equal(got, want)
        if got.dtype.kind == "f" and "sort" in text:
            np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(want[want == 0]))


def sort(kind: str, rest: str, keep: int) -> str:
    return f"""
    func @main(%x: {kind}[4, 7]) {{
      %v, %p = sort %x {rest}
      return %v, %p
    }}"""


@pytest.mark.parametrize("order", ["", " descending"])
def test_sorts_with_infinities_nan_and_equal_elements(order: str) -> None:
    same(sort("f32", f"dim 1{order}", 7), ROWS)
    same(sort("f32", f"dim 1{order} keep 3", 3), ROWS)
    same(sort("i32", f"dim 1{order} keep 5", 5), np.nan_to_num(ROWS, nan=4, posinf=9, neginf=-9).astype(np.int32))
    same(sort("bool", f"dim 1{order}", 7), ROWS > 1)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_first_few_of_a_row_one_after_the_other(keep: int) -> None:
    """With infinities, NaN, zeros of both signs and equal elements, in every order that a small row has them."""
    row = np.array([-inf, 2, -inf, nan, 0.0, -0.0, 2, inf, nan, -inf, -1, -inf], np.float32)
    x = np.stack([row, row[::-1], np.full(12, -inf, np.float32), np.where(np.isnan(row), -inf, row)])
    text = sort("f32", f"dim 1 descending keep {keep}", keep).replace("4, 7", "4, 12")
    assert "sort" not in str(optimize(parse(text), Context(), pipeline="orders").main.body.ops)
    same(text, x)
    few = sort("i32", f"dim 0 descending keep {keep}", keep).replace("4, 7", "12, 4")
    same(few, np.nan_to_num(x.T, nan=4, posinf=9, neginf=-(2**31)).astype(np.int32))


@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("over", ["i", "j"])
def test_running_reductions(monoid: str, over: str) -> None:
    kind = "i64" if monoid.startswith("arg") else "f32"
    text = f"""
    func @main(%x: f32[4, 7]) {{
      %r = scan {kind}[i: 4, j: 7] {monoid} over {over} {{ %x[i, j] * 2.0 }}
      return %r
    }}"""
    same(text, np.nan_to_num(ROWS, nan=4, posinf=8, neginf=-8))
    if monoid in ("max", "min", "argmax", "argmin"):
        same(text, ROWS)


def test_long_ones_stay() -> None:
    text = """
    func @main(%x: f32[4096, 4096]) {
      %r = scan f32[i: 4096, j: 4096] sum over j { %x[i, j] }
      return %r
    }"""
    kept = optimize(parse(text), Context(), pipeline="orders")
    assert any(isinstance(op, Scan) for op in kept.main.body.ops)


def test_of_an_unknown_number_of_rows_only_the_short_ones_change() -> None:
    def changed(length: int) -> bool:
        text = f"""
        module @m
        symbol n: 1 to 4096
        func @main(%x: f32[n, {length}]) {{
          %r = scan f32[i: n, j: {length}] sum over j {{ %x[i, j] }}
          return %r
        }}"""
        module = optimize(parse(text), Context(), pipeline="orders")
        return any(isinstance(op, Compute) for op in module.main.body.ops)

    assert changed(64)
    assert not changed(65)


def test_a_softmax_and_the_first_few_of_it_are_one_group() -> None:
    text = """
    func @main(%x: f32[12, 16]) {
      %m = compute f32[i: 12] max(j: 16) { %x[i, j] }
      %s = compute f32[i: 12] sum(j: 16) { exp(%x[i, j] - %m[i]) }
      %y = compute f32[i: 12, j: 16] { exp(%x[i, j] - %m[i]) / %s[i] }
      %v, %p = sort %y dim 1 descending keep 2
      return %v, %p
    }"""
    module = optimize(parse(text), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    assert [type(op) for op in module.main.body.ops] == [Fusion]
    x = np.random.default_rng(4).standard_normal((12, 16)).astype(np.float32)
    for found, wanted in zip(evaluate(module, [x]), evaluate(parse(text), [x]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
