"""Choices and counts that are drawn: orders, categories by their weights, events by their rate."""

from __future__ import annotations

from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.elementwise import converted
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.random import drawn
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.scans import scan, sorted_along
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F64, I64, DType
from codesign.ir.index import IndexLike, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast


@lower("aten.randperm.default")
def randperm(b: Builder, count: IndexLike, **_: Any) -> Value:
    """The order in which random words of 32 bits are sorted; of equal ones the first is first."""
    order = sorted_along(b, drawn(b, "bits"), 0, False, None, f"{b.name}_words")[1]
    return converted(b, order, b.dtype)


# -- categories ----------------------------------------------------------------------------------------------------------------
SHORTEST = 2.0**-25
"""Of waiting times: half of the least that a uniform number of 24 bits gives but for zero, in place of zero."""

WEIGHT_BITS = 38
"""Of the greatest weight of a row as a whole number: 2**24 of them, as many as torch takes, add up without overflow."""

WORD_BITS = 31


@lower("aten.multinomial.default")
def multinomial(b: Builder, weights: Value, count: int, replacement: bool = False, **_: Any) -> Value:
    """Positions along the last dim, drawn by their weights."""
    if replacement and count > 1:
        return _drawn_anew(b, weights, count)
    most = shape_of(weights)[-1]
    if most.is_constant and count > most.constant:
        raise b.unsupported(f"{count} of {most} categories, none of them twice", hint="draw fewer, or with replacement")
    return _raced(b, weights, count)


def _raced(b: Builder, weights: Value, count: int) -> Value:
    """Each position waits for an event that comes at its weight as the rate; those whose event comes first are drawn, in this order."""
    shape, compute = shape_of(weights), accumulator(tensor_type(weights).dtype)
    draws = drawn(b, "uniform", shape=shape)

    def pace(i: Point) -> Scalar:
        waited = apply("neg", apply("log1p", apply("neg", cast(read(draws, i), compute))))
        return apply("div", cast(read(weights, i), compute), apply("max", waited, literal(SHORTEST, compute)))

    paces = b.compute(shape, pace, name=f"{b.name}_paces")
    if count == 1:
        return b.reduce(
            "argmax", b.shape, shape[-1:], lambda i, r: read(paces, (*i[:-1], *r)), accumulate=compute, dtype=I64
        )
    return sorted_along(b, paces, len(shape) - 1, True, count, f"{b.name}_first")[1]


def _drawn_anew(b: Builder, weights: Value, count: int) -> Value:
    """How many running sums of the weights lie at or below a random share of their total; in whole numbers, whose sums are the same in any order."""
    shape, compute = shape_of(weights), accumulator(tensor_type(weights).dtype)
    rows = shape[:-1]

    def weight(i: Point, r: Point = ()) -> Scalar:
        return cast(read(weights, (*i, *r)), compute)

    greatest = b.reduce("max", rows, shape[-1:], weight, accumulate=compute, name=f"{b.name}_greatest")

    def whole(i: Point) -> Scalar:
        share = apply("div", weight(i), read(greatest, i[:-1]))
        return cast(apply("mul", share, literal(2.0**WEIGHT_BITS, compute)), I64)

    numbers = b.compute(shape, whole, name=f"{b.name}_weights")
    sums = scan(b, numbers, len(rows), "sum", I64, I64, f"{b.name}_sums")
    words = drawn(b, "bits")

    def below(i: Point, r: Point) -> Scalar:
        total = read(sums, (*i[:-1], shape[-1] - 1))
        word = apply("shr", read(words, i), literal(1, I64))
        high = apply("mul", apply("shr", total, literal(WORD_BITS, I64)), word)
        rest = apply("mul", apply("and", total, literal((1 << WORD_BITS) - 1, I64)), word)
        place = apply("add", high, apply("shr", rest, literal(WORD_BITS, I64)))
        return cast(apply("le", read(sums, (*i[:-1], *r)), place), I64)

    return b.reduce("sum", b.shape, shape[-1:], below, accumulate=I64)


# -- counts --------------------------------------------------------------------------------------------------------------------
FEW = 10.0
"""Rates below this one are counted by sums of chances, others by rejection, which is made for those from here on."""

COUNTS = 64
"""Counts that a rate below `FEW` can have: more have a chance below 1e-27."""

ROUNDS = 24
"""Proposals for a count, each of which is taken with a chance of 0.75 at least: none is, with a chance of 4e-15."""


@lower("aten.poisson.default")
def poisson(b: Builder, x: Value, *_: Any) -> Value:
    """How many events there are in a time in which a rate says how many to expect. In float64 throughout, where a rounding changes no count."""
    chance, proposals = drawn(b, "uniform"), drawn(b, "uniform", shape=(*b.shape, index(2 * ROUNDS)))
    few, many = _few_events(b, x, chance), _many_events(b, x, proposals)

    def body(i: Point) -> Scalar:
        fewer = apply("lt", _rate(x, i), literal(FEW, F64))
        return cast(where(fewer, cast(read(few, i), F64), read(many, i)), b.dtype)

    return b.compute(b.shape, body)


def _rate(x: Value, i: Point) -> Scalar:
    return cast(read(x, i), F64)


def _few_events(b: Builder, x: Value, chance: Value) -> Value:
    """The first count up to which the chances add up to more than a uniform number."""

    def density(i: Point) -> Scalar:
        rate, k = apply("min", _rate(x, i[:-1]), literal(FEW, F64)), cast(IndexValue(i[-1]), F64)
        falling = apply("neg", apply("add", rate, apply("lgamma", apply("add", k, literal(1, F64)))))
        return apply("mul", apply("pow", rate, k), apply("exp", falling))

    chances = b.compute((*b.shape, COUNTS), density, name=f"{b.name}_chances")
    sums = scan(b, chances, len(b.shape), "sum", F64, F64, f"{b.name}_up_to")

    def below(i: Point, r: Point) -> Scalar:
        return cast(apply("le", read(sums, (*i, *r)), cast(read(chance, i), F64)), I64)

    return b.reduce("sum", b.shape, (COUNTS,), below, accumulate=I64, name=f"{b.name}_few")


def _many_events(b: Builder, x: Value, proposals: Value) -> Value:
    """The first proposal that is taken (W. Hörmann, "The transformed rejection method for generating Poisson random variables", Insurance:
    Mathematics and Economics 12 (1993), algorithm PTRS)."""

    def taken(i: Point, r: Point) -> Scalar:
        return cast(_proposal(x, proposals, i, r[0])[1], I64)

    first = b.reduce("argmax", b.shape, (ROUNDS,), taken, accumulate=I64, dtype=I64, name=f"{b.name}_round")
    return b.compute(b.shape, lambda i: _proposal(x, proposals, i, read(first, i).as_index())[0], name=f"{b.name}_many")


def _proposal(x: Value, proposals: Value, i: Point, number: IndexLike) -> tuple[Scalar, Scalar]:
    """A count and whether it is taken."""
    f, number = _number, index(number)
    rate = apply("max", _rate(x, i), f(FEW))
    width = _sum(f(0.931), apply("mul", f(2.53), apply("sqrt", rate)))
    lean = _sum(f(-0.059), apply("mul", f(0.02483), width))
    side = apply("sub", cast(read(proposals, (*i, number * 2)), F64), f(0.5))
    height = apply("sub", f(1.0), cast(read(proposals, (*i, number * 2 + 1)), F64))
    edge = apply("sub", f(0.5), apply("abs", side))
    slope = _sum(apply("div", apply("mul", f(2.0), lean), edge), width)
    count = apply("floor", _sum(apply("mul", slope, side), _sum(rate, f(0.43))))
    inverse = _sum(f(1.1239), apply("div", f(1.1328), apply("sub", width, f(3.4))))
    squared = _sum(apply("div", lean, apply("mul", edge, edge)), width)
    left = apply("log", apply("div", apply("mul", height, inverse), squared))
    logged = apply("sub", apply("mul", count, apply("log", rate)), rate)
    right = apply("sub", logged, apply("lgamma", _sum(count, f(1.0))))
    whole = apply("and", apply("ge", count, f(0.0)), apply("ge", edge, f(2.0**-24)))
    return count, apply("and", whole, apply("le", left, right))


def _number(value: float, dtype: DType = F64) -> Scalar:
    return literal(value, dtype)


def _sum(a: Scalar, c: Scalar) -> Scalar:
    return apply("add", a, c)
