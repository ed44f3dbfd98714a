"""Clocks of single instructions and of the control processor, by hand."""

from __future__ import annotations

import math

import pytest

from codesign.backends.accelerator import simulate
from codesign.costmodel.dataflow import target_of
from codesign.costmodel.machine import load_machine
from codesign.ir.text.program import parse_program

MAIA = load_machine("maia100")
TARGET = target_of(MAIA)


def cycles(body: str) -> float:
    text = f"""
program @p(%x: f32[4096]) -> (%y: f32[4096]) on 1 cores {{
  scratch a: f32[4096] at 0
  scratch s: f32[] at 32768
{body}
}}"""
    return simulate(parse_program(text), None, MAIA, values=False).cycles


def test_a_reduction_ends_with_a_tree_across_the_lanes() -> None:
    """One slot a point: a sum of the points takes as long as their sums with something, and a step for each halving of the lanes."""
    plain = cycles("  vector a[i] [i: 4096] = a[i] + a[i]")
    reduced = cycles("  vector s[] [] reduce sum [i: 4096] = a[i]")
    assert max(TARGET.pipes["fma"].lanes.values()) == 128.0
    assert reduced - plain == pytest.approx(math.log2(128.0))


@pytest.mark.parametrize(("loop", "steps"), [
    ("for i in 0 to 600 step 1 { set v = i * 2 }", 600 * 2),
    ("for i in 0 to 300 step 1 { }", 300),
    ("for i in 0 to 20 step 1 { for j in 0 to 30 step 1 { set v = i + j } }", 20 * (1 + 30 * 2)),
    ("set v = 7", 1),
])  # fmt: skip
def test_each_step_of_the_control_processor_takes_its_clocks(loop: str, steps: int) -> None:
    instruction = "  vector a[i] [i: 64] = a[i] + a[i]"
    assert cycles(f"  {loop}\n{instruction}") - cycles(instruction) == pytest.approx(steps * TARGET.issue_clocks)
