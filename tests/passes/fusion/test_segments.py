"""Reductions over a concatenation: each part is reduced by itself, in the kernel that makes it."""

from __future__ import annotations

import numpy as np

from codesign.ir.fold import folds
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.ir.verify import verify
from codesign.passes import CLEAN_UP, Context, optimize

SINK = """func @main(%q: f32[2, 6, 4], %k: f32[2, 9, 4], %v: f32[2, 9, 4], %sink: f32[2, 1]) {
  %s = compute f32[h: 2, i: 6, j: 9] sum(d: 4) { %q[h, i, d] * %k[h, j, d] }
  %c = compute f32[h: 2, i: 6, j: 10] { select(j < 9, %s[h, i, j] else 0.0, %sink[h, j - 9] else 0.0) }
  %m = compute f32[h: 2, i: 6] max(j: 10) { %c[h, i, j] }
  %t = compute f32[h: 2, i: 6] sum(j: 10) { exp(%c[h, i, j] - %m[h, i]) }
  %p = compute f32[h: 2, i: 6, j: 10] { exp(%c[h, i, j] - %m[h, i]) / %t[h, i] }
  %o = compute f32[h: 2, i: 6, e: 4] sum(j: 9) { %p[h, i, j] * %v[h, j, e] }
  return %o
}"""


def test_attention_with_a_score_more_is_one_group_in_one_pass() -> None:
    """As of models whose softmax has a score that takes weight from the keys (gpt-oss)."""
    module = optimize(parse(SINK), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    verify(module)
    (group,) = (op for op in module.main.body.ops if isinstance(op, Fusion))
    assert any(len(fold.parts) == 3 for fold in folds(group))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s).astype(np.float32) for s in ((2, 6, 4), (2, 9, 4), (2, 9, 4), (2, 1))]
    np.testing.assert_allclose(evaluate(module, inputs)[0], evaluate(parse(SINK), inputs)[0], rtol=1e-5, atol=1e-6)


def test_a_concatenation_that_is_a_result_stays_whole() -> None:
    text = SINK.replace("return %o", "return %o, %c")
    module = optimize(parse(text), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s).astype(np.float32) for s in ((2, 6, 4), (2, 9, 4), (2, 9, 4), (2, 1))]
    for found, wanted in zip(evaluate(module, inputs), evaluate(parse(text), inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
