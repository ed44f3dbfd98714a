"""Constants that are masks of triangles: two values, parted along a diagonal, which indices tell as well as data does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.core import Value, tensor_type
from codesign.ir.index import index
from codesign.ir.scalar import IndexValue, Scalar, apply, select
from codesign.passes.algebra import literal_of

MOST = 1 << 26
"""Elements of a constant that are looked at."""


def triangle(value: Value, data: npt.NDArray[Any]) -> Scalar | None:
    """The expression over `i0`, `i1`, ... of a constant of which the last two dims are a triangle of two values; None for any other."""
    shape = tuple(size.constant for size in value.shape)
    if len(shape) < 2 or any(size != 1 for size in shape[:-2]) or min(shape[-2:]) < 2 or data.size > MOST:
        return None
    square = np.asarray(data).reshape(shape[-2:])
    low, high = square[-1, 0], square[0, -1]
    if low == high or low != low or high != high:
        return None
    below = square == low
    rows, columns = square.shape
    counts = below.sum(axis=1)
    inner = np.flatnonzero((counts > 0) & (counts < columns))
    if not inner.size:
        return None
    offset = int(counts[inner[0]]) - 1 - int(inner[0])  # of the last column below the diagonal
    if not np.array_equal(counts, np.clip(np.arange(rows) + offset + 1, 0, columns)):
        return None
    if not np.array_equal(below, np.arange(columns) < counts[:, None]) or not np.array_equal(square == high, ~below):
        return None
    dtype = tensor_type(value).dtype
    row, column = f"i{len(shape) - 2}", f"i{len(shape) - 1}"
    kept = apply("le", IndexValue(column), IndexValue(index(row) + offset))
    return select(kept, literal_of(low, dtype), literal_of(high, dtype))
