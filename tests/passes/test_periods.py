"""Values that repeat along a dim are made for one period."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute
from codesign.ir.text import parse
from codesign.passes import optimize

TABLES = """func @main(%a: f32[3, 4], %x: f32[3, 8]) {
  %c = compute f32[i: 3, j: 8] { cos(select(j < 4, %a[i, j] else 0.0, %a[i, j - 4] else 0.0)) }
  %o = compute f32[i: 3, j: 8] { %x[i, j] * %c[i, j] }
  return %o
}"""


def sizes(module: Module) -> list[list[int]]:
    computes = [op for op in module.main.body.ops if isinstance(op, Compute)]
    return [[dim.extent.constant for dim in op.dims] for op in computes]


def test_two_equal_halves_are_one() -> None:
    module = optimize(parse(TABLES), pipeline="canonicalize,periods,dce")
    assert sizes(module) == [[3, 4], [3, 8]]
    a, x = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((3, 4), (3, 8)))
    np.testing.assert_array_equal(evaluate(module, [a, x])[0], evaluate(parse(TABLES), [a, x])[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [("%a[i, j - 4] else", "%a[i, 7 - j] else"), ("j < 4, %a[i, j] else 0.0, %a[i, j - 4]", "j < 5, %a[i, j] else 0.0, %a[i, j - 5]"),
     ("return %o", "return %o, %c")],
    ids=["another half", "no whole period", "a result"],
)  # fmt: skip
def test_what_does_not_repeat_or_is_a_result_stays(old: str, new: str) -> None:
    module = optimize(parse(TABLES.replace(old, new)), pipeline="canonicalize,periods,dce")
    assert sizes(module) == [[3, 8], [3, 8]]
