"""Groups that share no loop become one launch, last of all and where that pays."""

from __future__ import annotations

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Module
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.ir.tiling.strands import strands
from codesign.passes import CLEAN_UP, Context, optimize

PROJECTIONS = """func @main(%x: bf16[512, 1024], %q: bf16[1024, 1024], %k: bf16[256, 1024], %v: bf16[256, 1024], %p: f32[512, 32]) {
  %a = compute bf16[i: 512, j: 1024] sum(k: 1024) in f32 { f32(%x[i, k]) * f32(%q[j, k]) }
  %b = compute bf16[i: 512, j: 256] sum(k: 1024) in f32 { f32(%x[i, k]) * f32(%k[j, k]) }
  %e = compute bf16[i: 512, j: 256] { tanh(%b[i, j]) }
  %c = compute bf16[i: 512, j: 256] sum(k: 1024) in f32 { f32(%x[i, k]) * f32(%v[j, k]) }
  return %a, %e, %c
}"""
GATED = """func @main(%x: bf16[512, 1024], %g: bf16[2048, 1024], %u: bf16[2048, 1024]) {
  %a = compute bf16[i: 512, j: 2048] sum(k: 1024) in f32 { f32(%x[i, k]) * f32(%g[j, k]) }
  %b = compute bf16[i: 512, j: 2048] sum(k: 1024) in f32 { f32(%x[i, k]) * f32(%u[j, k]) }
  %o = compute bf16[i: 512, j: 2048] { tanh(%a[i, j]) * %b[i, j] }
  return %o
}"""


def fused(text: str, options: str = "", machine: str = "h100_sxm") -> list[Fusion]:
    module: Module = optimize(parse(text), Context(load_machine(machine)), pipeline=f"{CLEAN_UP},fuse{{{options}}}")
    return [op for op in module.main.body.ops if isinstance(op, Fusion)]


@pytest.mark.parametrize("policy", ["greedy", "dp"])
def test_products_of_one_operand_are_one_launch_each_with_its_epilogue(policy: str) -> None:
    (group,) = fused(PROJECTIONS, f"policy={policy}")
    assert [len(strand.fusion.computes) for strand in strands(group)] == [1, 2, 1]
    assert len(group.results) == 3


def test_not_without_a_policy_nor_when_told_not_to_nor_on_an_accelerator() -> None:
    assert len(fused(PROJECTIONS, "policy=none")) == 4
    assert len(fused(PROJECTIONS, "beside=false")) == 3
    assert len(fused(PROJECTIONS, machine="maia100")) == 3


def test_what_can_share_its_loops_does() -> None:
    """Gate and up become one loop nest of two products, whose operand is read once, and no two strands."""
    (group,) = fused(GATED)
    assert len(strands(group)) == 1
    assert len(group.inner_dims()) == 1
