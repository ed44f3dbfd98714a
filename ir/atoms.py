"""Atoms of index expressions: variables, quotients, remainders, extrema and data, and the monomials that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from codesign.ir.index import Index
    from codesign.ir.scalar import Scalar

Key = tuple[Any, ...]


class Atom:
    """A factor of a monomial: a variable, or an operation that is not polynomial. Immutable; `key` orders atoms."""

    __slots__ = ("_hash", "key")
    key: Key
    _hash: int

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(self) is type(other) and self._hash == other._hash and self._fields() == other._fields()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._fields()  # hashes of strings differ between processes: compute them anew

    def _fields(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class Var(Atom):
    """A dimension of the surrounding iteration domain, a loop or grid index, or a size symbol."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = (0, name)
        self._hash = hash(self.key)

    def _fields(self) -> tuple[Any, ...]:
        return (self.name,)

    def __str__(self) -> str:
        return self.name


class FloorDiv(Atom):
    """`numerator // denominator`, rounding towards minus infinity."""

    __slots__ = ("denominator", "numerator")

    def __init__(self, numerator: Index, denominator: Index) -> None:
        self.numerator = numerator
        self.denominator = denominator
        self.key = (1, numerator.key, denominator.key)
        self._hash = hash((1, numerator, denominator))

    def _fields(self) -> tuple[Any, ...]:
        return self.numerator, self.denominator

    def __str__(self) -> str:
        return f"({wrapped(self.numerator)} // {wrapped(self.denominator)})"


class Mod(Atom):
    """`numerator % denominator`, with the sign of the denominator."""

    __slots__ = ("denominator", "numerator")

    def __init__(self, numerator: Index, denominator: Index) -> None:
        self.numerator = numerator
        self.denominator = denominator
        self.key = (2, numerator.key, denominator.key)
        self._hash = hash((2, numerator, denominator))

    def _fields(self) -> tuple[Any, ...]:
        return self.numerator, self.denominator

    def __str__(self) -> str:
        return f"({wrapped(self.numerator)} % {wrapped(self.denominator)})"


class Extremum(Atom):
    """`min(a, b, ...)` or `max(a, b, ...)`."""

    __slots__ = ("args", "kind")

    def __init__(self, kind: str, args: tuple[Index, ...]) -> None:
        self.kind = kind
        self.args = args
        self.key = (3, kind, *(arg.key for arg in args))
        self._hash = hash((3, kind, args))

    def _fields(self) -> tuple[Any, ...]:
        return self.kind, self.args

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(map(str, self.args))})"


class Datum(Atom):
    """An integer read from data: what makes an access a gather, as `ids[i]` in `%table[%ids[i], j]`."""

    __slots__ = ("scalar",)

    def __init__(self, scalar: Scalar) -> None:
        self.scalar = scalar
        self.key = (4, scalar.digest())
        self._hash = hash((4, scalar))

    def _fields(self) -> tuple[Any, ...]:
        return (self.scalar,)

    def __str__(self) -> str:
        return str(self.scalar)


Monomial = tuple[Atom, ...]


def inside(atom: Atom) -> tuple[Index, ...]:
    """The index expressions that an atom holds."""
    if isinstance(atom, (FloorDiv, Mod)):
        return atom.numerator, atom.denominator
    if isinstance(atom, Extremum):
        return atom.args
    if isinstance(atom, Datum):
        return tuple([i for node in atom.scalar.walk() for i in node.index_expressions()])
    return ()


def monomial_key(monomial: Monomial) -> Key:
    return (not monomial, [atom.key for atom in monomial])


def term_key(term: tuple[Monomial, int]) -> Key:
    return (not term[0], [atom.key for atom in term[0]])


def atom_key(atom: Atom) -> Key:
    return atom.key


def join(a: Monomial, b: Monomial) -> Monomial:
    """The product of two monomials."""
    if not a or not b:
        return a or b
    return tuple(sorted((*a, *b), key=atom_key))


def only_other(monomial: Monomial, factors: Monomial) -> Monomial | None:
    """The one atom that a monomial has beside some factors, in a tuple; None when it is not so."""
    rest = without(monomial, factors)
    return rest if rest is not None and len(rest) == 1 else None


def without(monomial: Monomial, factors: Monomial) -> Monomial | None:
    if not factors:
        return monomial
    remaining = list(monomial)
    for factor in factors:
        if factor not in remaining:
            return None
        remaining.remove(factor)
    return tuple(remaining)


def evaluate_atom(atom: Atom, values: Mapping[str, Any], datum: Callable[[Scalar], Any] | None) -> Any:
    if isinstance(atom, Var):
        return values[atom.name]
    if isinstance(atom, FloorDiv):
        return atom.numerator.evaluate(values, datum) // atom.denominator.evaluate(values, datum)
    if isinstance(atom, Mod):
        return atom.numerator.evaluate(values, datum) % atom.denominator.evaluate(values, datum)
    if isinstance(atom, Extremum):
        args = [arg.evaluate(values, datum) for arg in atom.args]
        if all(isinstance(arg, int) for arg in args):
            return min(args) if atom.kind == "min" else max(args)
        pick = np.minimum if atom.kind == "min" else np.maximum
        result = args[0]
        for arg in args[1:]:
            result = pick(result, arg)
        return result
    if isinstance(atom, Datum):
        if datum is None:
            raise ValueError(f"{atom} depends on data and cannot be evaluated here")
        return datum(atom.scalar)
    raise TypeError(f"unknown atom {atom!r}")


def wrapped(value: Index) -> str:
    text = str(value)
    simple = value.is_constant or (len(value.terms) == 1 and value.terms[0][1] == 1 and len(value.terms[0][0]) == 1)
    return text if simple else f"({text})"


def print_terms(value: Index) -> str:
    if not value.terms:
        return "0"
    text = ""
    for monomial, c in value.terms:
        factors = [str(atom) for atom in monomial]
        if not factors:
            body = str(abs(c))
        elif abs(c) == 1:
            body = "*".join(factors)
        else:
            body = "*".join([*factors, str(abs(c))])
        if not text:
            text = body if c > 0 else f"-{body}"
        else:
            text += f" + {body}" if c > 0 else f" - {body}"
    return text
