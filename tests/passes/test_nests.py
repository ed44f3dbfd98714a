"""Reductions of whole tensors row by row: where results of rows enter, and nowhere else, with the values that they had."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.fold import folds
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.text import parse
from codesign.passes import CLEAN_UP, Context, optimize

TEXT = """
func @main(%x: f32[6, 5, 7]) {{
  %m = compute f32[i: 6, k: 5] max(j: 7) {{ %x[i, k, j] }}
  %e = compute f32[i: 6, k: 5, j: 7] {{ exp(%x[i, k, j] - %m[i, k]) }}
  %t = compute f32[{dims}] {reduction} {{ %e[i, k, j] * %x[i, k, j] }}
  return %t
}}"""


@pytest.mark.parametrize(
    ("dims", "reduction", "counts"),
    [
        ("", "sum(i: 6, k: 5, j: 7)", [1, 2]),
        ("a: 1, b: 1", "sum(i: 6, k: 5, j: 7)", [1, 2]),
        ("k: 5", "sum(j: 7, i: 6)", [1, 1]),
        ("k: 5", "max(i: 6, j: 7)", [1, 1]),
        ("j: 7", "sum(i: 6, k: 5)", [2]),
    ],
)
def test_rows_come_first(dims: str, reduction: str, counts: list[int]) -> None:
    text = TEXT.format(dims=dims, reduction=reduction)
    module = optimize(parse(text), Context(), pipeline=f"{CLEAN_UP}")
    computes = [op for op in module.main.body.ops if isinstance(op, Compute)]
    assert [len(op.reductions) for op in computes if op.reductions][1:] == counts
    x = np.random.default_rng(6).standard_normal((6, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(evaluate(module, [x])[0], evaluate(parse(text), [x])[0], rtol=1e-5)


def test_then_the_sum_along_a_row_folds_with_what_it_needs() -> None:
    text = TEXT.format(dims="", reduction="sum(i: 6, k: 5, j: 7)")
    module = optimize(parse(text), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    (fusion,) = (op for op in module.main.body.ops if isinstance(op, Fusion))
    assert [len(fold.parts) for fold in folds(fusion)] == [2]


NORMED = """
func @main(%x: f32[2, 4, 3, 36], %w: {weight}) {{
  %m = compute f32[n: 2, g: 4] sum(c: 3, p: 36) {{ %x[n, g, c, p] }}
  %y = compute f32[n: 2, g: 4, c: 3, p: 36] {{ %x[n, g, c, p] - %m[n, g] }}
  %t = compute {product}
  return %t
}}"""


@pytest.mark.parametrize(
    ("weight", "product"),
    [
        ("f32[5, 4, 3]", "f32[n: 2, o: 5, p: 36] sum(g: 4, c: 3) { %y[n, g, c, p] * %w[o, g, c] }"),
        ("f32[5, 4, 3, 3]", "f32[n: 2, o: 5, p: 34] sum(g: 4, c: 3, r: 3) { %y[n, g, c, p + r] * %w[o, g, c, r] }"),
        ("f32[2, 5, 36]", "f32[o: 5, g: 4, c: 3] sum(n: 2, p: 36) { %y[n, g, c, p] * %w[n, o, p] }"),
    ],
    ids=["product", "convolution", "its weight's gradient"],
)
def test_products_of_normed_rows_stay_whole(weight: str, product: str) -> None:
    module = optimize(parse(NORMED.format(weight=weight, product=product)), Context(), pipeline=f"{CLEAN_UP}")
    assert [len(op.reductions) for op in module.main.body.ops if isinstance(op, Compute) and op.reductions] == [
        2,
        product.split("sum(")[1].split(")")[0].count(":"),
    ]
