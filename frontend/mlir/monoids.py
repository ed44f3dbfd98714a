"""What a reduction's body combines: `out + x * y` is a sum of products, a compare and two selects the position of a maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf

from codesign.ir.dtypes import BOOL
from codesign.ir.scalar import Apply, Read, Scalar, apply

Plain = OneOf["sum", "prod", "max", "min", "any", "all"]
"""Monoids that combine values without their places."""

_MONOIDS: dict[str, Plain] = {"add": "sum", "mul": "prod", "max": "max", "min": "min", "fmax": "max", "fmin": "min"}
Extremum = OneOf["max", "min"]
_SOUGHT: dict[str, Extremum] = {"gt": "max", "ge": "max", "lt": "min", "le": "min"}
_OPPOSITE: dict[Extremum, Extremum] = {"max": "min", "min": "max"}


@dataclass(frozen=True)
class Combined:
    """Terms that are combined by a monoid."""

    monoid: Plain
    term: Scalar


def combined(value: Scalar, carried: Read) -> Combined | None:
    """The monoid and the term where a body's value is `carried (+) term`, else None."""
    if isinstance(value, Apply) and value.function == "cast" and isinstance(value.args[0], Apply):
        return combined(value.args[0], carried)  # a wider sum that is rounded at every step
    if not isinstance(value, Apply):
        return None
    if value.function == "add":
        return _sum(value, carried)
    if value.function == "select":
        return _of_select(value, carried)
    monoid = _MONOIDS.get(value.function)
    if value.args[0].dtype is BOOL and value.function in ("or", "and"):
        monoid = "any" if value.function == "or" else "all"
    if monoid is None or len(value.args) != 2:
        return None
    for own, other in (value.args, value.args[::-1]):
        if _is_carried(own, carried) and carried not in other.reads():
            return Combined(monoid, other)
    return None


def _is_carried(value: Scalar, carried: Read) -> bool:
    return value == carried or (isinstance(value, Apply) and value.function == "cast" and value.args[0] == carried)


def _sum(value: Apply, carried: Read) -> Combined | None:
    """Nested sums, of which one term is what was carried."""
    terms: list[Scalar] = []
    stack: list[Scalar] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, Apply) and node.function == "add":
            stack.extend(node.args)
        else:
            terms.append(node)
    own = [term for term in terms if _is_carried(term, carried)]
    others = [term for term in terms if not _is_carried(term, carried)]
    if len(own) != 1 or not others or any(carried in term.reads() for term in others):
        return None
    total = others[0]
    for term in others[1:]:
        total = apply("add", total, term)
    return Combined("sum", total)


def _of_select(value: Apply, carried: Read) -> Combined | None:
    """`x if x > carried else carried`."""
    found = _better(value.args[0], carried)
    if found is None:
        return None
    which, term = found
    if value.args[1:] == (term, carried):
        return Combined(which, term)
    return Combined(_OPPOSITE[which], term) if value.args[1:] == (carried, term) else None


def _better(condition: Scalar, carried: Read) -> tuple[Extremum, Scalar] | None:
    """What a comparison with the carried value looks for, and in which term."""
    if isinstance(condition, Apply) and condition.function == "not":
        inner = _better(condition.args[0], carried)
        return None if inner is None else (_OPPOSITE[inner[0]], inner[1])
    if not isinstance(condition, Apply) or condition.function not in _SOUGHT:
        return None
    x, y = condition.args
    which = _SOUGHT[condition.function]
    if y == carried and carried not in x.reads():
        return which, x
    if x == carried and carried not in y.reads():
        return _OPPOSITE[which], y
    return None


def position_of_best(
    value: Scalar, position: Scalar, carried: Read, place: Read
) -> tuple[OneOf["argmax", "argmin"], Scalar, Scalar] | None:
    """The first extremum's place: which, the term, and the position that is kept where a strict comparison holds."""
    if not isinstance(position, Apply) or position.function != "select" or position.args[2] != place:
        return None
    found = _better(position.args[0], carried)
    best = combined(value, carried)
    condition = position.args[0]
    strict = isinstance(condition, Apply) and condition.function in ("gt", "lt")
    if found is None or best is None or not strict or best.monoid != found[0] or best.term != found[1]:
        return None
    return ("argmax" if found[0] == "max" else "argmin"), found[1], position.args[1]
