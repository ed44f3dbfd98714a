"""Picks: the element that a position from data chooses goes along with the reductions over its row, so that the row needs no memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes import CLEAN_UP, Context, optimize

Array = Any

LOSS = """module @loss

func @main(%x: f32[6, 8], %w: f32[20, 8], %t: i64[6]) {
  %logits = compute f32[i: 6, v: 20] sum(k: 8) { %x[i, k] * %w[v, k] }
  %m = compute f32[i: 6] max(v: 20) { %logits[i, v] }
  %s = compute f32[i: 6] sum(v: 20) { exp(%logits[i, v] - %m[i]) }
  %target = compute i64[i: 6] { select(%t[i] != -100, %t[i], 0) }
  %loss = compute f32[i: 6] { select(%t[i] != -100, log(%s[i]) + %m[i] - %logits[i, PLACE], 0.0) }
  return %loss
}
"""


def fused(text: str) -> tuple[Module, list[Fusion]]:
    """The module with everything merged that can be, and its groups."""
    module = optimize(parse(text), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    return module, [op for op in module.main.body.ops if isinstance(op, Fusion)]


def run(module: Module, targets: list[int]) -> Array:
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((6, 8), (20, 8)))
    (found,) = evaluate(module, [x, w, np.array(targets)])
    return found


@pytest.mark.parametrize("place", ["%target[i]]", "(%target[i] + 3) % 20]", "%target[i] + 3] else -1.0"])
def test_a_loss_is_one_group_with_its_product(place: str) -> None:
    text = LOSS.replace("PLACE]", place)
    module, groups = fused(text)
    assert [value.name for group in groups for value in group.results] == ["loss"]
    targets = [0, 19, -100, 7, 7, -100]
    np.testing.assert_allclose(run(module, targets), run(parse(text), targets), rtol=1e-6, atol=1e-6)


def test_a_place_outside_gives_no_number_where_nothing_else_is_said() -> None:
    module, _ = fused(LOSS.replace("PLACE", "%target[i]"))
    np.testing.assert_array_equal(np.isnan(run(module, [0, 20, -1, 3, -100, 5])), [False, True, True, *[False] * 3])


def test_other_values_of_the_row_do_not_touch_the_one_picked() -> None:
    """Infinities and NaN elsewhere stay there."""
    text = """module @m

func @main(%x: f32[2, 4], %t: i64[2]) {
  %y = compute f32[i: 2, v: 4] max(k: 1) { %x[i, v] * 2.0 }
  %m = compute f32[i: 2] sum(v: 4) { %y[i, v] }
  %p = compute f32[i: 2] { select(%m[i] > 0.0, %y[i, %t[i]], %y[i, %t[i]]) }
  return %p
}
"""
    module, _ = fused(text)
    x = np.array([[np.inf, 1.0, np.nan, -np.inf], [3.0, np.nan, -np.inf, np.inf]], np.float32)
    (found,) = evaluate(module, [x, np.array([1, 0])])
    np.testing.assert_array_equal(found, [2.0, 6.0])


@pytest.mark.parametrize("rows", [1, 3])
def test_a_position_that_the_group_itself_computes(rows: int) -> None:
    """As of the weights of a mixture, taken in the order of a sort that is part of the kernel."""
    text = f"""module @m

func @main(%x: f32[{rows}, 4], %rank: i64[6]) {{
  %y = compute f32[v: {rows * 2}] max(k: 4) {{ %x[v // 2, k] * f32(v + 1) }}
  %top = compute f32[] max(v: {rows * 2}) {{ %y[v] }}
  %sum = compute f32[] sum(v: {rows * 2}) {{ exp(%y[v] - %top[]) }}
  %place = compute i64[i: 2] sum(r: 6) {{ select(%rank[r] == i, r % {rows * 2}, 0) }}
  %p = compute f32[i: 2] {{ exp(%y[%place[i]] - %top[]) / %sum[] }}
  return %place, %p
}}
"""
    module, _ = fused(text)
    x = np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32)
    rank = np.array([2, 3, 1, 5, 4, 0])
    for found, wanted in zip(evaluate(module, [x, rank]), evaluate(parse(text), [x, rank]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
