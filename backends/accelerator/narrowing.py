"""Comparisons of positions in the width of the vector unit's lanes."""

from __future__ import annotations

from codesign.ir.dtypes import I32, I64
from codesign.ir.index import Bounds
from codesign.ir.scalar import Apply, IndexValue, Literal, Scalar

COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def narrow_comparison(node: Apply, ranges: Bounds) -> Scalar | None:
    """Positions are compared as i32 where they fit: the vector unit's lanes are 32 bits wide."""
    narrow: list[Scalar] = []
    for arg in node.args:
        if isinstance(arg, Literal) and arg.dtype is I64 and abs(int(arg.value)) < 1 << 31:
            narrow.append(Literal(arg.value, I32))
        elif isinstance(arg, IndexValue) and arg.dtype is I64 and not arg.children():
            low, high = arg.index.limits(ranges)
            if low is None or high is None or low < -(1 << 31) or high >= 1 << 31:
                return None
            narrow.append(IndexValue(arg.index, I32))
        else:
            return None
    return Apply(node.function, narrow, node.dtype)
