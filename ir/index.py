"""Index expressions: integer polynomials over dimensions and symbols, with floor division, remainder, minimum and maximum.

An `Index` is kept in one normal form, a sum of integer coefficients times products of atoms, so that equal polynomials
are equal objects and adding, cancelling and comparing need no rewriting. What needs knowledge of ranges (is `i % 8` just
`i`?) is done by `Index.simplify(bounds)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from codesign.ir.scalar import Scalar

IndexLike = Union["Index", int, str]
"""Anything `index()` takes: an Index, an integer, or the name of a dimension or symbol."""


class Atom:
    """A factor of a monomial: a variable, or an operation that is not polynomial."""

    __slots__ = ()

    def key(self) -> tuple[Any, ...]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Var(Atom):
    """A dimension of the surrounding iteration domain, a loop or grid index, or a size symbol."""

    name: str

    def key(self) -> tuple[Any, ...]:
        return (0, self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class FloorDiv(Atom):
    """`numerator // denominator`, rounding towards minus infinity."""

    numerator: Index
    denominator: Index

    def key(self) -> tuple[Any, ...]:
        return (1, str(self))

    def __str__(self) -> str:
        return f"({_wrapped(self.numerator)} // {_wrapped(self.denominator)})"


@dataclass(frozen=True, slots=True)
class Mod(Atom):
    """`numerator % denominator`, with the sign of the denominator."""

    numerator: Index
    denominator: Index

    def key(self) -> tuple[Any, ...]:
        return (2, str(self))

    def __str__(self) -> str:
        return f"({_wrapped(self.numerator)} % {_wrapped(self.denominator)})"


@dataclass(frozen=True, slots=True)
class Extremum(Atom):
    """`min(a, b, ...)` or `max(a, b, ...)`."""

    kind: str
    args: tuple[Index, ...]

    def key(self) -> tuple[Any, ...]:
        return (3, str(self))

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(map(str, self.args))})"


@dataclass(frozen=True, slots=True)
class Datum(Atom):
    """An integer read from data: what makes an access a gather, as `ids[i]` in `%table[%ids[i], j]`."""

    scalar: Scalar

    def key(self) -> tuple[Any, ...]:
        return (4, str(self.scalar))

    def __str__(self) -> str:
        return str(self.scalar)


Monomial = tuple[Atom, ...]


def _wrapped(value: Index) -> str:
    text = str(value)
    simple = value.is_constant or (len(value.terms) == 1 and value.terms[0][1] == 1 and len(value.terms[0][0]) == 1)
    return text if simple else f"({text})"


@dataclass(frozen=True)
class Bounds:
    """What is known of variables: `0 <= dim < extent` for dimensions, `low <= symbol <= high` for symbols.

    `high` None means no upper limit is known. Variables that appear in neither are unbounded.
    """

    extents: Mapping[str, Index] = field(default_factory=dict)
    symbols: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)

    def with_extents(self, extents: Mapping[str, Index]) -> Bounds:
        return Bounds({**self.extents, **extents}, self.symbols)


class Index:
    """An integer expression in normal form; immutable and hashable."""

    __slots__ = ("_data", "_hash", "_text", "terms")
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash: int | None = None
        self._text: str | None = None
        self._data: tuple[Scalar, ...] | None = None

    # -- building ---------------------------------------------------------------------------------------------------
    @staticmethod
    def _collect(parts: Iterable[tuple[Monomial, int]]) -> Index:
        sums: dict[Monomial, int] = {}
        for monomial, coefficient in parts:
            sums[monomial] = sums.get(monomial, 0) + coefficient
        kept = [(monomial, c) for monomial, c in sums.items() if c]
        kept.sort(key=lambda item: (not item[0], [atom.key() for atom in item[0]]))
        return Index(tuple(_rejoin(kept)))

    @staticmethod
    def atom(atom: Atom) -> Index:
        return Index((((atom,), 1),))

    def __add__(self, other: IndexLike) -> Index:
        return Index._collect((*self.terms, *index(other).terms))

    __radd__ = __add__

    def __neg__(self) -> Index:
        return Index(tuple((monomial, -c) for monomial, c in self.terms))

    def __sub__(self, other: IndexLike) -> Index:
        return self + -index(other)

    def __rsub__(self, other: IndexLike) -> Index:
        return index(other) - self

    def __mul__(self, other: IndexLike) -> Index:
        right = index(other)
        return Index._collect(
            (tuple(sorted((*a, *b), key=lambda atom: atom.key())), ca * cb) for a, ca in self.terms for b, cb in right.terms
        )

    __rmul__ = __mul__

    def __floordiv__(self, other: IndexLike) -> Index:
        return _divide(self, index(other))[0]

    def __rfloordiv__(self, other: IndexLike) -> Index:
        return index(other) // self

    def __mod__(self, other: IndexLike) -> Index:
        return _divide(self, index(other))[1]

    # -- asking -----------------------------------------------------------------------------------------------------
    @property
    def is_constant(self) -> bool:
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
        return next((c for monomial, c in self.terms if not monomial), 0)

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
                if isinstance(atom, (FloorDiv, Mod)):
                    yield from atom.numerator.atoms()
                    yield from atom.denominator.atoms()
                elif isinstance(atom, Extremum):
                    for arg in atom.args:
                        yield from arg.atoms()
                elif isinstance(atom, Datum):
                    for node in atom.scalar.walk():
                        for inner in node.index_expressions():
                            yield from inner.atoms()

    def variables(self) -> frozenset[str]:
        """Names of all variables in it, at any depth."""
        return frozenset(atom.name for atom in self.atoms() if isinstance(atom, Var))

    def data(self) -> tuple[Scalar, ...]:
        """The data-dependent scalars in it, in order."""
        if self._data is None:
            self._data = tuple(dict.fromkeys(atom.scalar for atom in self.atoms() if isinstance(atom, Datum)))
        return self._data

    def coefficient(self, name: str) -> Index | None:
        """The factor of variable `name` when the expression is linear in it (0 when absent), else None.

        The factor may hold other variables (`i*N + j`: the coefficient of i is N).
        """
        factor: list[tuple[Monomial, int]] = []
        for monomial, c in self.terms:
            rest = [atom for atom in monomial if not (isinstance(atom, Var) and atom.name == name)]
            if any(name in Index.atom(atom).variables() for atom in rest):
                return None
            if len(rest) == len(monomial):
                continue
            if len(rest) != len(monomial) - 1:
                return None
            factor.append((tuple(rest), c))
        return Index._collect(factor)

    def evaluate(self, values: Mapping[str, Any], datum: Callable[[Scalar], Any] | None = None) -> Any:
        """The value with every variable given, as int or NumPy integer arrays (broadcast); KeyError when one is missing."""
        total: Any = 0
        for monomial, c in self.terms:
            product: Any = c
            for atom in monomial:
                product = product * _evaluate_atom(atom, values, datum)
            total = total + product
        return total

    def substitute(
        self, values: Mapping[str, IndexLike], scalar: Callable[[Scalar], Scalar] | None = None
    ) -> Index:
        """The expression with variables replaced; `scalar` rewrites data reads (given the chance to substitute inside)."""
        total = index(0)
        for monomial, c in self.terms:
            product = index(c)
            for atom in monomial:
                product = product * _substitute_atom(atom, values, scalar)
            total = total + product
        return total

    def limits(self, bounds: Bounds) -> tuple[int | None, int | None]:
        """Least and greatest value as integers; None where no limit is known."""
        return _limits(self, bounds)

    def proves_less(self, other: IndexLike, bounds: Bounds) -> bool:
        """True when `self < other` holds for all values inside the bounds (False means not proven)."""
        difference = index(other) - self
        low, _ = _limits(_minimised(difference, bounds), bounds)
        return low is not None and low >= 1

    def proves_at_least(self, low: IndexLike, bounds: Bounds) -> bool:
        """True when `self >= low` holds for all values inside the bounds (False means not proven)."""
        return (index(low) - 1).proves_less(self, bounds)

    def simplify(self, bounds: Bounds) -> Index:
        """An equal expression for all values inside the bounds, with needless divisions and remainders gone."""
        total = index(0)
        for monomial, c in self.terms:
            product = index(c)
            for atom in monomial:
                product = product * _simplify_atom(atom, bounds)
            total = total + product
        return total

    # -- identity ---------------------------------------------------------------------------------------------------
    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.is_constant and self.constant == other
        return isinstance(other, Index) and hash(self) == hash(other) and self.terms == other.terms

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.constant) if self.is_constant else hash(self.terms)
        return self._hash

    def __str__(self) -> str:
        if self._text is None:
            self._text = _print(self)
        return self._text

    def __repr__(self) -> str:
        return f"Index({self})"


def index(value: IndexLike) -> Index:
    """An Index from an integer, a variable's name, or an Index."""
    if isinstance(value, Index):
        return value
    if isinstance(value, str):
        return Index.atom(Var(value))
    value = int(value)
    return Index((((), value),)) if value else Index(())


def ceildiv(a: IndexLike, b: IndexLike) -> Index:
    """`a / b` rounded up, for positive b."""
    divisor = index(b)
    return (index(a) + divisor - 1) // divisor


def minimum(*args: IndexLike) -> Index:
    """The least of the arguments."""
    return _extremum("min", [index(arg) for arg in args])


def maximum(*args: IndexLike) -> Index:
    """The greatest of the arguments."""
    return _extremum("max", [index(arg) for arg in args])


def _extremum(kind: str, args: list[Index]) -> Index:
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


def _divide(a: Index, b: Index) -> tuple[Index, Index]:
    """Quotient and remainder, exact without any knowledge of ranges."""
    if b.is_constant and b.constant == 0:
        raise ZeroDivisionError("index expression divided by zero")
    if a.is_constant and b.is_constant:
        return index(a.constant // b.constant), index(a.constant % b.constant)
    if b == 1:
        return a, index(0)
    whole, rest = _split(a, b)
    if not rest.terms:
        return whole, index(0)
    if b.is_constant and b.constant > 0 and rest.is_constant:
        quotient, remainder = divmod(rest.constant, b.constant)
        return whole + quotient, index(remainder)
    if len(rest.terms) == 1 and rest.terms[0][1] == 1 and len(rest.terms[0][0]) == 1:
        atom = rest.terms[0][0][0]
        if isinstance(atom, FloorDiv) and b.is_constant and b.constant > 0:  # (x // a) // b == x // (a*b)
            if atom.denominator.is_constant and atom.denominator.constant > 0:
                quotient_index = atom.numerator // (atom.denominator * b)
                return whole + quotient_index, Index.atom(Mod(rest, b))
        if isinstance(atom, Mod) and b.is_constant and atom.denominator.is_constant:  # (x % a) % b == x % b when b | a
            if b.constant > 0 and atom.denominator.constant % b.constant == 0:
                return whole + Index.atom(FloorDiv(rest, b)), atom.numerator % b
    return whole + Index.atom(FloorDiv(rest, b)), Index.atom(Mod(rest, b))


def _split(a: Index, b: Index) -> tuple[Index, Index]:
    """Write a as b*whole + rest with as much as possible in whole (b a constant or a single monomial)."""
    if len(b.terms) != 1:
        return (index(1), index(0)) if a == b else (index(0), a)
    divisor_atoms, divisor = b.terms[0]
    whole: list[tuple[Monomial, int]] = []
    rest: list[tuple[Monomial, int]] = []
    for monomial, c in a.terms:
        remaining = _without(monomial, divisor_atoms)
        if remaining is None or (divisor_atoms and c % divisor):
            rest.append((monomial, c))
            continue
        if c % divisor == 0:
            whole.append((remaining, c // divisor))
        elif not monomial:  # constant term: keep 0 <= offset < divisor
            whole.append(((), c // divisor))
            rest.append(((), c % divisor))
        else:
            rest.append((monomial, c))
    return Index._collect(whole), Index._collect(rest)


def _without(monomial: Monomial, factors: Monomial) -> Monomial | None:
    remaining = list(monomial)
    for factor in factors:
        if factor not in remaining:
            return None
        remaining.remove(factor)
    return tuple(remaining)


def _rejoin(terms: list[tuple[Monomial, int]]) -> list[tuple[Monomial, int]]:
    """Replace `c*d*(x // d) + c*(x % d)` by `c*x`."""
    for position, (monomial, c) in enumerate(terms):
        for atom in monomial:
            if not isinstance(atom, Mod):
                continue
            others = _without(monomial, (atom,)) or ()
            quotient = Index(((others, c),)) * atom.denominator * (atom.numerator // atom.denominator)
            present = dict(terms)
            if quotient.terms and all(present.get(m) == k for m, k in quotient.terms):
                left = [t for i, t in enumerate(terms) if i != position and t not in quotient.terms]
                return list((Index(tuple(left)) + Index(((others, c),)) * atom.numerator).terms)
    return terms


def _evaluate_atom(atom: Atom, values: Mapping[str, Any], datum: Callable[[Scalar], Any] | None) -> Any:
    import numpy as np

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


def _substitute_atom(atom: Atom, values: Mapping[str, IndexLike], scalar: Callable[[Scalar], Scalar] | None) -> Index:
    if isinstance(atom, Var):
        return index(values[atom.name]) if atom.name in values else Index.atom(atom)
    if isinstance(atom, FloorDiv):
        return atom.numerator.substitute(values, scalar) // atom.denominator.substitute(values, scalar)
    if isinstance(atom, Mod):
        return atom.numerator.substitute(values, scalar) % atom.denominator.substitute(values, scalar)
    if isinstance(atom, Extremum):
        return _extremum(atom.kind, [arg.substitute(values, scalar) for arg in atom.args])
    if isinstance(atom, Datum):
        inner = atom.scalar.substitute(values)
        inner = scalar(inner) if scalar else inner
        return inner.as_index()
    raise TypeError(f"unknown atom {atom!r}")


def _simplify_atom(atom: Atom, bounds: Bounds) -> Index:
    if isinstance(atom, FloorDiv):
        return _simplify_division(atom.numerator.simplify(bounds), atom.denominator.simplify(bounds), bounds)[0]
    if isinstance(atom, Mod):
        return _simplify_division(atom.numerator.simplify(bounds), atom.denominator.simplify(bounds), bounds)[1]
    if isinstance(atom, Extremum):
        args = [arg.simplify(bounds) for arg in atom.args]
        kept: list[Index] = []
        for i, arg in enumerate(args):
            others = [other for j, other in enumerate(args) if j != i and (other in kept or j > i)]
            if atom.kind == "min" and any(arg.proves_at_least(other, bounds) for other in others):
                continue
            if atom.kind == "max" and any(other.proves_at_least(arg, bounds) for other in others):
                continue
            kept.append(arg)
        return _extremum(atom.kind, kept)
    if isinstance(atom, Var) and atom.name in bounds.extents and bounds.extents[atom.name] == 1:
        return index(0)
    return Index.atom(atom)


def _simplify_division(a: Index, b: Index, bounds: Bounds) -> tuple[Index, Index]:
    if b == 1:
        return a, index(0)
    whole, rest = _split(a, b)
    if not rest.terms:
        return whole, index(0)
    if rest.proves_at_least(0, bounds) and rest.proves_less(b, bounds):
        return whole, rest
    if b.is_constant and b.constant > 0:
        divisor = b.constant
        low, high = rest.limits(bounds)
        if low is not None and high is not None and low // divisor == high // divisor:
            return whole + low // divisor, rest - divisor * (low // divisor)
        steps = sorted({math.gcd(c, divisor) for monomial, c in rest.terms if monomial}, reverse=True)
        for step in steps:  # rest = step*a' + b' with 0 <= b' < step, step | divisor
            if step <= 1 or divisor % step:
                continue
            coarse, fine = _split(rest, index(step))
            if coarse.terms and (
                not fine.terms or (fine.proves_at_least(0, bounds) and fine.proves_less(step, bounds))
            ):
                quotient, remainder = _divide(coarse, index(divisor // step))
                if (coarse.terms, divisor) != (rest.terms, divisor):
                    quotient = quotient.simplify(bounds)
                    remainder = remainder.simplify(bounds)
                return whole + quotient, remainder * step + fine
    elif len(b.terms) == 1:  # a product of symbols: peel factors, (f*a' + b') // (f*g) = a' // g when 0 <= b' < f
        atoms, c = b.terms[0]
        for factor in [Index.atom(atom) for atom in atoms] + ([index(c)] if abs(c) != 1 else []):
            if factor == b:
                continue
            coarse, fine = _split(rest, factor)
            if coarse.terms and fine.proves_at_least(0, bounds) and fine.proves_less(factor, bounds):
                other = _split(b, factor)[0]
                quotient, remainder = _simplify_division(coarse, other, bounds)
                return whole + quotient, remainder * factor + fine
    quotient, remainder = _divide(rest, b)
    return whole + quotient, remainder


def _minimised(value: Index, bounds: Bounds) -> Index:
    """A lower bound of the value with dimensions replaced by the end of their range that makes it least, symbols kept."""
    for name in sorted(value.variables() & bounds.extents.keys()):
        factor = value.coefficient(name)
        if factor is None:
            continue
        low, high = _limits(factor, bounds)
        if low is not None and low >= 0:
            value = value.substitute({name: 0})
        elif high is not None and high <= 0:
            value = value.substitute({name: bounds.extents[name] - 1})
    return value


def _limits(value: Index, bounds: Bounds) -> tuple[int | None, int | None]:
    low: int | None = 0
    high: int | None = 0
    for monomial, c in value.terms:
        term: tuple[int | None, int | None] = (1, 1)
        for atom in monomial:
            term = _interval_product(term, _atom_limits(atom, bounds))
        scaled = _interval_product(term, (c, c))
        low = None if low is None or scaled[0] is None else low + scaled[0]
        high = None if high is None or scaled[1] is None else high + scaled[1]
    return low, high


def _interval_product(a: tuple[int | None, int | None], b: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    if a == (0, 0) or b == (0, 0):
        return 0, 0
    corners: list[float] = []
    for x in (-math.inf if a[0] is None else a[0], math.inf if a[1] is None else a[1]):
        for y in (-math.inf if b[0] is None else b[0], math.inf if b[1] is None else b[1]):
            corners.append(0.0 if x == 0 or y == 0 else x * y)
    low, high = min(corners), max(corners)
    return None if math.isinf(low) else int(low), None if math.isinf(high) else int(high)


def _atom_limits(atom: Atom, bounds: Bounds) -> tuple[int | None, int | None]:
    if isinstance(atom, Var):
        if atom.name in bounds.extents:
            _, high = _limits(bounds.extents[atom.name], bounds)
            return 0, None if high is None else max(high - 1, 0)
        return bounds.symbols.get(atom.name, (None, None))
    if isinstance(atom, FloorDiv):
        low, high = _limits(atom.numerator, bounds)
        dlow, dhigh = _limits(atom.denominator, bounds)
        if dlow is None or dlow < 1:
            return None, None
        ends = [d for d in (dlow, dhigh) if d is not None]
        zero = [0] if dhigh is None else []  # division by an unbounded denominator tends to 0 (or -1)
        new_low = None if low is None else min([low // d for d in ends] + (zero if low >= 0 else [-1]))
        new_high = None if high is None else max([high // d for d in ends] + (zero if high >= 0 else [-1]))
        return new_low, new_high
    if isinstance(atom, Mod):
        dlow, dhigh = _limits(atom.denominator, bounds)
        if dlow is None or dlow < 1:
            return None, None
        low, high = _limits(atom.numerator, bounds)
        top = None if dhigh is None else dhigh - 1
        if low is not None and low >= 0 and high is not None:
            top = high if top is None else min(top, high)
        return 0, top
    if isinstance(atom, Extremum):
        lows, highs = zip(*(_limits(arg, bounds) for arg in atom.args), strict=True)
        known_lows = [low for low in lows if low is not None]
        known_highs = [high for high in highs if high is not None]
        if atom.kind == "min":
            return (min(known_lows) if len(known_lows) == len(lows) else None), min(known_highs, default=None)
        return max(known_lows, default=None), (max(known_highs) if len(known_highs) == len(highs) else None)
    return None, None


def _print(value: Index) -> str:
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
