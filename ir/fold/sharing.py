"""What several parts of a fold evaluate for each element, evaluated once."""

from __future__ import annotations

from dataclasses import replace

from codesign.ir.fold.state import Fold, Part
from codesign.ir.scalar import Apply, Read, Scalar
from codesign.ir.tensor import Compute, Dim


def with_shared(fold: Fold) -> Fold:
    """The fold with the largest expressions of the element that several of its parts hold as computes of their own."""
    dims = frozenset(fold.dims)
    holders: dict[Scalar, int] = {}
    for part in fold.parts:
        found = {node for node in part.reduced.body.walk() if _worth(node, dims)}
        for node in found:
            holders[node] = holders.get(node, 0) + 1
    common = {node for node, count in holders.items() if count > 1}
    if not common:
        return fold
    tops = {node for part in fold.parts for node in _first(part.reduced.body, common)}
    made: dict[Scalar, Compute] = {}
    parts = tuple(_reading(part, tops, made) for part in fold.parts)
    return replace(fold, parts=parts, shared=tuple(made.values()))


def _worth(node: Scalar, dims: frozenset[str]) -> bool:
    return isinstance(node, Apply) and node.function != "cast" and bool(node.variables() & dims)


def _first(node: Scalar, common: set[Scalar]) -> set[Scalar]:
    """The common expressions that are within no larger one."""
    found: set[Scalar] = set()
    pending = [node]
    while pending:
        one = pending.pop()
        if one in common:
            found.add(one)
        elif isinstance(one, Apply):
            pending.extend(one.args)
    return found


def _reading(part: Part, common: set[Scalar], made: dict[Scalar, Compute]) -> Part:
    """The part with what is common read from where it is made."""
    body = _changed(part.reduced.body, common, made, part.reduced.domain)
    if body is part.reduced.body:
        return part
    old = part.reduced
    new = old.with_body(body)
    return replace(part, reduced=new)


def _changed(node: Scalar, common: set[Scalar], made: dict[Scalar, Compute], domain: tuple[Dim, ...]) -> Scalar:
    """The expression from the top down, so that the largest common ones are taken."""
    if node in made:
        return Read(made[node].result, [dim.name for dim in made[node].dims])
    if not isinstance(node, Apply):
        return node
    args = tuple(_changed(arg, common, made, domain) for arg in node.args)
    rebuilt = node if all(a is b for a, b in zip(args, node.args, strict=True)) else node.rebuild(args)
    if node not in common:
        return rebuilt
    used = node.variables()
    made[node] = Compute([dim for dim in domain if dim.name in used], rebuilt, name="element")
    return Read(made[node].result, [dim.name for dim in made[node].dims])
