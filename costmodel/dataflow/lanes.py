"""Positions in the lanes of the vector unit, which are 32 bits wide."""

from __future__ import annotations

from codesign.ir.dtypes import I32, I64
from codesign.ir.scalar import Apply, IndexValue, Literal, Scalar

COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def narrow(node: Apply) -> Scalar | None:
    """A comparison of positions in i32; None where it is of anything else."""
    found: list[Scalar] = []
    for arg in node.args:
        if isinstance(arg, Literal) and arg.dtype is I64 and abs(int(arg.value)) < 1 << 31:
            found.append(Literal(arg.value, I32))
        elif isinstance(arg, IndexValue) and arg.dtype is I64 and not arg.children():
            found.append(IndexValue(arg.index, I32))
        else:
            return None
    return Apply(node.function, found, node.dtype)
