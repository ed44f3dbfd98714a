"""New values of arguments in the memory of the old ones: when they may lie there, and what that leaves of results."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Constant
from codesign.ir.text import parse
from codesign.passes import Context, optimize
from codesign.passes.lowering import tile_module
from codesign.passes.memory import plan
from codesign.passes.schedule.tuner import Tuner

STEP = "%n = compute f32[i: 64, j: 32] { %w[i, j] - 0.5 * %g[i, j] }"
SUM = "%s = compute f32[i: 64] sum(j: 32) { %w[i, j] }"
PRODUCT = "%p = compute f32[i: 64, j: 32] sum(k: 64) { %a[i, k] * %g[k, j] }"
BY_PRODUCT = f"{PRODUCT}\n%n = compute f32[i: 64, j: 32] {{ %w[i, j] - 0.5 * %p[i, j] }}"
TOTAL = "%t = compute f32[] sum(i: 64, j: 32) { %n[i, j] }"
AFTER = f"{STEP}\n{TOTAL}\n%l = compute f32[i: 64, j: 32] {{ %w[63 - i, j] * %t[] }}"

RENEWED: dict[str, tuple[str, str, bool]] = {
    "each element by itself": (STEP, "%n", True),
    "with a product": (BY_PRODUCT, "%n", True),
    "without the old one": ("%n = compute f32[i: 64, j: 32] { %g[i, j] + 1.0 }", "%n", True),
    "of another element": ("%n = compute f32[i: 64, j: 32] { %w[63 - i, j] + %g[i, j] }", "%n", False),
    "of a row": (f"{SUM}\n%n = compute f32[i: 64, j: 32] {{ %s[i] + %g[i, j] }}", "%n", False),
    "the old one is returned": (STEP, "%n, %w", False),
    "the old one is read later": (AFTER, "%n, %l", False),
    "returned as itself too": (STEP, "%n, %n", False),
}
"""What makes the new value of `%w`, what is returned, and whether it may lie in the memory of the old one."""


@pytest.mark.parametrize("name", RENEWED)
def test_new_values_lie_where_old_ones_do(name: str) -> None:
    body, returned, inside = RENEWED[name]
    module = parse(
        f"func @main(%w: f32[64, 32], %g: f32[64, 32], %a: f32[64, 64]) updates (0: %w) {{\n{body}\nreturn {returned}\n}}"
    )
    machine = load_machine("h100_sxm")
    tuner = Tuner(machine, budget=8)
    tiled = optimize(module, Context(machine=machine, pricer=tuner.price))
    tile_module(tiled, tuner)
    memory = plan(tiled.main, kernels=tiled.kernels)
    new = tiled.main.results[0]
    assert (memory.in_place.get(new) is tiled.main.args[0]) == inside
    assert memory.output_bytes == (64 * 32 * 4) * (len(set(tiled.main.results) - set(tiled.main.args)) - inside)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in ((64, 32), (64, 32), (64, 64))]
    for found, wanted in zip(evaluate(tiled, inputs), evaluate(module, inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_a_run_writes_is_no_constant() -> None:
    text = """
func @main(%x: f32[4]) updates (0: "calls") {
  %c = constant "calls" : f32[4]
  %k = constant "kept" : f32[4]
  %n = compute f32[i: 4] { %c[i] + 1.0 }
  %m = compute f32[i: 4] { %k[i] + 1.0 }
  %y = compute f32[i: 4] { %x[i] * %n[i] + %m[i] }
  return %n, %y
}
"""
    module = parse(text)
    module.constants |= {"calls": np.arange(4, dtype=np.float32) ** 2, "kept": np.ones(4, np.float32)}
    folded = optimize(module, pipeline="constant-fold,dce")
    names = {op.constant for op in folded.main.body.ops if isinstance(op, Constant)}
    assert names == {"calls", "folded.m"}
    folded.constants["calls"] = np.full(4, 7, np.float32)
    np.testing.assert_array_equal(evaluate(folded, [np.ones(4, np.float32)])[0], np.full(4, 8))
