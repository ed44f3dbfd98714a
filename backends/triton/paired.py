"""What two neighbours along an axis have alike, such as the words of one counter: worked out once for both."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import index
from codesign.ir.scalar import Apply, Scalar
from codesign.ir.tile import Axis

DEAR = 8.0
"""Issue slots of a function from which on it is worth putting halves of a tile together for."""


def is_dear(node: Scalar) -> bool:
    """Whether a node is a function of indices and scalars that is worked out once for two neighbours where it may."""
    return (
        isinstance(node, Apply)
        and FUNCTIONS[node.function].cost >= DEAR
        and any(part.index_expressions() for part in node.walk())
    )


def halved(node: Scalar, axes: Sequence[Axis], even: Collection[str]) -> tuple[Axis, Scalar] | None:
    """An axis along which neighbours have the same, two and two, with the node over such pairs; None where there is none.

    `even`: variables that are even, beside those of axes.
    """
    if not is_dear(node):
        return None
    for axis in reversed(axes):
        if axis.name in node.variables() and axis.size % 2 == 0:
            pairs = over_pairs(node, axis.name, even)
            if pairs is not None:
                return axis, pairs
    return None


def over_pairs(node: Scalar, axis: str, even: Collection[str]) -> Scalar | None:
    """The node of place 2 t and 2 t + 1 along an axis, by t; None where they are not known to be the same."""
    for names in ((), even):
        doubled = {name: index(name) * 2 for name in names}
        first, second = (node.substitute({**doubled, axis: index(axis) * 2 + place}) for place in (0, 1))
        if first == second:
            return first.substitute({name: index(name) // 2 for name in names})
    return None
