"""Precision of products of float32: which unit may multiply them, in how many products of narrower parts, and what that rounds.

A product that says nothing keeps all bits (`ieee`). One that says `tf32` may be done by a matrix unit that rounds both factors to
tensor-float-32; the `x3` split each factor in two parts, of tensor-float-32 or of bfloat16, and leave out the product of the two lesser
ones. It is a permission and a bound: the tensor level's own meaning is the exact product, a kernel's `dot` rounds as its unit does, and
who compares the two allows for `roundoff`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codesign.ir.dtypes import BF16
from codesign.ir.numerics import Array, round_to, round_to_tf32

Precision = Literal["ieee", "tf32", "tf32x3", "bf16x3"]
PRECISIONS: tuple[Precision, ...] = ("ieee", "tf32", "tf32x3", "bf16x3")


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a product of float32 is done: `function`, the scalar function of the tensor level that says so; `unit`, the dtype of the matrix
    unit; `products` that it takes; `roundoff`, the relative error of one factor."""

    function: str
    unit: str
    products: int
    roundoff: float


ARITHMETIC: Mapping[Precision, Arithmetic] = {
    "ieee": Arithmetic("mul", "f32", 1, 2.0**-24),
    "tf32": Arithmetic("mul_tf32", "tf32", 1, 2.0**-11),
    "tf32x3": Arithmetic("mul_tf32x3", "tf32", 3, 2.0**-22),
    "bf16x3": Arithmetic("mul_bf16x3", "bf16", 3, 2.0**-16),
}

_BY_FUNCTION: Mapping[str, Precision] = {row.function: name for name, row in ARITHMETIC.items()}


def precision_of(function: str) -> Precision | None:
    """The precision that a scalar function multiplies with; None for a function that is no product."""
    return _BY_FUNCTION.get(function)


def multiply(a: Array, b: Array, precision: Precision) -> Array:
    """The matrix product of float32 tiles with what the precision rounds."""
    if precision == "ieee":
        return np.asarray(np.matmul(a, b))
    rounded: Callable[[Array], Array] = round_to_tf32 if ARITHMETIC[precision].unit == "tf32" else _to_bf16
    high_a, high_b = rounded(a), rounded(b)
    product = np.matmul(high_a, high_b)
    if ARITHMETIC[precision].products == 1:
        return np.asarray(product)
    low_a, low_b = (rounded(_rest(x, high)) for x, high in ((a, high_a), (b, high_b)))
    with np.errstate(invalid="ignore"):
        lesser = np.matmul(low_a, high_b) + np.matmul(high_a, low_b)
    return np.asarray(np.where(np.isnan(lesser), np.float32(0), lesser) + product)  # as Triton has it: infinities stay


def _to_bf16(array: Array) -> Array:
    return round_to(array, BF16)


def _rest(array: Array, high: Array) -> Array:
    """What the greater part leaves; nothing of what is not finite."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(high), array - high, np.float32(0)).astype(np.float32)
