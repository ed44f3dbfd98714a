"""Structural keys: equal for groups that are the same up to the names of values and dims.

A key is a digest of text. Python's `hash` would not do: -1 and -2 share one, and so do 0.0 and -0.0, 1 and True.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable

from codesign.ir.core import Value
from codesign.ir.index import Atom, Datum, Extremum, FloorDiv, Index, Mod, Var
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.passes.fusion.group import Group


def _digest(parts: tuple[Hashable, ...]) -> str:
    """32 hexadecimal digits that tell plain data (numbers, strings, tuples of them) apart."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def group_key(group: Group) -> str:
    """A digest of the group: its computes in order, types of what it reads (by order of first use), and what it provides."""
    if not group.key:
        group.key = _key_of(group)
    return group.key


def _key_of(group: Group) -> str:
    hasher = _Hasher()
    parts: list[Hashable] = []
    for op in group.computes:
        dims = tuple((hasher.dim(dim.name), hasher.index(dim.extent)) for dim in op.dims)
        reductions = tuple((hasher.dim(dim.name), hasher.index(dim.extent)) for dim in op.reductions)
        body = hasher.scalar(op.body)
        parts.append((dims, reductions, op.monoid, op.dtype.name, op.accumulate.name, body))
        hasher.value(op.result)
    parts.append(tuple(hasher.value(value) for value in group.outputs.values()))
    whole = ((value.shape, inner.shape) for value, inner in group.outputs.items())
    parts.append(tuple(None if own == inner else tuple(map(hasher.index, own)) for own, inner in whole))
    return _digest(tuple(parts))


class _Hasher:
    def __init__(self) -> None:
        self.dims: dict[str, int] = {}
        self.values: dict[Value, int] = {}
        self.scalars: dict[int, str] = {}
        self.indices: dict[Index, str] = {}

    def dim(self, name: str) -> int:
        return self.dims.setdefault(name, len(self.dims))

    def value(self, value: Value) -> int:
        return self.values.setdefault(value, len(self.values))

    def index(self, expression: Index) -> str:
        """Order of terms and factors depends on names, so they are combined without order."""
        known = self.indices.get(expression)
        if known is None:
            terms = sorted((sorted(self.atom(atom) for atom in monomial), c) for monomial, c in expression.terms)
            known = self.indices[expression] = _digest((repr(terms),))
        return known

    def atom(self, atom: Atom) -> str:
        if isinstance(atom, Var):
            return _digest(("var", self.dims.get(atom.name, atom.name)))
        if isinstance(atom, (FloorDiv, Mod)):
            return _digest((type(atom).__name__, self.index(atom.numerator), self.index(atom.denominator)))
        if isinstance(atom, Extremum):
            return _digest((atom.kind, tuple(sorted(self.index(arg) for arg in atom.args))))
        if isinstance(atom, Datum):
            return _digest(("datum", self.scalar(atom.scalar)))
        raise TypeError(f"unknown atom {atom!r}")

    def scalar(self, body: Scalar) -> str:
        for node in body.walk():
            if id(node) not in self.scalars:
                self.scalars[id(node)] = _digest((node.dtype.name, *self._parts(node)))
        return self.scalars[id(body)]

    def _parts(self, node: Scalar) -> Iterable[Hashable]:
        if isinstance(node, Read):
            source = self.value(node.source)
            otherwise = None if node.otherwise is None else self.scalar(node.otherwise)
            shape = tuple(self.index(size) for size in node.source.shape)
            return ("read", source, shape, tuple(self.index(i) for i in node.indices), otherwise)
        if isinstance(node, Apply):
            return (node.function, *(self.scalar(arg) for arg in node.args))
        if isinstance(node, IndexValue):
            return ("index", self.index(node.index))
        if isinstance(node, Literal):
            return ("literal", repr(node.value))
        raise TypeError(f"unknown scalar {node!r}")
