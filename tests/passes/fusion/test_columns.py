"""Products that are read at several points of a dim: each part of the dim is a product of its own, in the reader's kernel."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.ir.tile import Dot
from codesign.ir.verify import verify
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.planning import Choices, plan_module

PRODUCT = """module @m

func @main(%x: f32[6, 8], %w: f32[32, 8], %c: f32[6, 16], %s: f32[6, 16]) {
  %p = compute f32[m: 6, n: 32] sum(k: 8) { %x[m, k] * %w[n, k] }
"""
READERS = {
    "halves of a head": """
  %o = compute f32[h: 2, m: 6, d: 16] {
    %p[m, h*16 + d] * %c[m, d] + select(d < 8, neg(%p[m, h*16 + d + 8] else 0.0), %p[m, h*16 + d - 8] else 0.0) * %s[m, d]
  }""",
    "halves of a head in digits": """
  %o = compute f32[h: 2, m: 6, s: 2, b: 8] {
    %p[m, h*16 + s*8 + b] * %c[m, s*8 + b]
      + select(s*8 + b < 8, neg(%p[m, h*16 + s*8 + b + 8] else 0.0), %p[m, h*16 + s*8 + b - 8] else 0.0) * %s[m, s*8 + b]
  }""",
    "pairs side by side": """
  %o = compute f32[h: 2, m: 6, d: 16] {
    %p[m, h*16 + d] * %c[m, d] + select(d % 2 < 1, neg(%p[m, h*16 + (d // 2)*2 + 1]), %p[m, h*16 + (d // 2)*2]) * %s[m, d]
  }""",
    "part of a head": """
  %o = compute f32[h: 2, m: 6, d: 16] {
    select(d < 8, select(d < 4, %p[m, h*16 + d] - (%p[m, h*16 + d + 4] else 0.0), %p[m, h*16 + d] + (%p[m, h*16 + d - 4] else 0.0)), %p[m, h*16 + d])
  }""",
    "a gate and a value": "%o = compute f32[m: 6, n: 16] { %p[m, n] / (1.0 + exp(neg(%p[m, n]))) * %p[m, n + 16] }",
    "two of four gates": "%o = compute f32[m: 6, n: 8] { tanh(%p[m, n + 8]) * %p[m, n + 24] }",
    "a sum over each head": """
  %q = compute f32[m: 6, h: 2] sum(d: 16) { %p[m, h*16 + d] * %p[m, h*16 + d] }
  %o = compute f32[m: 6, h: 2, d: 16] {
    (%p[m, h*16 + d] - select(d < 8, %p[m, h*16 + d + 8] else 0.0, %p[m, h*16 + d - 8] else 0.0)) * %q[m, h]
  }""",
    "the greatest of each head": """
  %q = compute f32[m: 6, h: 2] max(d: 16) { %p[m, h*16 + d] }
  %o = compute f32[m: 6, h: 2, d: 16] {
    (%p[m, h*16 + d] + select(d < 8, %p[m, h*16 + d + 8] else 0.0, %p[m, h*16 + d - 8] else 0.0)) * %q[m, h]
  }""",
    "side by side with another": "%o = compute f32[m: 6, n: 48] { select(n < 32, %p[m, n] else 0.0, %c[m, n - 32] else 0.0) }",
}


def fused(text: str) -> tuple[Module, list[Fusion]]:
    """The module with everything merged that can be, and its groups."""
    module = optimize(parse(text), Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    verify(module)
    return module, [op for op in module.main.body.ops if isinstance(op, Fusion)]


def assert_same(module: Module, text: str) -> None:
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in ((6, 8), (32, 8), (6, 16), (6, 16))]
    for found, wanted in zip(evaluate(module, inputs), evaluate(parse(text), inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", READERS)
def test_the_reader_is_one_group_with_the_product(name: str) -> None:
    text = f"{PRODUCT}{READERS[name]}\n  return %o\n}}\n"
    module, groups = fused(text)
    assert [value.name for group in groups for value in group.results] == ["o"]
    assert_same(module, text)


def test_each_element_of_the_product_is_made_once() -> None:
    """The parts are as many products as there are, each of so many columns."""
    _, (group,) = fused(f"{PRODUCT}{READERS['part of a head']}\n  return %o\n}}\n")
    products = [op for op in group.computes if op.reductions]
    columns = [int(np.prod([dim.extent.constant for dim in op.dims if dim.extent != 6])) for op in products]
    assert columns == [8, 8, 8, 8]


@pytest.mark.parametrize(
    "reader",
    [
        "%o = compute f32[m: 6, n: 32] { %p[m, n] + (%p[m, n + 1] else 0.0) }",
        "%o = compute f32[m: 6, n: 16] { %p[m, n] * %p[m, n + 8] }",
        "%o = compute f32[m: 6, n: 32] { %p[m, n] - %p[m, 31 - n] }",
    ],
    ids=["neighbours", "parts that overlap", "backwards"],
)
def test_points_that_are_no_parts_stay_apart(reader: str) -> None:
    text = f"{PRODUCT}{reader}\n  return %o\n}}\n"
    module, groups = fused(text)
    assert [value.name for group in groups for value in group.results] == ["p", "o"]
    assert_same(module, text)


def test_a_product_that_is_needed_elsewhere_stays_whole_in_memory() -> None:
    text = f"{PRODUCT}{READERS['halves of a head']}\n  return %o, %p\n}}\n"
    module, _ = fused(text)
    assert_same(module, text)


@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
def test_a_turned_projection_is_one_kernel_with_an_accumulator_for_each_half(machine: str) -> None:
    text = """func @main(%x: bf16[64, 32], %w: bf16[64, 32], %c: bf16[64, 32], %s: bf16[64, 32]) {
  %p = compute bf16[m: 64, n: 64] sum(k: 32) in f32 { f32(%x[m, k]) * f32(%w[n, k]) }
  %o = compute bf16[h: 2, m: 64, d: 32] {
    bf16(f32(%p[m, h*32 + d]) * f32(%c[m, d])
      + f32(select(d < 16, neg(%p[m, h*32 + d + 16] else 0.0:bf16), %p[m, h*32 + d - 16] else 0.0:bf16)) * f32(%s[m, d]))
  }
  return %o
}"""
    planned = plan_module(parse(text), load_machine(machine), Choices())
    (kernel,) = planned.module.kernels.values()
    dots = [op for op in kernel.body.walk() if isinstance(op, Dot)]
    assert len(dots) == 2


def test_rotated_keys_are_written_into_a_cache() -> None:
    """The halves are results in another shape than the product's dims: another group makes the write of the cache's rows."""
    text = PRODUCT.replace("@main(", "@main(%cache: f32[2, 12, 16], %at: i64[6], ") + READERS["halves of a head"]
    text += """
  %r = scatter set %cache over (h: 2, m: 6, d: 16) within [h, data(%at[m]), d] { %o[h, m, d] }
  return %r
}
"""
    module, _ = fused(text)
    rng = np.random.default_rng(3)
    shapes = [tuple(int(str(n)) for n in value.shape) for value in module.main.body.args]
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    inputs[1] = rng.permutation(12)[:6].astype(np.int64)
    for found, wanted in zip(evaluate(module, inputs), evaluate(parse(text), inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
