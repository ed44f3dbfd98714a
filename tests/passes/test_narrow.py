"""Values that all their readers round are made in the narrower dtype."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Module
from codesign.ir.dtypes import BF16, F32
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute
from codesign.ir.text import parse
from codesign.passes import optimize

TABLES = """func @main(%a: f32[16], %x: bf16[16], %y: bf16[16]) {
  %c = compute f32[i: 16] { cos(%a[i]) }
  %p = compute f32[i: 16] { f32(bf16(%c[i])) * f32(%x[i]) }
  %q = compute f32[i: 16] { f32(bf16(%c[15 - i])) + f32(%y[i]) }
  return %p, %q
}"""


def narrowed(text: str) -> tuple[Module, Compute]:
    module = optimize(parse(text), pipeline="narrow")
    return module, next(op for op in module.main.body.ops if isinstance(op, Compute))


def test_what_all_readers_round_is_kept_rounded() -> None:
    module, made = narrowed(TABLES)
    assert made.dtype is BF16
    rng = np.random.default_rng(0)
    a = rng.standard_normal(16).astype(np.float32)
    x, y = (rng.standard_normal(16).astype(BF16.numpy) for _ in range(2))
    for found, wanted in zip(evaluate(module, [a, x, y]), evaluate(parse(TABLES), [a, x, y]), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("f32(bf16(%c[15 - i])) +", "%c[15 - i] +"),
        ("f32(bf16(%c[15 - i])) +", "f32(f16(%c[15 - i])) +"),
        ("f32(bf16(%c[15 - i])) +", ""),
        ("return %p,", "return %c, %p,"),
    ],
    ids=["one reads it whole", "two roundings", "one reader", "a result"],
)
def test_what_is_wanted_otherwise_stays(old: str, new: str) -> None:
    _, made = narrowed(TABLES.replace(old, new))
    assert made.dtype is F32
