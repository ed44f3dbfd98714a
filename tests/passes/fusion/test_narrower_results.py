"""Results without a dim of the kernel's grid: one program writes them."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.ir.tile import Store
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.tile import lower
from tests.passes.tiling import groups

ATTENTION = """func @main(%q: f32[2, 32, 16], %k: f32[2, 48, 16], %v: f32[2, 48, 32]) {
  %s = compute f32[h: 2, i: 32, j: 48] sum(d: 16) { %q[h, i, d] * %k[h, j, d] }
  %m = compute f32[h: 2, i: 32] max(j: 48) { %s[h, i, j] }
  %t = compute f32[h: 2, i: 32] sum(j: 48) { exp(%s[h, i, j] - %m[h, i]) }
  %o = compute f32[h: 2, i: 32, e: 32] sum(j: 48) { exp(%s[h, i, j] - %m[h, i]) / %t[h, i] * %v[h, j, e] }
  %l = compute f32[h: 2, i: 32] { log(%t[h, i]) + %m[h, i] }
  return %o, %l
}"""


@pytest.mark.parametrize("width", [16, 32])
def test_attention_that_gives_its_log_sum_exp_too_is_one_kernel(width: int) -> None:
    module: Module = optimize(parse(ATTENTION), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    (group,) = (op for op in module.main.body.ops if isinstance(op, Fusion))
    (along,) = set(group.dims()) - {name for name in group.dims() if group.dims()[name] != 32} - {"i"}
    inner = {name: "fold" if group.dims()[name] == 48 else "resident" for name in group.inner_dims()}
    kernel = lower(group, Schedule(dict.fromkeys(group.dims(), 16) | {along: width, "h": 1}, reduce=inner))
    guarded = [bool(op.guards) for op in kernel.body.walk() if isinstance(op, Store)]
    assert sorted(guarded) == [False, width == 16]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 32, 16), (2, 48, 16), (2, 48, 32))]
    found = dict(zip((value.name for value in group.results), groups.run_tiles(kernel, inputs), strict=True))
    for name, wanted in zip("ol", evaluate(parse(ATTENTION), inputs), strict=True):
        (one,) = (array for given, array in found.items() if given.startswith(name))
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-5)


BLOCKS = """func @main(%x: f32[24, 6, 8, 32]) {
  %t = compute f32[h: 24, p: 6, b: 8] sum(r: 32) { %x[h, p, b, r] }
  %w = compute f32[h: 24, p: 6, q: 8] sum(b: 8) { select(b < q, %t[h, p, b], 0.0) }
  return %t, %w
}"""


def test_totals_of_blocks_and_their_running_sum_are_one_kernel() -> None:
    """The totals are results too, and go along the dim that the running sum goes over."""
    text = BLOCKS
    module: Module = optimize(parse(text), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    (group,) = (op for op in module.main.body.ops if isinstance(op, Fusion))
    x = np.random.default_rng(0).standard_normal((24, 6, 8, 32)).astype(np.float32)
    wanted = evaluate(parse(text), [x])
    (q,) = {op.dims[-1].name for op in group.computes if op.reductions and op.reductions[0].extent == 8}
    for width in (4, 8):
        tiles = dict.fromkeys(group.dims(), 4) | {q: width}
        kernel = lower(group, Schedule(tiles))
        for found, array in zip(groups.run_tiles(kernel, [x]), wanted, strict=True):
            np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-5)


def test_what_a_product_sums_over_is_no_result_of_its_kernel() -> None:
    text = """func @main(%x: f32[64, 16, 4], %w: f32[32, 16]) {
  %h = compute f32[i: 64, k: 16] sum(r: 4) { %x[i, k, r] }
  %y = compute f32[i: 64, n: 32] sum(k: 16) { %h[i, k] * %w[n, k] }
  return %h, %y
}"""
    module: Module = optimize(parse(text), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    assert sum(isinstance(op, Fusion) for op in module.main.body.ops) == 2
