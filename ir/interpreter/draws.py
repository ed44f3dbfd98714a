"""Tensors of random numbers, as the expressions of `ir/draws.py` mean them."""

from __future__ import annotations

import numpy as np

from codesign.ir.draws import Distribution, number
from codesign.ir.dtypes import DType
from codesign.ir.index import index
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.numerics import Array
from codesign.ir.scalar import literal


def draw(distribution: Distribution, seed: int, offset: int, shape: tuple[int, ...], dtype: DType) -> Array:
    """A tensor of numbers; the seed is taken modulo 2**64."""
    names = [f"d{axis}" for axis in range(len(shape))]
    domain = Domain([Span(name, 0, size) for name, size in zip(names, shape, strict=True)], {})
    signed = (seed + (1 << 63)) % (1 << 64) - (1 << 63)
    body = number(distribution, dtype, literal(signed), offset, [index(name) for name in names], [*map(index, shape)])
    return np.broadcast_to(Evaluator(domain, {}).scalar(body), shape).copy()
