"""Expressions of a chain of reductions, sorted by what they follow: the element, results of earlier reductions, or both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from codesign.ir.analysis import is_exact_cast, strip_exact_casts
from codesign.ir.core import Value
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute


@dataclass
class Forms:
    """Questions about expressions of a group, for reductions over `dims`; `earlier`: the results that are not known yet while they go on."""

    members: Mapping[Value, Compute]
    dims: frozenset[str]
    earlier: frozenset[Value]
    _follows: dict[Value, bool] = field(default_factory=dict)
    _plain: dict[Scalar, Scalar] = field(default_factory=dict)

    def follows(self, value: Value) -> bool:
        """Whether a value needs results of earlier reductions."""
        if value in self.earlier:
            return True
        if value not in self._follows:
            compute = self.members.get(value)
            self._follows[value] = compute is not None and any(self.follows(read) for read in compute.operands())
        return self._follows[value]

    def is_late(self, node: Scalar) -> bool:
        """Whether an expression needs them."""
        return any(self.follows(read.source) for read in node.reads())

    def is_element(self, node: Scalar) -> bool:
        """Whether an expression differs from element to element."""
        return bool(node.variables() & self.dims)

    def opened(self, body: Scalar) -> Scalar:
        """The expression with element-wise members that need earlier results written out."""
        return self._written_out(body, self.follows)

    def plain(self, body: Scalar) -> Scalar:
        """The expression with all element-wise members written out, without exact conversions: equal for equal values."""
        if body not in self._plain:
            found = self._written_out(body, lambda value: True)
            self._plain[body] = strip_exact_casts(found.rewrite(_without_exact_cast))
        return self._plain[body]

    def _written_out(self, body: Scalar, which: object) -> Scalar:
        assert callable(which)
        done: dict[Value, Scalar] = {}

        def change(node: Scalar) -> Scalar | None:
            if not isinstance(node, Read) or node.source in self.earlier:
                return None
            compute = self.members.get(node.source)
            if compute is None or compute.reductions or not which(node.source):
                return None
            if node.source not in done:
                done[node.source] = cast(compute.body.rewrite(change), compute.dtype)
            return done[node.source]

        return body.rewrite(change)

    def linear(self, node: Scalar) -> tuple[dict[Scalar, float], float]:
        """An expression as a sum of terms with factors, and a constant."""
        terms: dict[Scalar, float] = {}
        constant = 0.0
        pending = [(node, 1.0)]
        while pending:
            one, factor = pending.pop()
            if isinstance(one, Literal):
                constant += factor * float(one.value)
                continue
            parts = _parts(one, factor)
            if parts is None:
                terms[one] = terms.get(one, 0.0) + factor
            else:
                pending.extend(parts)
        return {term: factor for term, factor in terms.items() if factor}, constant

    def split(self, node: Scalar) -> tuple[Scalar, Scalar] | None:
        """A sum as its part of the element and its part of earlier results; None where it isn't one of both."""
        terms, constant = self.linear(node)
        late = [term for term in terms if self.is_late(term)]
        if not late or any(self.is_element(term) for term in late):
            return None
        element = without(node, late)
        if element is None or not self.is_element(element):
            return None
        if not constant:
            shift = without(node, terms.keys() - set(late))
            return None if shift is None else (element, shift)
        shift = Literal(0, node.dtype)
        for term in late:  # the constant stays with the element
            shift = apply("add", shift, apply("mul", cast(term, node.dtype), Literal(terms[term], node.dtype)))
        return element, shift


def finite(value: Scalar) -> Scalar:
    """The value, or zero where it is infinite or no number."""
    return select(apply("lt", apply("abs", value), Literal(math.inf, value.dtype)), value, Literal(0, value.dtype))


def signed_terms(node: Scalar, negative: bool = False) -> list[tuple[Scalar, bool]]:
    """The terms of a sum as it is written, and whether each is subtracted."""
    node = strip_exact_casts(node)
    if isinstance(node, Apply) and node.dtype.is_float and node.function in ("add", "sub", "neg"):
        signs = (not negative,) if node.function == "neg" else (negative, negative != (node.function == "sub"))
        return [term for arg, sign in zip(node.args, signs, strict=True) for term in signed_terms(arg, sign)]
    return [(node, negative)]


def _parts(node: Scalar, factor: float) -> list[tuple[Scalar, float]] | None:
    """A sum's terms with factors; None for what is none."""
    if not isinstance(node, Apply) or not node.dtype.is_float:
        return None
    args = node.args
    if node.function == "add":
        return [(args[0], factor), (args[1], factor)]
    if node.function == "sub":
        return [(args[0], factor), (args[1], -factor)]
    if node.function == "neg":
        return [(args[0], -factor)]
    if node.function == "mul" and isinstance(args[1], Literal):
        return [(args[0], factor * float(args[1].value))]
    if node.function == "mul" and isinstance(args[0], Literal):
        return [(args[1], factor * float(args[0].value))]
    if node.function == "div" and isinstance(args[1], Literal) and args[1].value:
        return [(args[0], factor / float(args[1].value))]
    if node.function == "cast" and args[0].dtype.is_float and is_exact_cast(args[0].dtype, node.dtype):
        return [(args[0], factor)]
    return None


def _without_exact_cast(node: Scalar) -> Scalar | None:
    """An exact conversion of what a conversion made exactly is one conversion."""
    if isinstance(node, Apply) and node.function == "cast":
        inner = node.args[0]
        if isinstance(inner, Apply) and inner.function == "cast" and is_exact_cast(inner.args[0].dtype, inner.dtype):
            return cast(inner.args[0], node.dtype)
    return None


def without(node: Scalar, terms: Iterable[Scalar]) -> Scalar | None:
    """A sum without some of its terms (as `Forms.linear` finds them); None where nothing is left."""
    gone = set(terms)

    def rest(one: Scalar) -> Scalar | None:
        if one in gone:
            return None
        if _parts(one, 1.0) is None or isinstance(one, Literal):
            return one
        assert isinstance(one, Apply)
        if one.function in ("add", "sub"):
            left, right = rest(one.args[0]), rest(one.args[1])
            if right is None:
                return left
            if left is None:
                return right if one.function == "add" else Apply("neg", (right,), one.dtype)
            return one.rebuild((left, right))
        kept = [arg if isinstance(arg, Literal) else rest(arg) for arg in one.args]
        return None if any(arg is None for arg in kept) else one.rebuild(tuple(arg for arg in kept if arg is not None))

    return rest(node)
