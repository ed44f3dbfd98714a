"""Expressions in the lanes of the vector unit, which are 32 bits wide: what is worked out in each of them, and what beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from codesign.ir.analysis import dependence, operation_counts, operations_of
from codesign.ir.dtypes import I32, I64, DType
from codesign.ir.functions import Unit
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
    return _named(operation_counts(body))


def _named(slots: Mapping[tuple[Unit, DType], float]) -> dict[tuple[str, str], float]:
    return {(str(unit), dtype.name): cost for (unit, dtype), cost in slots.items()}


def slots_apart(
    body: Scalar, parts: Iterable[Scalar]
) -> tuple[dict[tuple[str, str], float], list[dict[tuple[str, str], float]]]:
    """Issue slots of a point of what an expression has outside of some parts, and of each part what neither that nor a part before it has."""
    inner = dict.fromkeys(parts)
    outside: dict[Scalar, None] = {}
    pending = [body]
    while pending:
        node = pending.pop()
        if node not in outside and node not in inner:
            outside[node] = None
            pending.extend(node.children())
    seen, found = set(outside), []
    for part in inner:
        new = [node for node in dict.fromkeys(part.walk()) if node not in seen]
        seen.update(new)
        found.append(_named(operations_of(new)))
    return _named(operations_of(outside)), found


def parts_of(body: Scalar, names: Set[str]) -> list[tuple[Scalar, frozenset[str]]]:
    """The largest operations in an expression that do not depend on all of some names, with those that they depend on."""
    depends = dict(dependence(body, names))
    found: dict[Scalar, frozenset[str]] = {}

    def visit(node: Scalar) -> None:
        if node in found or not isinstance(node, Apply):
            return
        if depends[node] < names:
            found[node] = depends[node]
            return
        for child in node.children():
            visit(child)

    visit(body)
    return list(found.items())
