"""Sums of a factor times a shifted value: `sum f (x - c)`, with a factor f of the element and of earlier results, as an entropy is, and a divergence.

Two values are carried: the sum of the factor, and that of its product with the value about the extrema so far. When these move on by d, the
second changes by d times the first: the state is moved on by a linear map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from codesign.ir.analysis import strip_exact_casts
from codesign.ir.dtypes import DType
from codesign.ir.fold.factor import Factored, Factoring, is_positive
from codesign.ir.fold.forms import finite
from codesign.ir.fold.moments import factors_of
from codesign.ir.fold.state import Part
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply, cast, select

Factor = tuple[Scalar, bool]
"""A factor of a product, and whether it divides."""


@dataclass(frozen=True)
class Logarithm:
    """A logarithm of factors of the sum that was written as a sum: `value` is what it was of, whose exponential of `exponent` is never zero
    there but may be, written so."""

    value: Scalar
    exponential: Apply


@dataclass(frozen=True)
class Weighted:
    """`last` of `sum weight (element + shift)`, `factor` with what is done last: `element` is about the extrema so far, which move it by `moved`
    (None: by nothing); `shift` is of the results in the end. `logarithm`: one of a factor, where no condition keeps zeros away from it.
    """

    factor: Factored
    weight: Scalar
    element: Scalar
    moved: Scalar | None
    shift: Scalar
    logarithm: Logarithm | None = None


def weighted(body: Scalar, factoring: Factoring, dtype: DType) -> Weighted | None:
    """What a sum's body is such a product of, in the dtype of the sum; None where it is none."""
    return _Weighing(factoring, dtype).result(body)


@dataclass
class _Weighing:
    factoring: Factoring
    dtype: DType
    zeros: list[tuple[Scalar, bool]] = field(default_factory=list)
    """Conditions, and whether the product is zero where they hold (else where they don't)."""
    nonzero: list[Scalar] = field(default_factory=list)
    """Products of factors that are not zero where the product isn't."""
    logarithm: Logarithm | None = None

    def result(self, body: Scalar) -> Weighted | None:
        inner = self._unconditional(body)
        factors = [] if inner is None else factors_of(inner)
        own = [one for one in factors if self.factoring.factor(one[0]) is not None and self._plain_below(one)]
        rest = [one for one in factors if one not in own]
        if len(rest) != 1 or rest[0][1] or not own:
            return None
        factor = self.factoring.factor(self._product(own))
        split = self._split(self._without_logarithms(rest[0][0], own))
        conditions = [self._early(condition, own) for condition, _ in self.zeros]
        if factor is None or split is None or None in conditions:
            return None
        masks = [(c, zero) for c, (_, zero) in zip(conditions, self.zeros, strict=True) if c is not None]
        if masks and self.logarithm is not None:
            return None
        element, moved, shift = self._about(*split)
        weight = self._masked(cast(factor.body(Literal(1, self.dtype)), self.dtype), masks)
        return Weighted(factor, weight, self._masked(element, masks), moved, shift, self.logarithm)

    # -- conditions ---------------------------------------------------------------------------------------------------
    def _unconditional(self, body: Scalar) -> Scalar | None:
        """The product under conditions where it is zero, or not a number as one of its factors."""
        body = strip_exact_casts(body)
        if not isinstance(body, Apply) or body.function != "select":
            return body
        condition, yes, no = body.args
        if isinstance(condition, Apply) and condition.function == "isnan" and _is_nan(yes):
            inner = self._unconditional(no)
            known = inner is not None and self._contained(condition.args[0], factors_of(inner))
            return inner if known else None
        zero = next((arg for arg in (yes, no) if isinstance(arg, Literal) and arg.value == 0), None)
        if zero is None:
            return None
        self.zeros.append((condition, zero is yes))
        return self._unconditional(no if zero is yes else yes)

    def _early(self, condition: Scalar, own: Sequence[Factor]) -> Scalar | None:
        """A condition that is known while elements go by: one of the element, or that factors are zero."""
        if not self.factoring.forms.is_late(condition):
            return condition
        if not isinstance(condition, Apply) or condition.function not in ("eq", "ne", "gt"):
            return None
        value, zero = condition.args
        if not isinstance(zero, Literal) or zero.value != 0 or not self._contained(value, own):
            return None
        found = self.factoring.factor(value)
        if found is None or found.element is None:
            return None
        if condition.function == "gt" and not all(is_positive(one.value, self.factoring.parts) for one in found.last):
            return None
        return apply(condition.function, found.element, Literal(0, found.element.dtype))

    @staticmethod
    def _masked(value: Scalar, masks: Iterable[tuple[Scalar, bool]]) -> Scalar:
        for condition, zero in masks:
            nothing = Literal(0, value.dtype)
            value = select(condition, nothing, value) if zero else select(condition, value, nothing)
        return value

    # -- factors ------------------------------------------------------------------------------------------------------
    def _plain_below(self, one: Factor) -> bool:
        """What divides is of the element alone or of earlier results alone."""
        node, divides = one
        forms = self.factoring.forms
        return not (divides and forms.is_late(node) and forms.is_element(node))

    def _product(self, factors: Iterable[Factor]) -> Scalar:
        product: Scalar | None = None
        for node, divides in sorted(factors, key=lambda one: one[1]):
            if product is None and not divides:
                product = cast(node, self.dtype)
                continue
            before = Literal(1, self.dtype) if product is None else product
            product = apply("div" if divides else "mul", before, cast(node, self.dtype))
        assert product is not None
        return product

    def _contained(self, value: Scalar, factors: Sequence[Factor]) -> bool:
        """Whether all factors of a value are among the factors of a product."""
        plain = self.factoring.forms.plain
        left = [(plain(node), divides) for node, divides in factors]
        for node, divides in factors_of(value):
            one = (plain(node), divides)
            if one not in left:
                return False
            left.remove(one)
        return True

    # -- the shifted value --------------------------------------------------------------------------------------------
    def _without_logarithms(self, node: Scalar, own: Sequence[Factor]) -> Scalar:
        """`log(exp(u) / s)` as `u - log(s)`, of factors of the product: where they underflow, the product is zero or not a number."""

        def change(one: Scalar) -> Scalar | None:
            if not isinstance(one, Apply) or one.function != "log" or not self._contained(one.args[0], own):
                return None
            return self._logarithm(one.args[0])

        return node.rewrite(change)

    def _logarithm(self, value: Scalar) -> Scalar | None:
        forms = self.factoring.forms
        found: Scalar | None = None
        parts = factors_of(value)
        exponentials = [
            node for node, below in parts if isinstance(node, Apply) and node.function == "exp" and not below
        ]
        mixed = [node for node in exponentials if forms.is_element(node)]
        if len(mixed) != 1 or any(forms.is_element(node) for node, _ in parts if node is not mixed[0]):
            return None
        exponential = mixed[0]
        assert isinstance(exponential, Apply)
        found = cast(exponential.args[0], value.dtype)
        for node, divides in parts:
            if node is not exponential:
                found = apply("sub" if divides else "add", found, apply("log", cast(node, value.dtype)))
        if not any(isinstance(c, Apply) and self._contained(value, factors_of(c.args[0])) for c, _ in self.zeros):
            self.logarithm = Logarithm(value, exponential)
        return found

    def _split(self, value: Scalar) -> tuple[Scalar, Scalar] | None:
        """The parts of the element and of earlier results; where the latter cancel there is no shift."""
        forms = self.factoring.forms
        terms, constant = forms.linear(value)
        if any(forms.is_late(term) for term in terms):
            return forms.split(value)
        return self._sum([*terms.items(), (Literal(1, self.dtype), constant)]), Literal(0, self.dtype)

    def _about(self, element: Scalar, shift: Scalar) -> tuple[Scalar, Scalar | None, Scalar]:
        """The element about the extrema so far of terms of it, what these move it by, and the shift from there."""
        forms = self.factoring.forms
        terms, constant = forms.linear(element)
        late, _ = forms.linear(shift)
        about: list[tuple[Scalar, float]] = []
        moved: list[tuple[Scalar, float]] = []
        left: list[tuple[Scalar, float]] = []
        for part in self.factoring.parts.values():
            found = self._of_extremum(part, terms)
            if found is None:
                continue
            mine, ratio = found
            own = next(
                (term for term in late if self._is_result(term, part) and math.isclose(late[term], -ratio)), None
            )
            if own is None and (not late or len(mine) < len(terms)):
                continue  # other terms may keep the element small
            reference = self.factoring.refer(part)
            now, before = (cast(Read(one, part.dims), self.dtype) for one in (reference.now, reference.before))
            about.append((self._sum([*((term, terms.pop(term)) for term in mine), (now, -ratio)]), 1.0))
            moved.append((apply("sub", finite(before), now), ratio))
            off = now if own is None else apply("sub", now, cast(own, self.dtype))
            left.append((off, ratio))
            late = {term: factor for term, factor in late.items() if term is not own}
        value = self._sum([*about, *terms.items(), (Literal(1, self.dtype), constant)])
        return value, self._sum(moved) if moved else None, self._sum([*late.items(), *left])

    def _of_extremum(self, part: Part, terms: dict[Scalar, float]) -> tuple[list[Scalar], float] | None:
        """The terms that a part is the extremum of, up to a factor, and the factor."""
        if not self.factoring.is_extremum(part):
            return None
        forms = self.factoring.forms
        others, constant = forms.linear(part.reduced.body)
        by_form = {forms.plain(term): term for term in terms}
        theirs = {forms.plain(term): factor for term, factor in others.items()}
        if constant or not theirs or not theirs.keys() <= by_form.keys():
            return None
        mine = [by_form[one] for one in theirs]
        ratios = [terms[term] / factor for term, factor in zip(mine, theirs.values(), strict=True)]
        same = all(math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios)
        return (mine, ratios[0]) if same else None

    def _is_result(self, term: Scalar, part: Part) -> bool:
        plain = self.factoring.forms.plain(term)
        return isinstance(plain, Read) and part.compute is not None and plain.source is part.compute.result

    def _sum(self, terms: Iterable[tuple[Scalar, float]]) -> Scalar:
        total: Scalar | None = None
        for term, factor in terms:
            if not factor:
                continue
            size = abs(factor) if total is not None else factor
            value = cast(term, self.dtype)
            value = value if size == 1.0 else apply("mul", value, Literal(size, self.dtype))
            total = value if total is None else apply("add" if factor > 0 else "sub", total, value)
        return Literal(0, self.dtype) if total is None else total


def _is_nan(node: Scalar) -> bool:
    return isinstance(node, Literal) and isinstance(node.value, float) and math.isnan(node.value)
