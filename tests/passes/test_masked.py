"""What masks leave nothing of in a stored value: sums that read it say so, where it is certain, and find the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from codesign.ir.index import Bounds
from codesign.ir.interpreter import evaluate
from codesign.ir.reach import reaches
from codesign.ir.scalar import Apply
from codesign.ir.tensor import Compute
from codesign.ir.text import parse
from codesign.passes import Context, optimize

ROWS, COLUMNS = 12, 12


def gradients(mask: str, rows: int = ROWS, columns: int = COLUMNS, low: str = "-inf", readers: str = "both") -> str:
    """Softmax of masked scores, and two sums that read it: along its columns and along its rows."""
    results = {"both": "%a, %b", "one": "%b"}[readers]
    return f"""
    func @main(%s: f32[{rows}, {columns}], %g: f32[{rows}, 4], %v: f32[{columns}, 4]) {{
      %m = compute f32[i: {rows}] max(j: {columns}) {{ select({mask}, %s[i, j], {low}) }}
      %e = compute f32[i: {rows}, j: {columns}] {{ exp(select({mask}, %s[i, j], {low}) - %m[i]) }}
      %t = compute f32[i: {rows}] sum(j: {columns}) {{ %e[i, j] }}
      %p = compute f32[i: {rows}, j: {columns}] {{ %e[i, j] / %t[i] }}
      %a = compute f32[i: {rows}, d: 4] sum(j: {columns}) {{ %p[i, j] * %v[j, d] }}
      %b = compute f32[j: {columns}, d: 4] sum(i: {rows}) {{ %p[i, j] * %g[i, d] }}
      return {results}
    }}"""


def sums(text: str) -> dict[str, Compute]:
    module = optimize(parse(text), Context(), pipeline="dce,masked-reads")
    return {op.result.name: op for op in module.main.body.ops if isinstance(op, Compute)}


def asks(op: Compute) -> bool:
    return any(isinstance(node, Apply) and node.function == "select" for node in op.body.walk())


@pytest.mark.parametrize("mask", ["j <= i", "(j <= i) & (i < index(j + 3))", "not(i < j)", "(j == i) | (j < 2)"])
def test_sums_along_rows_and_columns_leave_out_what_is_masked(mask: str) -> None:
    found = sums(gradients(mask))
    assert asks(found["a"])
    assert asks(found["b"])
    for name, dim in (("a", "j"), ("b", "i")):
        one = found[name]
        assert dim in reaches([one], {one.result}, Bounds())
    x = [np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((12, 12), (12, 4), (12, 4))]
    text = gradients(mask)
    module = optimize(parse(text), Context(), pipeline="masked-reads")
    for got, want in zip(evaluate(module, x), evaluate(parse(text), x), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("mask", "low", "rows", "readers"),
    [
        ("j < i", "-inf", ROWS, "both"),  # the first row is masked whole: NaN
        ("j <= i", "-1e4", ROWS, "both"),  # small, but not zero
        ("j <= i", "-inf", 30, "one"),  # goes into its reader's kernel
        ("index(j + 20) <= i", "-inf", 30, "both"),
        ("i >= 5", "-inf", ROWS, "both"),  # rows that are masked whole, and every column has others
        ("%s[i, j] > 0.0", "-inf", ROWS, "both"),  # data
    ],
)
def test_what_is_not_certain_stays(mask: str, low: str, rows: int, readers: str) -> None:
    found = sums(gradients(mask, rows=rows, low=low, readers=readers))
    assert not any(asks(found[name]) for name in ("a", "b") if name in found)


def test_maxima_over_another_dim_than_the_mask_has() -> None:
    """Softmax along heads: what is masked is masked for all of them."""
    text = """
    func @main(%s: f32[3, 12, 12], %g: f32[12, 4]) {
      %m = compute f32[i: 12, j: 12] max(h: 3) { select(j <= i, %s[h, i, j], -inf) }
      %p = compute f32[h: 3, i: 12, j: 12] { exp(select(j <= i, %s[h, i, j], -inf) - %m[i, j]) }
      %a = compute f32[h: 3, i: 12, d: 4] sum(j: 12) { %p[h, i, j] * %g[j, d] }
      %b = compute f32[h: 3, j: 12, d: 4] sum(i: 12) { %p[h, i, j] * %g[i, d] }
      return %a, %b
    }"""
    assert not asks(sums(text)["b"])


@given(
    st.integers(-6, 6), st.integers(-6, 6), st.integers(2, 14), st.integers(2, 14), st.booleans(), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None, derandomize=True, phases=(Phase.generate,))
def test_sums_of_masked_values_stay_what_they_are(
    after: int, before: int, rows: int, columns: int, either: bool, seed: int
) -> None:
    """Bands and what is outside of them, also with rows and columns that are masked whole."""
    mask = f"(index(j - i) <= {after}) {'|' if either else '&'} (index(j - i) >= {before})".replace(">= -", ">= 0 - ")
    text = gradients(mask.replace("<= -", "<= 0 - "), rows, columns)
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(shape).astype(np.float32) for shape in ((rows, columns), (rows, 4), (columns, 4))]
    module = optimize(parse(text), Context(), pipeline="masked-reads")
    for got, want in zip(evaluate(module, x), evaluate(parse(text), x), strict=True):
        np.testing.assert_array_equal(got, want)
