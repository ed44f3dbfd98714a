"""How times of concurrent resources combine: the norm of their times, of an order that says how well they overlap."""

from __future__ import annotations

import numpy as np

from codesign.costmodel.gpu.geometry import Array

INNER = 6.0
"""Order among resources of one path (tensor unit and operand delivery; L2 and DRAM): nearly the longest. Fitted, as are the next and the last:
half and twice cost 0.3 and 0.1 points of the tables' error, of a chain 0.6 and 0.1 (`benchmarks/constants.py`)."""

CHAINED = 2.0
"""The same for a chain of contractions, where the vector unit works between two of them on the same tile and overlaps
only other blocks' or warp groups' work."""

THREADED = 1.2
"""The same for schedules of single threads: a thread's multiply-adds wait for the operands that it loads itself, so the
two overlap only as far as other warps have work."""

THROTTLE = 12.0
"""Order of the norm of a kernel's time and the time that its energy takes at the power limit: nearly the longer."""


def overlap(parts: tuple[Array, ...], order: float) -> Array:
    """The norm of concurrent times: `(sum t^p)^(1/p)`, scaled by the longest so that it neither under- nor overflows."""
    top = parts[0]
    for part in parts[1:]:
        top = np.maximum(top, part)
    top = np.maximum(top, 1e-12)
    total = 0.0
    for part in parts:
        total = total + raised(part / top, order)
    with np.errstate(divide="ignore"):  # the norm of nothing is nothing
        return top * np.exp(np.log(total) / order)


def raised(share: Array, order: float) -> Array:
    """A share of at most 1, to a power: whole ones multiplied out, others by logarithms, which takes a half to a tenth of `np.power`'s time."""
    if not float(order).is_integer():
        return np.exp(order * np.log(np.maximum(share, 1e-300)))
    left, square, found = int(order), share, None
    while left:
        if left & 1:
            found = square if found is None else found * square
        square, left = square * square if left > 1 else square, left >> 1
    return found
