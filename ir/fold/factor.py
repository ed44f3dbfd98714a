"""Whether a reduction's body is a product of a part of the element and one of earlier results.

`exp(x - m) / s * v`, with a maximum m over x and a sum s to come, is `exp(x - r) * v` of the element, where r refers to the maximum so far;
what was summed at r becomes what it is at r' by `exp(r - r')`, and in the end is divided by s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from codesign.ir.analysis import is_exact_cast
from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL
from codesign.ir.fold.forms import Forms, without
from codesign.ir.fold.state import Part, Reference
from codesign.ir.precision import ARITHMETIC
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply, cast, select

Wrap = Callable[[Scalar], Scalar]

SAME_RANGE = {("f32", "bf16"), ("f64", "f64"), ("f32", "f32")}
"""Conversions of floats that keep the range of exponents: what is scaled before such a one may be scaled after it instead."""


PRODUCTS = frozenset(row.function for row in ARITHMETIC.values())


@dataclass(frozen=True)
class Last:
    """What is done to a reduction's total in the end: multiplied or divided by a value, or kept only where a condition holds.

    `kind`: "mul", "div", "add", or "where" and "unless" the value holds, with zero elsewhere.
    """

    kind: str
    value: Scalar

    def applied(self, total: Scalar) -> Scalar:
        if self.kind in ("where", "unless"):
            zero = Literal(0, total.dtype)
            return select(self.value, total, zero) if self.kind == "where" else select(self.value, zero, total)
        return apply(self.kind, total, cast(self.value, total.dtype))


@dataclass(frozen=True)
class Factored:
    """A body as `element` times what follows from references (by `rescales` from old to new ones), and what is done `last`.

    `bounded`: the element is at most about one where it is finite, so that no conversion overflows.
    """

    element: Scalar | None
    rescales: tuple[Scalar, ...] = ()
    last: tuple[Last, ...] = ()
    bounded: bool = False

    def body(self, like: Scalar) -> Scalar:
        return Literal(1, like.dtype) if self.element is None else self.element


@dataclass
class Factoring:
    """Factors bodies of a chain of reductions; `parts`: those before, by their results; `refer` makes a part one that is referred to."""

    forms: Forms
    parts: Mapping[Value, Part]
    refer: Callable[[Part], Reference]
    _known: dict[int, tuple[Scalar, Factored | None]] = field(default_factory=dict)

    def factor(self, node: Scalar) -> Factored | None:
        """The factors of an expression in which members that follow from earlier results are written out; None where it has none."""
        known = self._known.get(id(node))
        if known is None:
            known = self._known[id(node)] = node, self._factor(node)
        return known[1]

    def _factor(self, node: Scalar) -> Factored | None:
        if not self.forms.is_late(node):
            return Factored(node, bounded=_greatest(node) <= 2.0**8)
        if not self.forms.is_element(node):
            return Factored(None, last=(Last("mul", node),), bounded=True) if node.dtype.is_float else None
        if not isinstance(node, Apply) or not node.dtype.is_float:
            return None
        return _RULES[node.function](self, node) if node.function in _RULES else None

    # -- rules, one a function -------------------------------------------------------------------------------------
    def product(self, node: Apply) -> Factored | None:
        left, right = (self.factor(arg) for arg in node.args)
        if left is None or right is None:
            return None
        if left.element is None or right.element is None:
            element = left.element or right.element
        else:
            element = apply(node.function, left.element, right.element)
        return Factored(element, left.rescales + right.rescales, left.last + right.last, left.bounded and right.bounded)

    def quotient(self, node: Apply) -> Factored | None:
        above, below = self.factor(node.args[0]), node.args[1]
        if above is None:
            return None
        if not self.forms.is_element(below) and self.forms.is_late(below):
            return Factored(above.element, above.rescales, (*above.last, Last("div", below)), above.bounded)
        if self.forms.is_late(below):
            return None
        return Factored(apply("div", above.body(node), below), above.rescales, above.last)

    def negation(self, node: Apply) -> Factored | None:
        inner = self.factor(node.args[0])
        if inner is None:
            return None
        return Factored(apply("neg", inner.body(node)), inner.rescales, inner.last, inner.bounded)

    def conversion(self, node: Apply) -> Factored | None:
        """A conversion that may round goes with the element, if what was multiplied in before it can't have been needed to keep in range."""
        source = node.args[0]
        if not source.dtype.is_float:
            return None
        inner = self.factor(source)
        if inner is None:
            return None
        wide = is_exact_cast(source.dtype, node.dtype) or (source.dtype.name, node.dtype.name) in SAME_RANGE
        if not (wide or inner.bounded):
            return None
        return Factored(cast(inner.body(source), node.dtype), inner.rescales, inner.last, inner.bounded)

    def sum(self, node: Apply) -> Factored | None:
        left, right = (self.factor(arg) for arg in node.args)
        if left is None or right is None or (left.rescales, left.last) != (right.rescales, right.last):
            return None
        element = apply(node.function, left.body(node), right.body(node))
        return Factored(element, left.rescales, left.last, left.bounded and right.bounded)

    def choice(self, node: Apply) -> Factored | None:
        """Zero where a condition says so, of the element or of earlier results."""
        condition, yes, no = node.args
        zero = next((i for i, arg in ((1, yes), (2, no)) if isinstance(arg, Literal) and arg.value == 0), None)
        if zero is None:
            return None
        inner = self.factor(no if zero == 1 else yes)
        if inner is None:
            return None
        if not self.forms.is_late(condition):
            nothing = Literal(0, node.dtype)
            branches = (nothing, inner.body(node)) if zero == 1 else (inner.body(node), nothing)
            return Factored(select(condition, *branches), inner.rescales, inner.last, inner.bounded)
        if self.forms.is_element(condition):
            return None
        kind = "unless" if zero == 1 else "where"
        return Factored(inner.element, inner.rescales, (*inner.last, Last(kind, condition)), inner.bounded)

    def exponential(self, node: Apply) -> Factored | None:
        """`exp(k x + c)`, c of earlier results with a maximum m over x among them: the exponent is shifted by the maximum so far, so that it is
        never above zero. What c differs from `-k m` by follows last.
        """
        exponent = node.args[0]
        terms, constant = self.forms.linear(exponent)
        late = {term: factor for term, factor in terms.items() if self.forms.is_late(term)}
        if any(self.forms.is_element(term) for term in late):
            return None
        found = self.extremum({term: factor for term, factor in terms.items() if term not in late})
        if found is None:
            return None
        part, factor = found
        reference = self.refer(part)
        now = _scaled(cast(_read(reference.now, part), exponent.dtype), factor)
        before = _scaled(cast(_read(reference.before, part), exponent.dtype), factor)
        rescale = Apply(node.function, (apply("sub", before, now),), node.dtype)
        instead = next((t for t, f in late.items() if math.isclose(f, -factor, rel_tol=1e-6)), None)
        rest = without(exponent, (term for term in late if term != instead))
        assert rest is not None
        if instead is None:
            inside = apply("sub", rest, now)
        else:
            place = cast(_read(reference.now, part), instead.dtype)
            inside = _replaced(rest, instead, place)
        left: Scalar = now
        for term, times in late.items():
            moved = _scaled(cast(term, exponent.dtype), abs(times))
            left = apply("add" if times > 0 else "sub", left, moved)
        last = Last("mul", Apply(node.function, (left,), node.dtype))
        element = Apply(node.function, (inside,), node.dtype)
        return Factored(element, (rescale,), (last,), bounded=constant <= 0.0)

    def is_extremum(self, part: Part) -> bool:
        """Whether a part is a maximum or minimum of floats that needs no other part."""
        if part.reduced.monoid not in ("max", "min") or part.rescaled or not part.total.type.dtype.is_float:
            return False
        return part.compute is not None and part.compute.body is part.reduced.body

    def extremum(self, terms: Mapping[Scalar, float]) -> tuple[Part, float] | None:
        """An earlier maximum over what these terms sum up to, up to a positive factor (or a minimum and a negative one), and the factor."""
        mine = {self.forms.plain(term): factor for term, factor in terms.items()}
        for part in self.parts.values():
            monoid = part.reduced.monoid
            if not self.is_extremum(part):
                continue
            others, constant = self.forms.linear(part.reduced.body)
            theirs = {self.forms.plain(term): factor for term, factor in others.items()}
            if constant or not mine or mine.keys() != theirs.keys():
                continue
            ratios = [mine[term] / theirs[term] for term in mine]
            if all(math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios) and (
                ratios[0] > 0 if monoid == "max" else ratios[0] < 0
            ):
                return part, ratios[0]
        return None


_RULES: dict[str, Callable[[Factoring, Apply], Factored | None]] = {
    **{row.function: Factoring.product for row in ARITHMETIC.values()},
    "div": Factoring.quotient,
    "neg": Factoring.negation,
    "cast": Factoring.conversion,
    "add": Factoring.sum,
    "sub": Factoring.sum,
    "select": Factoring.choice,
    "exp": Factoring.exponential,
    "exp2": Factoring.exponential,
}


def _read(value: Value, part: Part) -> Read:
    return Read(value, part.dims)


def _scaled(value: Scalar, factor: float) -> Scalar:
    return value if factor == 1.0 else apply("mul", value, Literal(factor, value.dtype))


def _replaced(node: Scalar, old: Scalar, new: Scalar) -> Scalar:
    return node.rewrite(lambda one: new if one == old else None)


def _greatest(node: Scalar) -> float:
    """The greatest magnitude that a factor has, as far as literals and conditions say so."""
    if isinstance(node, Literal):
        return abs(float(node.value))
    if node.dtype is BOOL:
        return 1.0
    if isinstance(node, Apply):
        if node.function in ("cast", "neg", "abs"):
            return _greatest(node.args[0])
        if node.function == "select":
            return max(_greatest(node.args[1]), _greatest(node.args[2]))
        if node.function in PRODUCTS:
            return math.prod(map(_greatest, node.args))
    return math.inf


def is_positive(node: Scalar, parts: Mapping[Value, Part]) -> bool:
    """Whether a value is proved to be above zero, or zero from underflow."""
    if isinstance(node, Literal):
        return float(node.value) > 0
    if isinstance(node, Read):
        part = parts.get(node.source)
        return part is not None and part.compute is not None and is_positive(part.compute.body, parts)
    if isinstance(node, Apply):
        if node.function in ("exp", "exp2"):
            return True
        if node.function in ("mul", "div", "add", "cast"):
            return node.dtype.is_float and all(is_positive(arg, parts) for arg in node.args)
    return False


def rescaled(total: Scalar, rescales: Sequence[Scalar], *, extreme: bool = False) -> Scalar:
    """A carried total at new references; an extremum that is still its identity, or infinite, stays as it is."""
    scaled = total
    for factor in rescales:
        scaled = apply("mul", scaled, cast(factor, total.dtype))
    if not extreme or not rescales:
        return scaled
    return select(apply("lt", apply("abs", total), Literal(math.inf, total.dtype)), scaled, total)
