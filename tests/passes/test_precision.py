"""Products of float32 settled for a machine."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute
from codesign.ir.text import parse
from codesign.passes.context import Context
from codesign.passes.manager import PassManager, parse_pipeline

PRODUCT = "compute f32[i: 32, j: 32] sum(k: 32) { mul_tf32(%x[i, k], %w[k, j]) }"
VECTOR = "compute f32[i: 32] sum(k: 32) { mul_tf32(%x[i, k], %w[k, 0]) }"
WITHIN = "compute f32[i: 32, j: 32] sum(k: 32) { mul_tf32(%x[i, k], %w[k, j]) + 1.0 }"


def functions(op: str, machine: str, passes: str = "precision") -> set[str]:
    """The scalar functions of an op after the pass, for a machine."""
    module = parse(f"""
        module @m
          func @main(%x: f32[32, 32], %w: f32[32, 32]) {{
            %y = {op}
            return %y
          }}""")
    done = PassManager(parse_pipeline(passes)).run(module, Context(machine=load_machine(machine)))
    (found,) = done.main.body.ops
    assert isinstance(found, Compute)
    return {getattr(node, "function", "") for node in found.body.walk()} - {""}


@pytest.mark.parametrize(
    ("op", "machine", "expected"),
    [
        (PRODUCT, "h100_sxm", {"mul_tf32"}),
        (PRODUCT, "b200_sxm", {"mul_tf32"}),
        (PRODUCT, "mi300x", {"mul_tf32"}),
        (PRODUCT, "mi355x", {"mul"}),  # its matrix units have no such type
        (PRODUCT, "maia100", {"mul"}),
        (VECTOR, "h100_sxm", {"mul"}),  # no product of matrices
        (WITHIN, "h100_sxm", {"mul", "add"}),
    ],
)
def test_products_are_rounded_where_a_unit_does_them(op: str, machine: str, expected: set[str]) -> None:
    assert functions(op, machine) == expected


def test_an_option_says_otherwise() -> None:
    assert functions(PRODUCT, "h100_sxm", "precision{products=ieee}") == {"mul"}
    assert functions(PRODUCT.replace("mul_tf32", "mul_tf32x3"), "h100_sxm", "precision{products=bf16x3}") == {
        "mul_bf16x3"
    }


@pytest.mark.parametrize(
    ("steps", "accumulators"), [(1024, ["f32"]), (3072, ["f32", "i32"]), (1031, ["i64"]), (4 * 1031, ["i64"])]
)
def test_integers_on_a_machine_without_units_for_them(steps: int, accumulators: list[str]) -> None:
    """Exact in float32, in parts of a thousand where those divide the sum, else without a matrix unit; the largest products there are."""
    module = parse(f"""
        func @main(%x: i8[2, {steps}], %w: i8[{steps}, 3]) {{
          %y = compute i32[i: 2, j: 3] sum(k: {steps}) in i32 {{ i32(%x[i, k]) * i32(%w[k, j]) }}
          return %y
        }}""")

    def settled(machine: str) -> Module:
        return PassManager(parse_pipeline("precision")).run(module, Context(machine=load_machine(machine)))

    assert str(settled("h100_sxm").main.body.ops) == str(module.main.body.ops)
    done = settled("maia100")
    assert [op.accumulate.name for op in done.main.body.ops if isinstance(op, Compute)] == accumulators
    x, w = np.full((2, steps), -128, np.int8), np.full((steps, 3), -128, np.int8)
    x[1], w[::2, 1], w[:, 2] = 127, 127, np.arange(steps) % 255 - 127
    np.testing.assert_array_equal(evaluate(done, [x, w])[0], evaluate(module, [x, w])[0])
