"""Index expressions: integer polynomials over dimensions and symbols, with floor division, remainder, min and max.

An `Index` is kept in one normal form, a sum of integer coefficients times products of atoms, so that equal
polynomials are equal objects and adding, cancelling and comparing need no rewriting. What needs knowledge of ranges
(is `i % 8` just `i`?) is in `codesign.ir.ranges`, behind `Index.simplify(bounds)` and its kin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Union

from codesign.ir.atoms import (
    Atom,
    Datum,
    Extremum,
    FloorDiv,
    Key,
    Mod,
    Monomial,
    Var,
    evaluate_atom,
    inside,
    join,
    monomial_key,
    only_other,
    print_terms,
    term_key,
    without,
)
from codesign.ir.bounds import REMEMBERED, Bounds

if TYPE_CHECKING:
    from codesign.ir.scalar import Scalar

__all__ = [
    "Atom",
    "Bounds",
    "Datum",
    "Extremum",
    "FloorDiv",
    "Index",
    "IndexLike",
    "Key",
    "Mod",
    "Monomial",
    "Var",
    "ceildiv",
    "divide",
    "extremum",
    "index",
    "maximum",
    "minimum",
    "product",
    "split",
]

IndexLike = Union["Index", int, str]
"""Anything `index()` takes: an Index, an integer, or the name of a dimension or symbol."""


class Index:
    """An integer expression in normal form; immutable and hashable."""

    __slots__ = ("_data", "_hash", "_key", "_text", "_variables", "terms")
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash: int | None = None
        self._text: str | None = None
        self._key: Key | None = None
        self._variables: frozenset[str] | None = None
        self._data: tuple[Scalar, ...] | None = None

    @property
    def key(self) -> Key:
        """What orders index expressions, the same in every run."""
        if self._key is None:
            self._key = tuple((monomial_key(monomial), c) for monomial, c in self.terms)
        return self._key

    # -- building ---------------------------------------------------------------------------------------------------
    @staticmethod
    def atom(atom: Atom) -> Index:
        """The expression that is one atom."""
        return Index((((atom,), 1),))

    def __add__(self, other: IndexLike) -> Index:
        right = other if isinstance(other, Index) else index(other)
        if not right.terms:
            return self
        if not self.terms:
            return right
        if len(right.terms) == 1 and not right.terms[0][0]:
            return _plus_constant(self, right.terms[0][1])
        if len(self.terms) == 1 and not self.terms[0][0]:
            return _plus_constant(right, self.terms[0][1])
        return _collect((*self.terms, *right.terms))

    __radd__ = __add__

    def __neg__(self) -> Index:
        return Index(tuple([(monomial, -c) for monomial, c in self.terms]))

    def __sub__(self, other: IndexLike) -> Index:
        return self + -index(other)

    def __rsub__(self, other: IndexLike) -> Index:
        return index(other) - self

    def __mul__(self, other: IndexLike) -> Index:
        right = other if isinstance(other, Index) else index(other)
        if right.is_constant:
            return _times_constant(self, right.constant)
        if self.is_constant:
            return _times_constant(right, self.constant)
        return _collect([(join(a, b), ca * cb) for a, ca in self.terms for b, cb in right.terms])

    __rmul__ = __mul__

    def __floordiv__(self, other: IndexLike) -> Index:
        return divide(self, index(other))[0]

    def __rfloordiv__(self, other: IndexLike) -> Index:
        return index(other) // self

    def __mod__(self, other: IndexLike) -> Index:
        return divide(self, index(other))[1]

    # -- asking -----------------------------------------------------------------------------------------------------
    @property
    def is_constant(self) -> bool:
        """Whether it is an integer."""
        return not self.terms or (len(self.terms) == 1 and not self.terms[0][0])

    @property
    def constant(self) -> int:
        """The value of a constant expression; ValueError when it isn't one."""
        if not self.is_constant:
            raise ValueError(f"{self} is not a constant")
        return self.terms[0][1] if self.terms else 0

    @property
    def offset(self) -> int:
        """The constant term."""
        return self.terms[-1][1] if self.terms and not self.terms[-1][0] else 0

    @property
    def variable(self) -> str | None:
        """The name when the expression is a single bare variable, else None."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            atom = self.terms[0][0][0]
            return atom.name if isinstance(atom, Var) else None
        return None

    def atoms(self) -> Iterable[Atom]:
        """Every atom, those inside divisions, extrema and data reads' indices included."""
        for monomial, _ in self.terms:
            for atom in monomial:
                yield atom
                for inner in inside(atom):
                    yield from inner.atoms()

    def variables(self) -> frozenset[str]:
        """Names of all variables in it, at any depth."""
        if self._variables is None:
            names: set[str] = set()
            for monomial, _ in self.terms:
                for atom in monomial:
                    if isinstance(atom, Var):
                        names.add(atom.name)
                    else:
                        for inner in inside(atom):
                            names |= inner.variables()
            self._variables = frozenset(names)
        return self._variables

    def data(self) -> tuple[Scalar, ...]:
        """The data-dependent scalars in it, in order."""
        if self._data is None:
            found: dict[Scalar, None] = {}
            for monomial, _ in self.terms:
                for atom in monomial:
                    if isinstance(atom, Datum):
                        found[atom.scalar] = None
                    if not isinstance(atom, Var):
                        for inner in inside(atom):
                            found.update(dict.fromkeys(inner.data()))
            self._data = tuple(found)
        return self._data

    def coefficient(self, name: str) -> Index | None:
        """The factor of variable `name` when the expression is linear in it (0 when absent), else None.

        The factor may hold other variables (`i*N + j`: the coefficient of i is N).
        """
        factor: list[tuple[Monomial, int]] = []
        for monomial, c in self.terms:
            count = 0
            for atom in monomial:
                if isinstance(atom, Var):
                    count += atom.name == name
                elif any(name in inner.variables() for inner in inside(atom)):
                    return None
            if count > 1:
                return None
            if count:
                factor.append((tuple([a for a in monomial if not (isinstance(a, Var) and a.name == name)]), c))
        return _collect(factor)

    def evaluate(self, values: Mapping[str, Any], datum: Callable[[Scalar], Any] | None = None) -> Any:
        """The value with every variable given, as int or integer arrays (broadcast); KeyError when one is missing."""
        total: Any = 0
        for monomial, c in self.terms:
            product: Any = c
            for atom in monomial:
                known = values[atom.name] if type(atom) is Var else evaluate_atom(atom, values, datum)
                product = product * known
            total = total + product
        return total

    def substitute(self, values: Mapping[str, IndexLike], scalar: Callable[[Scalar], Scalar] | None = None) -> Index:
        """The expression with variables replaced; `scalar` rewrites data reads (after the substitution inside)."""
        used = [name for name in self.variables() if name in values]
        if scalar is None or not self.data():
            if not used:
                return self
            used.sort()
            given = tuple([(name, index(values[name])) for name in used])
            if not self.data() and not any(value.data() for _, value in given):
                return _substituted(self, given)

        def change(atom: Atom) -> Index | None:
            return _substitute_atom(atom, values, scalar)

        return self.map_atoms(change)

    def map_atoms(self, change: Callable[[Atom], Index | None]) -> Index:
        """The expression with each outermost atom replaced by an expression (None keeps it)."""
        parts: list[tuple[Monomial, int]] = []
        changed = False
        for monomial, c in self.terms:
            kept: list[Atom] = []
            factor: Index | None = None
            for atom in monomial:
                new = change(atom)
                if new is None:
                    kept.append(atom)
                else:
                    factor = new if factor is None else factor * new
            if factor is None:
                parts.append((monomial, c))
                continue
            changed = True
            rest = tuple(kept)
            parts.extend([(join(rest, m) if rest else m, c * k) for m, k in factor.terms])
        return _collect(parts) if changed else self

    def limits(self, bounds: Bounds) -> tuple[int | None, int | None]:
        """Least and greatest value as integers; None where no limit is known."""
        from codesign.ir import ranges

        return ranges.limits(self, bounds)

    def proves_less(self, other: IndexLike, bounds: Bounds) -> bool:
        """True when `self < other` holds for all values inside the bounds (False means not proven)."""
        from codesign.ir import ranges

        return ranges.is_positive(index(other) - self, bounds)

    def proves_at_least(self, low: IndexLike, bounds: Bounds) -> bool:
        """True when `self >= low` holds for all values inside the bounds (False means not proven)."""
        from codesign.ir import ranges

        return ranges.is_positive(self - index(low) + 1, bounds)

    def simplify(self, bounds: Bounds) -> Index:
        """An equal expression for all values inside the bounds, with needless divisions and remainders gone."""
        from codesign.ir import ranges

        return ranges.simplify(self, bounds)

    # -- identity ---------------------------------------------------------------------------------------------------
    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Index):
            return hash(self) == hash(other) and self.terms == other.terms
        return isinstance(other, int) and self.is_constant and self.constant == other

    def __hash__(self) -> int:
        known = self._hash
        if known is None:
            known = self._hash = hash(self.constant) if self.is_constant else hash(self.terms)
        return known

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.terms,)

    def __str__(self) -> str:
        if self._text is None:
            self._text = print_terms(self)
        return self._text

    def __repr__(self) -> str:
        return f"Index({self})"


_VARIABLES: dict[str, Index] = {}
_SMALL = {value: Index((((), value),)) if value else Index(()) for value in range(-64, 1025)}


def index(value: IndexLike) -> Index:
    """An Index from an integer, a variable's name, or an Index."""
    if isinstance(value, Index):
        return value
    if isinstance(value, str):
        known = _VARIABLES.get(value)
        if known is None:
            known = _VARIABLES[value] = Index.atom(Var(value))
        return known
    value = int(value)
    return _SMALL[value] if value in _SMALL else Index((((), value),))


def ceildiv(a: IndexLike, b: IndexLike) -> Index:
    """`a / b` rounded up, for positive b."""
    divisor = index(b)
    return (index(a) + divisor - 1) // divisor


def minimum(*args: IndexLike) -> Index:
    """The least of the arguments."""
    return extremum("min", [index(arg) for arg in args])


def maximum(*args: IndexLike) -> Index:
    """The greatest of the arguments."""
    return extremum("max", [index(arg) for arg in args])


def extremum(kind: str, args: list[Index]) -> Index:
    """`min` or `max` of the arguments, constants folded and repetitions gone."""
    pick = min if kind == "min" else max
    constants = [arg.constant for arg in args if arg.is_constant]
    others = list(dict.fromkeys(arg for arg in args if not arg.is_constant))
    if constants:
        others.append(index(pick(constants)))
    return others[0] if len(others) == 1 else Index.atom(Extremum(kind, tuple(others)))


def product(values: Iterable[IndexLike]) -> Index:
    """The product of sizes; 1 when there are none."""
    total = index(1)
    for value in values:
        total = total * value
    return total


def divide(a: Index, b: Index) -> tuple[Index, Index]:
    """Quotient and remainder, exact without any knowledge of ranges."""
    return _divide(a, b) if a.data() or b.data() else _divided(a, b)


@lru_cache(maxsize=REMEMBERED)
def _divided(a: Index, b: Index) -> tuple[Index, Index]:
    return _divide(a, b)


def _divide(a: Index, b: Index) -> tuple[Index, Index]:
    if b.is_constant and b.constant == 0:
        raise ZeroDivisionError("index expression divided by zero")
    if a.is_constant and b.is_constant:
        return index(a.constant // b.constant), index(a.constant % b.constant)
    if b == 1:
        return a, index(0)
    whole, rest = split(a, b)
    if not rest.terms:
        return whole, rest
    if b.is_constant and b.constant > 0:
        divisor = b.constant
        if rest.is_constant:
            return whole + rest.constant // divisor, index(rest.constant % divisor)
        atom = rest.terms[0][0][0]
        alone = len(rest.terms) == 1 and rest.terms[0][1] == 1 and len(rest.terms[0][0]) == 1
        inner = atom.denominator if alone and isinstance(atom, (FloorDiv, Mod)) else None
        if inner is not None and inner.is_constant and inner.constant > 0:
            assert isinstance(atom, (FloorDiv, Mod))
            if isinstance(atom, FloorDiv):  # (x // a) // b == x // (a*b)
                quotient = atom.numerator // (inner * b)
                return whole + quotient, Index.atom(Mod(rest, b)) if quotient.terms else rest
            if inner.constant <= divisor:  # 0 <= x % a < b
                return whole, rest
            if inner.constant % divisor == 0:  # when b | a: (x % a) // b == (x // b) % (a // b), (x % a) % b == x % b
                quotient, remainder = divide(atom.numerator, b)
                return whole + quotient % (inner.constant // divisor), remainder
    return whole + Index.atom(FloorDiv(rest, b)), Index.atom(Mod(rest, b))


def split(a: Index, b: Index) -> tuple[Index, Index]:
    """Write a as b*whole + rest with as much as possible in whole (b a constant or a single monomial)."""
    if len(b.terms) != 1:
        return (index(1), index(0)) if a == b else (index(0), a)
    divisor_atoms, divisor = b.terms[0]
    whole: list[tuple[Monomial, int]] = []
    rest: list[tuple[Monomial, int]] = []
    for monomial, c in a.terms:
        remaining = without(monomial, divisor_atoms)
        if remaining is None or (divisor_atoms and c % divisor):
            rest.append((monomial, c))
            continue
        if c % divisor == 0:
            whole.append((remaining, c // divisor))
        elif not monomial:  # constant term: keep 0 <= offset < divisor
            if c // divisor:
                whole.append(((), c // divisor))
            rest.append(((), c % divisor))
        else:
            rest.append((monomial, c))
    if not whole:
        return index(0), a
    # parts of a normal form are in normal form, unless atoms were taken out of them
    return (_collect(whole) if divisor_atoms else Index(tuple(whole))), Index(tuple(rest))


def _plus_constant(a: Index, value: int) -> Index:
    if a.terms and not a.terms[-1][0]:
        total = a.terms[-1][1] + value
        return Index((*a.terms[:-1], ((), total))) if total else Index(a.terms[:-1])
    return Index((*a.terms, ((), value)))


def _times_constant(a: Index, factor: int) -> Index:
    if factor == 1:
        return a
    return Index(tuple([(monomial, c * factor) for monomial, c in a.terms])) if factor else index(0)


def _collect(parts: Iterable[tuple[Monomial, int]]) -> Index:
    """The normal form of a sum: like terms added, terms in order, quotients and remainders of one division joined."""
    sums: dict[Monomial, int] = {}
    for monomial, coefficient in parts:
        sums[monomial] = sums.get(monomial, 0) + coefficient
    kept = [(monomial, c) for monomial, c in sums.items() if c]
    if len(kept) > 1:
        kept.sort(key=term_key)
        if any(type(atom) is Mod for monomial, _ in kept for atom in monomial):
            return _rejoined(kept)
    return Index(tuple(kept))


def _rejoined(terms: list[tuple[Monomial, int]]) -> Index:
    """Replace `c*d*(x // d) + c*(x % d)` by `c*x`, and `c*d*((x // d) % e) + c*(x % d)` by `c*(x % (d*e))`."""
    present = dict(terms)
    for position, (monomial, c) in enumerate(terms):
        for atom in monomial:
            if not isinstance(atom, Mod):
                continue
            others = without(monomial, (atom,)) or ()
            factor = Index(((others, c),))
            inner = divide(atom.numerator, atom.denominator)[0]
            quotient = factor * atom.denominator * inner
            if quotient.terms and all(present.get(m) == k for m, k in quotient.terms):
                left = [t for i, t in enumerate(terms) if i != position and t not in quotient.terms]
                return Index(tuple(left)) + factor * atom.numerator
            if atom.denominator.is_constant:
                for other, k in terms:
                    (outer,) = only_other(other, others) or (None,)
                    if k != c * atom.denominator.constant or not isinstance(outer, Mod) or outer.numerator != inner:
                        continue
                    left = [t for t in terms if t[0] != monomial and t[0] != other]
                    return Index(tuple(left)) + factor * (atom.numerator % (atom.denominator * outer.denominator))
    return Index(tuple(terms))


@lru_cache(maxsize=REMEMBERED)
def _substituted(value: Index, given: tuple[tuple[str, Index], ...]) -> Index:
    """An expression without data, with variables replaced."""
    values = dict(given)
    return value.map_atoms(lambda atom: _substitute_atom(atom, values, None))


def _substitute_atom(
    atom: Atom, values: Mapping[str, IndexLike], scalar: Callable[[Scalar], Scalar] | None
) -> Index | None:
    """What the atom becomes; None when it stays."""
    if isinstance(atom, Var):
        return index(values[atom.name]) if atom.name in values else None
    if isinstance(atom, (FloorDiv, Mod)):
        top, bottom = atom.numerator.substitute(values, scalar), atom.denominator.substitute(values, scalar)
        if top is atom.numerator and bottom is atom.denominator:
            return None
        return divide(top, bottom)[0 if isinstance(atom, FloorDiv) else 1]
    if isinstance(atom, Extremum):
        args = [arg.substitute(values, scalar) for arg in atom.args]
        return None if all(a is b for a, b in zip(args, atom.args, strict=True)) else extremum(atom.kind, args)
    if isinstance(atom, Datum):
        inner = atom.scalar.substitute(values)
        inner = scalar(inner) if scalar else inner
        return inner.as_index()
    raise TypeError(f"unknown atom {atom!r}")
