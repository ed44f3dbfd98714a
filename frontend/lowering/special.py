"""Special functions by series: each term from the one before (Horner's rule), of as many as the dtype shows.

M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions" (1964): 9.6.10 and 9.7.1 for modified Bessel functions, 6.4.6 to 6.4.12 for
the derivative of digamma, 7.1.23 for erfc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from codesign.frontend.lowering.builder import Builder, literal, where
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value
from codesign.ir.dtypes import F64, DType
from codesign.ir.scalar import Scalar, apply


def horner(x: Scalar, coefficients: Sequence[float]) -> Scalar:
    """c0 + x (c1 + x (c2 + ...))"""
    found: Scalar = literal(coefficients[-1], x.dtype)
    for coefficient in reversed(coefficients[:-1]):
        found = apply("add", literal(coefficient, x.dtype), apply("mul", x, found))
    return found


# -- modified Bessel functions -------------------------------------------------------------------------------------------------
def _ends(kind: DType) -> tuple[float, int, int]:
    """Up to where the series goes, and the terms of it and of the asymptotic expansion after it, whose least term is about exp(-2 x)."""
    return (20.0, 52, 30) if kind is F64 else (12.0, 32, 12)


def _series(order: int, terms: int) -> list[float]:
    """Of (x^2 / 4)^k / (k! (k + order)!), without the factor (x / 2)^order."""
    return [1 / (math.factorial(k) * math.factorial(k + order)) for k in range(terms)]


def _expansion(order: int, terms: int) -> list[float]:
    """Of x^-k in sqrt(2 pi x) exp(-x) I(x)."""
    found, term = [1.0], Fraction(1)
    for k in range(1, terms):
        term *= Fraction((2 * k - 1) ** 2 - 4 * order**2, 8 * k)
        found.append(float(term))
    return found


@lower("aten.i0.default", "aten.special_i0e.default", "aten.special_i1.default", "aten.special_i1e.default")
def modified_bessel(b: Builder, x: Value) -> Value:
    """I of order 0 or 1, times exp(-|x|) where the name ends so."""
    kind, order = opmath(b.dtype), int("i1" in b.target)
    scaled = b.target.endswith("e.default")
    end, terms, later = _ends(kind)

    def body(a: Scalar) -> Scalar:
        size = apply("abs", a)
        near, far = apply("min", size, literal(end, kind)), apply("max", size, literal(end, kind))
        quarter = apply("mul", literal(0.25, kind), apply("mul", near, near))
        small = horner(quarter, _series(order, terms))
        if order:
            small = apply("mul", small, apply("mul", literal(0.5, kind), near))
        inverse = apply("div", literal(1, kind), far)
        root = apply("sqrt", apply("mul", literal(2 * math.pi, kind), far))
        large = apply("div", horner(inverse, _expansion(order, later)), root)
        if scaled:
            small = apply("mul", small, apply("exp", apply("neg", near)))
        else:
            large = apply("mul", large, apply("exp", far))
        value = where(apply("le", size, literal(end, kind)), small, large)
        value = where(apply("isnan", a), a, value)
        return where(apply("lt", a, literal(0, kind)), apply("neg", value), value) if order else value

    return b.pointwise(body, x, compute=kind)


# -- the gamma function ----------------------------------------------------------------------------------------------------------
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
_SHIFTS = 10
"""Steps of one until the expansion holds."""


@lower("aten.polygamma.default")
def polygamma(b: Builder, order: int, x: Value) -> Value:
    """digamma, or its derivative; higher ones stay a call."""
    if order > 1:
        result: Value = NotImplemented
        return result
    kind = opmath(b.dtype)
    return b.pointwise(_trigamma if order else (lambda a: apply("digamma", a)), x, compute=kind)


def _trigamma(a: Scalar) -> Scalar:
    """Sum of 1 / (x + k)^2: the first by themselves, the others by their expansion; below 1/2 pi^2 / sin^2(pi x) without that of 1 - x."""
    kind = a.dtype
    one, half = literal(1, kind), literal(0.5, kind)
    mirrored = apply("lt", a, half)
    x = where(mirrored, apply("sub", one, a), a)
    total: Scalar = literal(0, kind)
    for k in range(_SHIFTS):
        place = apply("add", x, literal(k, kind))
        total = apply("add", total, apply("div", one, apply("mul", place, place)))
    inverse = apply("div", one, apply("add", x, literal(_SHIFTS, kind)))
    squared = apply("mul", inverse, inverse)
    rest = apply("mul", apply("mul", inverse, squared), horner(squared, _BERNOULLI))
    total = apply("add", total, apply("add", apply("add", inverse, apply("mul", half, squared)), rest))
    turned = apply("sin", apply("mul", literal(math.pi, kind), apply("sub", a, apply("floor", a))))
    other = apply("div", literal(math.pi**2, kind), apply("mul", turned, turned))
    return where(mirrored, apply("sub", other, total), total)


# -- the error function ----------------------------------------------------------------------------------------------------------
_ABOVE = (
    557.535335369399327526,
    1027.55188689515710272,
    934.528527171957607540,
    526.445194995477358631,
    196.520832956077098242,
    48.6371970985681366614,
    7.46321056442269912687,
    0.564189564831068821977,
    2.46196981473530512524e-10,
)
_BELOW = (
    557.535340817727675546,
    1656.66309194161350182,
    2246.33760818710981792,
    1823.90916687909736289,
    975.708501743205489753,
    354.937778887819891062,
    86.7072140885989742329,
    13.2281951154744992508,
    1.0,
)
"""exp(x^2) erfc(x) for 1 <= x < 8 is a quotient of polynomials (S. Moshier, Cephes, ndtr.c)."""
_TERMS = 14


@lower("aten.special_erfcx.default")
def erfcx(b: Builder, x: Value) -> Value:
    """exp(x^2) erfc(x): by itself below 1, by a quotient of polynomials from there, and by the asymptotic expansion from 8 on."""
    kind = opmath(b.dtype)
    terms = [1.0]
    for k in range(1, _TERMS):
        terms.append(-terms[-1] * (2 * k - 1) / 2)

    def body(a: Scalar) -> Scalar:
        low = apply("min", a, literal(1, kind))
        middle = apply("min", apply("max", a, literal(1, kind)), literal(8, kind))
        high = apply("max", a, literal(8, kind))
        inverse = apply("div", literal(1, kind), high)
        first = apply("mul", apply("exp", apply("mul", low, low)), apply("erfc", low))
        second = apply("div", horner(middle, _ABOVE), horner(middle, _BELOW))
        third = apply(
            "mul",
            apply("mul", inverse, literal(1 / math.sqrt(math.pi), kind)),
            horner(apply("mul", inverse, inverse), terms),
        )
        value = where(apply("lt", a, literal(8, kind)), second, third)
        value = where(apply("lt", a, literal(1, kind)), first, value)
        return where(apply("isnan", a), a, value)

    return b.pointwise(body, x, compute=kind)
