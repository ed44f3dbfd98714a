"""Short scans and sorts as reductions: the same values as those of the operations themselves, and only where they are short."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

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


@pytest.mark.parametrize("keep", [1, 3, 4, 7, 16])
@pytest.mark.parametrize(
    ("length", "kind"), [(1025, "f32"), (1500, "f16"), (4096, "f32"), (5000, "i32"), (2000, "f64"), (1100, "u8")]
)
@pytest.mark.parametrize("dim", [0, 1])
def test_the_first_few_of_a_long_row_are_looked_for_in_parts(length: int, kind: str, keep: int, dim: int) -> None:
    """With many equal elements, zeros of both signs and rows that end in a part of their own, all of it minus infinity or not."""
    rng = np.random.default_rng(length + keep)
    kinds = {"f32": np.float32, "f16": np.float16, "f64": np.float64, "i32": np.int32, "u8": np.uint8}
    x = rng.integers(0 if kind == "u8" else -6, 7, (5, length)).astype(kinds[kind])
    if kind[0] == "f":
        x[rng.random(x.shape) < 0.1] = -0.0
        x[1, rng.random(length) < 0.5] = -inf
        x[2] = -inf
        x[2, -1] = -0.0
        x[3, [7, 99, length - 3]] = nan
        x[4] = -inf
    shape = (5, length) if dim else (length, 5)
    text = sort(kind, f"dim {dim} descending keep {keep}", keep).replace("4, 7", ", ".join(map(str, shape)))
    same(text, x if dim else x.T)


@pytest.mark.parametrize(("length", "keep"), [(1 << 18, 16), (1 << 20, 4), (1024, 17), (1 << 15, 17)])
def test_more_than_a_few_and_rows_beyond_parts_that_a_program_holds_stay_sorts(length: int, keep: int) -> None:
    text = sort("f32", f"dim 1 descending keep {keep}", keep).replace("4, 7", f"4096, {length}")
    module = optimize(parse(text), Context(), pipeline="orders")
    assert [type(op) for op in module.main.body.ops] == [Sort]


@given(
    st.integers(1, 16), st.integers(4, 3000), st.sampled_from(["f32", "f64", "i32", "i64", "i8"]), st.integers(0, 99)
)
@settings(max_examples=40, deadline=None, derandomize=True, phases=(Phase.generate,))
def test_the_first_few_of_any_row(keep: int, length: int, kind: str, seed: int) -> None:
    """Of few values, of all of them, and of the least and the greatest."""
    keep = min(keep, length // 4)
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 4, (3, length)).astype(np.dtype(kind.replace("f", "float").replace("i", "int")))
    ends = np.iinfo(x.dtype) if kind[0] == "i" else np.finfo(x.dtype)
    x[1] = rng.permutation(np.linspace(-100, 100, length)).astype(x.dtype)
    x[2, rng.random(length) < 0.5] = ends.min
    x[0, rng.random(length) < 0.01] = ends.max
    if kind[0] == "f":
        x[:, rng.random(length) < 0.1] *= -0.0
    same(sort(kind, f"dim 1 descending keep {keep}", keep).replace("4, 7", f"3, {length}"), x)


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


@pytest.mark.parametrize("steps", [8, 300, 20_000])
@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "min", "argmax", "argmin", "logsumexp"])
@pytest.mark.parametrize(("rows", "along"), [(2, 96), (3, 37)])
def test_long_running_reductions_in_blocks_of_blocks(monoid: str, steps: int, rows: int, along: int) -> None:
    kind = "i64" if monoid.startswith("arg") else "f32"
    text = f"""
    func @main(%x: f32[{rows}, {along}]) {{
      %r = scan {kind}[i: {rows}, j: {along}] {monoid} over j {{ %x[i, j] * 2.0 }}
      return %r
    }}"""
    x = np.random.default_rng(along).integers(-3, 4, (rows, along)).astype(np.float32)
    if monoid == "prod":
        x = np.where(x > 0, np.float32(1), np.float32(0.5)) * np.sign(x + 0.5).astype(np.float32)
    elif monoid != "sum":
        x[0, along // 2], x[1, -1], x[1, : along // 2], x[0, 3] = nan, inf, -inf, 9
    module = optimize(parse(text), Context(), pipeline=f"orders{{steps={steps}}}")
    assert all(isinstance(op, Compute) for op in module.main.body.ops)
    blocks = [op for op in module.main.body.ops if op.result.name.endswith("_blocks")]
    assert len(blocks) >= {8: along // 48, 300: 1, 20_000: 0}[steps]
    (found,), (wanted,) = evaluate(module, [x]), evaluate(parse(text), [x])
    np.testing.assert_allclose(found, wanted, rtol=4e-6 if monoid == "logsumexp" else 0)


def test_a_block_of_a_long_scan_is_as_long_as_pays() -> None:
    """Each element is combined with its block: few of many rows, many of a few."""

    def longest(rows: int) -> int:
        text = f"""
        func @main(%x: f32[{rows}, 4096]) {{
          %r = scan f32[i: {rows}, j: 4096] sum over j {{ %x[i, j] }}
          return %r
        }}"""
        module = optimize(parse(text), Context(), pipeline="orders")
        made = [op for op in module.main.body.ops if isinstance(op, Compute)]
        return max(dim.extent.constant for op in made for dim in op.reductions)

    assert longest(1) == 4096
    assert longest(4096) <= 64


def test_of_an_unknown_number_of_rows_long_ones_go_in_blocks_and_unknown_lengths_stay() -> None:
    def made(length: int | str) -> list[str]:
        text = f"""
        module @m
        symbol n: 1 to 4096
        func @main(%x: f32[n, {length}]) {{
          %r = scan f32[i: n, j: {length}] sum over j {{ %x[i, j] }}
          return %r
        }}"""
        module = optimize(parse(text), Context(), pipeline="orders")
        return [f"{op.opcode} {op.results[0].name}" for op in module.main.body.ops]

    assert made(64) == ["compute r"]
    assert "compute r_total" in made(65)
    assert made("n") == ["scan r"]


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
