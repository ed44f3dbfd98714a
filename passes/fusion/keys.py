"""Structural keys: equal for groups that are the same up to the names of values and dims."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from codesign.ir.core import Value
from codesign.ir.index import Atom, Datum, Extremum, FloorDiv, Index, Mod, Var
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.passes.fusion.group import Group


def group_key(group: Group) -> int:
    """A 64-bit key of the group: its computes in order, types of what it reads (by order of first use), and what it provides."""
    hasher = _Hasher()
    parts: list[Hashable] = []
    for op in group.computes:
        dims = tuple((hasher.dim(dim.name), hasher.index(dim.extent)) for dim in op.dims)
        reductions = tuple((hasher.dim(dim.name), hasher.index(dim.extent)) for dim in op.reductions)
        body = hasher.scalar(op.body)
        parts.append((dims, reductions, op.monoid, op.dtype.name, op.accumulate.name, body))
        hasher.value(op.result)
    parts.append(tuple(hasher.value(value) for value in group.outputs.values()))
    return hash(tuple(parts))


class _Hasher:
    def __init__(self) -> None:
        self.dims: dict[str, int] = {}
        self.values: dict[Value, int] = {}
        self.scalars: dict[int, int] = {}
        self.indices: dict[Index, int] = {}

    def dim(self, name: str) -> int:
        return self.dims.setdefault(name, len(self.dims))

    def value(self, value: Value) -> int:
        return self.values.setdefault(value, len(self.values))

    def index(self, expression: Index) -> int:
        """Order of terms and factors depends on names, so they are combined without order."""
        known = self.indices.get(expression)
        if known is None:
            terms = (hash((c, tuple(sorted(self.atom(atom) for atom in monomial)))) for monomial, c in expression.terms)
            known = self.indices[expression] = hash(tuple(sorted(terms)))
        return known

    def atom(self, atom: Atom) -> int:
        if isinstance(atom, Var):
            return hash(("var", self.dims.get(atom.name, atom.name)))
        if isinstance(atom, (FloorDiv, Mod)):
            return hash((type(atom).__name__, self.index(atom.numerator), self.index(atom.denominator)))
        if isinstance(atom, Extremum):
            return hash((atom.kind, tuple(sorted(self.index(arg) for arg in atom.args))))
        if isinstance(atom, Datum):
            return hash(("datum", self.scalar(atom.scalar)))
        raise TypeError(f"unknown atom {atom!r}")

    def scalar(self, body: Scalar) -> int:
        for node in body.walk():
            if id(node) not in self.scalars:
                self.scalars[id(node)] = hash((node.dtype.name, *self._parts(node)))
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
