"""What follows from ranges of variables: limits of index expressions, proofs of inequalities, simplification."""

from __future__ import annotations

import math

from codesign.ir.index import (
    Atom,
    Bounds,
    Extremum,
    FloorDiv,
    Index,
    Mod,
    Monomial,
    Var,
    divide,
    extremum,
    index,
    split,
)

Limits = tuple[int | None, int | None]
"""Least and greatest value, None where there is no limit."""


# -- limits -----------------------------------------------------------------------------------------------------------
def limits(value: Index, bounds: Bounds) -> Limits:
    """Least and greatest value by interval arithmetic: never too narrow, maybe too wide."""
    low: int | None = 0
    high: int | None = 0
    for monomial, c in value.terms:
        term = _monomial_limits(monomial, bounds)
        scaled = (
            (None if term[0] is None else term[0] * c, None if term[1] is None else term[1] * c)
            if c > 0
            else (None if term[1] is None else term[1] * c, None if term[0] is None else term[0] * c)
        )
        low = None if low is None or scaled[0] is None else low + scaled[0]
        high = None if high is None or scaled[1] is None else high + scaled[1]
    return low, high


def _monomial_limits(monomial: Monomial, bounds: Bounds) -> Limits:
    if not monomial:
        return 1, 1
    term = _atom_limits(monomial[0], bounds)
    for atom in monomial[1:]:
        term = _interval_product(term, _atom_limits(atom, bounds))
    return term


def _interval_product(a: Limits, b: Limits) -> Limits:
    if a == (0, 0) or b == (0, 0):
        return 0, 0
    if None not in a and None not in b:
        corners = [x * y for x in a for y in b if x is not None and y is not None]
        return min(corners), max(corners)
    ends: list[float] = []
    for x in (-math.inf if a[0] is None else a[0], math.inf if a[1] is None else a[1]):
        for y in (-math.inf if b[0] is None else b[0], math.inf if b[1] is None else b[1]):
            ends.append(0 if x == 0 or y == 0 else x * y)
    low, high = min(ends), max(ends)
    return None if math.isinf(low) else int(low), None if math.isinf(high) else int(high)


def _atom_limits(atom: Atom, bounds: Bounds) -> Limits:
    found: Limits | None = bounds.memo.get(atom)
    if found is None:
        found = _find_atom_limits(atom, bounds)
        bounds.remember(atom, found)
    return found


def _find_atom_limits(atom: Atom, bounds: Bounds) -> Limits:
    if isinstance(atom, Var):
        if atom.name in bounds.extents:
            _, high = limits(bounds.extents[atom.name], bounds)
            return 0, None if high is None else max(high - 1, 0)
        return bounds.symbols.get(atom.name, (None, None))
    if isinstance(atom, FloorDiv):
        return _quotient_limits(limits(atom.numerator, bounds), limits(atom.denominator, bounds))
    if isinstance(atom, Mod):
        dlow, dhigh = limits(atom.denominator, bounds)
        if dlow is None or dlow < 1:
            return None, None
        low, high = limits(atom.numerator, bounds)
        top = None if dhigh is None else dhigh - 1
        if low is not None and low >= 0 and high is not None:
            top = high if top is None else min(top, high)
        return 0, top
    if isinstance(atom, Extremum):
        lows, highs = zip(*(limits(arg, bounds) for arg in atom.args), strict=True)
        known_lows = [low for low in lows if low is not None]
        known_highs = [high for high in highs if high is not None]
        if atom.kind == "min":
            return (min(known_lows) if len(known_lows) == len(lows) else None), min(known_highs, default=None)
        return max(known_lows, default=None), (max(known_highs) if len(known_highs) == len(highs) else None)
    return None, None


def _quotient_limits(top: Limits, bottom: Limits) -> Limits:
    (low, high), (dlow, dhigh) = top, bottom
    if dlow is None or dlow < 1:
        return None, None
    ends = [dlow] if dhigh is None else [dlow, dhigh]
    unbounded = dhigh is None  # division by an unbounded denominator tends to 0, from below to -1
    new_low = None if low is None else min([low // d for d in ends] + ([0 if low >= 0 else -1] if unbounded else []))
    new_high = (
        None if high is None else max([high // d for d in ends] + ([0 if high >= 0 else -1] if unbounded else []))
    )
    return new_low, new_high


# -- proofs -----------------------------------------------------------------------------------------------------------
def is_positive(value: Index, bounds: Bounds) -> bool:
    """True when `value >= 1` holds for all values inside the bounds (False means not proven)."""
    key = ("positive", value)
    known: bool | None = bounds.memo.get(key)
    if known is None:
        known = _prove_positive(value, bounds, 6)
        bounds.remember(key, known)
    return known


def _prove_positive(value: Index, bounds: Bounds, effort: int) -> bool:
    low, high = limits(value, bounds)
    if low is not None and low >= 1:
        return True
    if high is not None and high < 1:
        return False
    least = _minimised(value, bounds)
    if least is not value:
        low, _ = limits(least, bounds)
        if low is not None and low >= 1:
            return True
    if effort == 0:
        return False
    return any(_prove_positive(below, bounds, effort - 1) for below in _relaxed(least, bounds))


def _minimised(value: Index, bounds: Bounds) -> Index:
    """A lower bound of the value: dimensions at the end of their range that makes it least, symbols kept."""
    for name in sorted(value.variables() & bounds.extents.keys()):
        factor = value.coefficient(name)
        if factor is None or not factor.terms:
            continue
        low, high = limits(factor, bounds)
        if low is not None and low >= 0:
            value = value.substitute({name: 0})
        elif high is not None and high <= 0:
            value = value.substitute({name: bounds.extents[name] - 1})
    return value


def _relaxed(value: Index, bounds: Bounds) -> list[Index]:
    """Expressions whose being positive makes the value positive, with its first division, remainder or extremum gone."""
    for position, (monomial, c) in enumerate(value.terms):
        inner = [atom for atom in monomial if isinstance(atom, (FloorDiv, Mod, Extremum))]
        if len(inner) != 1:
            continue
        (atom,) = inner
        factor = index(c)
        for other in monomial:
            if other is not atom:
                factor = factor * Index.atom(other)
        sign = limits(factor, bounds)
        rising, falling = sign[0] is not None and sign[0] >= 0, sign[1] is not None and sign[1] <= 0
        if not (rising or falling):
            continue
        rest = Index((*value.terms[:position], *value.terms[position + 1 :]))
        if isinstance(atom, Extremum):
            if (atom.kind == "max") == rising:
                return [rest + factor * arg for arg in atom.args]
            continue
        divisor = atom.denominator
        least, _ = limits(divisor, bounds)
        if least is None or least < 1:
            continue
        if isinstance(atom, Mod):  # 0 <= x % d <= d - 1
            return [rest if rising else rest + factor * (divisor - 1)]
        top = atom.numerator if falling else atom.numerator - divisor + 1  # x - d + 1 <= d*(x // d) <= x
        return [rest * divisor + factor * top]
    return []


# -- simplification ---------------------------------------------------------------------------------------------------
def simplify(value: Index, bounds: Bounds) -> Index:
    """An equal expression for all values inside the bounds, with needless divisions and remainders gone."""
    key = ("simplify", value)
    found: Index | None = bounds.memo.get(key)
    if found is None:
        found = value.map_atoms(lambda atom: _simplify_atom(atom, bounds))
        bounds.remember(key, found)
    return found


def _simplify_atom(atom: Atom, bounds: Bounds) -> Index | None:
    if isinstance(atom, Var):
        return index(0) if bounds.extents.get(atom.name) == 1 else None
    if isinstance(atom, FloorDiv):
        return _simplify_division(simplify(atom.numerator, bounds), simplify(atom.denominator, bounds), bounds)[0]
    if isinstance(atom, Mod):
        return _simplify_division(simplify(atom.numerator, bounds), simplify(atom.denominator, bounds), bounds)[1]
    if isinstance(atom, Extremum):
        args = [simplify(arg, bounds) for arg in atom.args]
        kept: list[Index] = []
        for position, arg in enumerate(args):
            others = [*kept, *args[position + 1 :]]
            if atom.kind == "min" and any(arg.proves_at_least(other, bounds) for other in others):
                continue
            if atom.kind == "max" and any(other.proves_at_least(arg, bounds) for other in others):
                continue
            kept.append(arg)
        return extremum(atom.kind, kept)
    return None


def _simplify_division(a: Index, b: Index, bounds: Bounds) -> tuple[Index, Index]:
    if b == 1:
        return a, index(0)
    whole, rest = split(a, b)
    if not rest.terms:
        return whole, index(0)
    if is_positive(rest + 1, bounds) and is_positive(b - rest, bounds):
        return whole, rest
    if b.is_constant and b.constant > 0:
        divisor = b.constant
        low, high = limits(rest, bounds)
        if low is not None and high is not None and low // divisor == high // divisor:
            return whole + low // divisor, rest - divisor * (low // divisor)
        steps = sorted({math.gcd(c, divisor) for monomial, c in rest.terms if monomial}, reverse=True)
        for step in steps:  # rest = step*a' + b' with 0 <= b' < step, step | divisor
            if step <= 1 or divisor % step:
                continue
            coarse, fine = split(rest, index(step))
            if coarse.terms and _within(fine, index(step), bounds):
                quotient, remainder = divide(coarse, index(divisor // step))
                if coarse.terms != rest.terms:
                    quotient, remainder = simplify(quotient, bounds), simplify(remainder, bounds)
                return whole + quotient, remainder * step + fine
    elif len(b.terms) == 1:  # a product of symbols: peel factors, (f*a' + b') // (f*g) = a' // g when 0 <= b' < f
        atoms, c = b.terms[0]
        for factor in [Index.atom(atom) for atom in atoms] + ([index(c)] if abs(c) != 1 else []):
            if factor == b:
                continue
            coarse, fine = split(rest, factor)
            if coarse.terms and _within(fine, factor, bounds):
                other = split(b, factor)[0]
                quotient, remainder = _simplify_division(coarse, other, bounds)
                return whole + quotient, remainder * factor + fine
    quotient, remainder = divide(rest, b)
    return whole + quotient, remainder


def _within(value: Index, size: Index, bounds: Bounds) -> bool:
    """Whether `0 <= value < size` is proven."""
    return not value.terms or (is_positive(value + 1, bounds) and is_positive(size - value, bounds))
