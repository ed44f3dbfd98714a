"""Expressions in the lanes of the vector unit, which are 32 bits wide: what is worked out in each of them, and what beside them."""

from __future__ import annotations

from collections.abc import Set

from codesign.ir.analysis import dependence, operation_counts
from codesign.ir.dtypes import I32, I64
from codesign.ir.index import Index, index
from codesign.ir.scalar import Apply, IndexValue, Literal, Scalar

BESIDE = "@beside"
"""What is added to a position in all lanes."""

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


def by_lane(body: Scalar, names: Set[str]) -> Scalar:
    """The expression as the vector unit has it: of positions, what is the same in all lanes is one number, which control works out."""

    def change(node: Scalar) -> Scalar | None:
        if not isinstance(node, IndexValue) or node.index.data():
            return None
        lanes = [term for term in node.index.terms if Index((term,)).variables() & names]
        rest = node.index - Index(tuple(lanes))
        return node if rest.is_constant else IndexValue(Index(tuple(lanes)) + index(BESIDE), node.dtype)

    return body.rewrite(change)


def slots_of(body: Scalar) -> dict[tuple[str, str], float]:
    """Issue slots of a point by unit and dtype."""
    return {(str(unit), dtype.name): cost for (unit, dtype), cost in operation_counts(body).items()}


def parts_of(body: Scalar, names: Set[str]) -> list[tuple[Scalar, frozenset[str]]]:
    """The largest operations in an expression that do not depend on all of some names, with those that they depend on."""
    depends = {id(node): used for node, used in dependence(body, names)}
    found: dict[Scalar, frozenset[str]] = {}

    def visit(node: Scalar) -> None:
        if node in found or not isinstance(node, Apply):
            return
        if depends[id(node)] < names:
            found[node] = depends[id(node)]
            return
        for child in node.children():
            visit(child)

    visit(body)
    return list(found.items())
