"""Products of float32 whose factors a matrix unit rounds: how much, and what the language says of them."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.analysis import contraction
from codesign.ir.precision import ARITHMETIC, PRECISIONS, Precision, multiply, precision_of
from codesign.ir.tensor import Compute
from codesign.ir.text import parse, print_module


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_error_is_that_of_the_roundoff(precision: Precision) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(1, 2, (64, 64)).astype(np.float32) for _ in range(2))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    error = float(np.max(np.abs(multiply(a, b, precision) - exact) / exact))
    roundoff = ARITHMETIC[precision].roundoff
    assert error <= 2 * roundoff + 64 * 2.0**-24
    assert precision == "ieee" or error >= roundoff / 64  # and it is not done with more bits than that


@pytest.mark.parametrize("precision", ["tf32x3", "bf16x3"])
def test_infinities_stay(precision: Precision) -> None:
    product = multiply(np.array([[np.inf, 0.0]], np.float32), np.array([[2.0], [1.0]], np.float32), precision)
    assert product[0, 0] == np.inf


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("dtype", "found"), [("f32", True), ("bf16", False)])
def test_a_product_says_how_it_is_rounded(precision: Precision, dtype: str, found: bool) -> None:
    left, right = (f"f32({read})" if dtype != "f32" else read for read in ("%x[i, k]", "%w[k, j]"))
    product = f"{left} * {right}" if precision == "ieee" else f"{ARITHMETIC[precision].function}({left}, {right})"
    text = f"""
        module @m
          func @main(%x: {dtype}[32, 32], %w: {dtype}[32, 32]) {{
            %y = compute f32[i: 32, j: 32] sum(k: 32) {{ {product} }}
            return %y
          }}"""
    module = parse(text)
    assert print_module(parse(print_module(module))) == print_module(module)
    (op,) = module.main.body.ops
    assert isinstance(op, Compute)
    form = contraction(op)
    assert form is not None
    assert form.allowed == precision
    assert form.precision == (precision if found else "ieee")  # what is narrower loses nothing


def test_only_products_have_a_precision() -> None:
    assert [precision_of(name) for name in ("mul", "mul_tf32", "add")] == ["ieee", "tf32", None]
