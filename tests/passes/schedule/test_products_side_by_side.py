"""Products of the same rows in one loop cost as one product of all their columns."""

from __future__ import annotations

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.schedule.tuner import Tuned, tune

ROWS = "%x: bf16[4096, 4096]"


def product(name: str, weight: str, columns: int) -> str:
    body = f"{{ f32(%x[i, k]) * f32(%{weight}[j, k]) }}"
    return f"%{name} = compute bf16[i: 4096, j: {columns}] sum(k: 4096) in f32 {body}"


def best(weights: dict[str, int], last: str) -> Tuned:
    """Of products with so many columns each, and what is done with them."""
    params = ", ".join([ROWS, *(f"%{name}: bf16[{columns}, 4096]" for name, columns in weights.items())])
    lines = "\n".join(product(f"by_{name}", name, columns) for name, columns in weights.items())
    text = f"func @f({params}) {{\n%o = fusion {{\n{lines}\n{last}\n}}\nreturn %o\n}}"
    (fusion,) = parse(text).main.body.ops
    assert isinstance(fusion, Fusion)
    return tune(fusion, load_machine("h100_sxm"))


def test_two_of_the_same_columns_cost_as_one_of_twice_as_many() -> None:
    """No chain, in which results would be rescaled in every step."""
    together = "%o = compute bf16[i: 4096, j: 8192] { bf16(f32(%by_g[i, j]) * f32(%by_u[i, j])) }\nyield %o"
    both, one = best({"g": 8192, "u": 8192}, together), best({"w": 16384}, "yield %by_w")
    assert both.seconds == pytest.approx(one.seconds, rel=0.01)
    assert both.summary.chained == one.summary.chained == 1
    assert both.low / both.seconds == pytest.approx(one.low / one.seconds, rel=0.05)
