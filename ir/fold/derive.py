"""Derivation of folds: which reductions of a group can go on together in one pass, though later ones need results of earlier ones.

A reduction can join those that it needs when its body factors, under its monoid, into a part of the element and an invertible part of the
earlier results: by multiplication (a softmax, its product with values, what is normalised by a sum), by addition (what is shifted), or as a
moment (a sum of products of what is shifted, about the mean so far). Nothing here knows of an operator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from codesign.ir.analysis import contraction
from codesign.ir.core import Value
from codesign.ir.dtypes import I64
from codesign.ir.fold.factor import Factoring, is_positive, rescaled
from codesign.ir.fold.forms import Forms, finite, signed_terms
from codesign.ir.fold.moments import Moment, moment
from codesign.ir.fold.sharing import with_shared
from codesign.ir.fold.state import AFTER, BEFORE, Fold, Part, Reference
from codesign.ir.fold.weighted import Logarithm, Weighted, weighted
from codesign.ir.index import index, product
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim, Fusion, Monoid
from codesign.ir.types import TensorType

_FACTORED = ("sum", "max", "min")


_KNOWN: WeakKeyDictionary[Fusion, tuple[list[tuple[Compute, Scalar]], tuple[Fold, ...]]] = WeakKeyDictionary()
"""Folds of groups, and the computes and bodies that they were derived from."""


def folds(fusion: Fusion) -> tuple[Fold, ...]:
    """The folds of a group that save a pass over their elements, each of as many of its reductions as can join; derived once for a group."""
    members = [(compute, compute.body) for compute in fusion.computes]
    of, found = _KNOWN.get(fusion, ([], ()))
    if len(of) != len(members) or not all(a is c and b is d for (a, b), (c, d) in zip(of, members, strict=True)):
        found = _derived(fusion)
        _KNOWN[fusion] = members, found
    return found


def _derived(fusion: Fusion) -> tuple[Fold, ...]:
    by_dims: dict[frozenset[str], list[Compute]] = {}
    for compute in fusion.computes:
        if compute.reductions:
            by_dims.setdefault(frozenset(dim.name for dim in compute.reductions), []).append(compute)
    members = {compute.result: compute for compute in fusion.computes}
    found: list[Fold] = []
    for chain in by_dims.values():
        if len(chain) > 1:
            found.extend(_Chain(members, chain).folds())
    return tuple(found)


def alone(*computes: Compute) -> Fold:
    """A reduction by itself as a fold, or several over the same dims of which none needs another."""
    return Fold(tuple(dim.name for dim in computes[0].reductions), tuple(_plain(one, one) for one in computes))


class _Chain:
    """The reductions of a group over one set of dims; each joins the fold of those that it needs, or begins another."""

    def __init__(self, members: dict[Value, Compute], computes: list[Compute]) -> None:
        self.members = members
        self.computes = computes
        self.stage: dict[Value, int] = {}
        self.builders: list[_Builder] = []

    def folds(self) -> list[Fold]:
        for compute in self.computes:
            stage = max((self.stage[value] for value in self._needs(compute)), default=0)
            if not self._builder(stage).join(compute):
                stage += 1
                self._builder(stage).join(compute)  # which takes it, as it needs none of the parts there
            self.stage[compute.result] = stage
        return [fold for builder in self.builders if (fold := builder.fold()) is not None]

    def _builder(self, stage: int) -> _Builder:
        while len(self.builders) <= stage:
            self.builders.append(_Builder(self.members, self.computes[0].reductions))
        return self.builders[stage]

    def _needs(self, compute: Compute) -> set[Value]:
        """Reductions of the chain that a compute needs, directly or not."""
        found: set[Value] = set()
        seen: set[Value] = set()
        pending = list(compute.operands())
        while pending:
            value = pending.pop()
            if value in seen or value not in self.members:
                continue
            seen.add(value)
            if value in self.stage:
                found.add(value)
            pending.extend(self.members[value].operands())
        return found


class _Builder:
    """Collects the parts of one fold."""

    def __init__(self, members: dict[Value, Compute], reductions: Iterable[Dim]) -> None:
        self.members = members
        self.reductions = tuple(reductions)
        self.dims = tuple(dim.name for dim in self.reductions)
        self.parts: list[Part] = []

    def join(self, compute: Compute) -> bool:
        """Add a reduction as a part, if it can be one."""
        kept = list(self.parts)
        results = {part.compute.result: part for part in self.parts if part.compute is not None}
        forms = Forms(self.members, frozenset(self.dims), frozenset(results))
        if not forms.is_late(compute.body):
            self.parts.append(_plain(compute, compute))
            return True
        body = forms.opened(compute.body)
        made = self._term(compute, body, forms, results) or self._terms(compute, body, forms, results)
        if made is None:
            self.parts = kept
            return False
        self.parts.append(made)
        return True

    def fold(self) -> Fold | None:
        """The fold, if a part of it depends on another."""
        if all(part.compute is not None and part.compute.body is part.reduced.body for part in self.parts):
            return None
        return with_shared(Fold(self.dims, tuple(self.parts)))

    # -- parts --------------------------------------------------------------------------------------------------------
    def _term(self, compute: Compute, body: Scalar, forms: Forms, earlier: Mapping[Value, Part]) -> Part | None:
        """A part by the first rule that holds for a body."""
        kept = list(self.parts)
        for rule in (self._factored, self._moment, self._weighted):
            made = rule(compute, body, Factoring(forms, earlier, self._extreme))
            if made is not None:
                return made
            self.parts = list(kept)
        return None

    def _terms(self, compute: Compute, body: Scalar, forms: Forms, earlier: Mapping[Value, Part]) -> Part | None:
        """A sum of terms as sums of each, of which the last is the part."""
        terms = signed_terms(body)
        if compute.monoid != "sum" or not compute.accumulate.is_float or len(terms) < 2:
            return None
        results: list[Scalar] = []
        for position, (term, negative) in enumerate(terms):
            value = apply("neg", term) if negative else term
            made = self._term(compute, cast(value, compute.accumulate), forms, earlier)
            if made is None or position == len(terms) - 1:
                break
            hidden = replace(made, compute=None, finish=made.carry)
            self.parts.append(hidden)
            kept = _whole(made.total, compute)
            there = self._refer(hidden, kept, kept)
            results.append(made.finish.replace_sources({made.total: there.now}))
        if made is None:
            return None
        result = made.finish
        for other in results:
            result = apply("add", other, result)
        return replace(made, finish=result)

    def _factored(self, compute: Compute, body: Scalar, factoring: Factoring) -> Part | None:
        """A part whose body is a product of a part of the element and one of earlier results, or for an extremum their sum."""
        if compute.monoid not in _FACTORED or not compute.accumulate.is_float:
            return None
        found = factoring.factor(body)
        if (
            found is not None
            and compute.monoid != "sum"
            and not all(
                last.kind in ("where", "unless") or is_positive(last.value, factoring.parts) for last in found.last
            )
        ):
            found = None
        if found is None:
            return None if compute.monoid == "sum" else self._shifted(compute, body, factoring.forms)
        reduced = _like(compute, found.body(body), compute.dims, compute.result.name)
        total = _stand_in(reduced, "total")
        carried: Scalar = _whole(total, compute)
        result = carried
        for last in found.last:
            result = last.applied(result)
        carried = rescaled(carried, found.rescales, extreme=compute.monoid != "sum")
        return Part(compute, reduced, total, carried, result)

    def _shifted(self, compute: Compute, body: Scalar, forms: Forms) -> Part | None:
        """An extremum of the sum of a part of the element and one of earlier results: rounding keeps the order of sums.

        Where one of the sums is not a number, that of the other extremum is none.
        """
        found = forms.split(body) if body.dtype.is_float else None
        if found is None:
            return None
        element, shift = cast(found[0], compute.accumulate), cast(found[1], compute.accumulate)
        other = _plain(_like(compute, element, compute.dims, f"{compute.result.name}_other", opposite=True), None)
        self.parts.append(other)
        there = self._refer(other, _whole(other.total, compute), _whole(other.total, compute))
        reduced = _like(compute, element, compute.dims, compute.result.name)
        total = _stand_in(reduced, "total")
        kept = _whole(total, compute)
        shifted, least = apply("add", kept, shift), apply("add", Read(there.now, other.dims), shift)
        return Part(compute, reduced, total, kept, select(apply("isnan", least), least, shifted))

    def _weighted(self, compute: Compute, body: Scalar, factoring: Factoring) -> Part | None:
        """A part that sums products of a factor and a value about extrema so far, with the sum of the factor."""
        if compute.monoid != "sum" or not compute.accumulate.is_float:
            return None
        found = weighted(body, factoring, compute.accumulate)
        if found is None:
            return None
        weight = self._weight(compute, found)
        kept = _whole(weight.total, weight.reduced)
        held = self._refer(weight, kept, kept)
        reduced = _like(compute, apply("mul", found.weight, found.element), compute.dims, compute.result.name)
        total = _stand_in(reduced, "total")
        carried: Scalar = _whole(total, compute)
        result = apply("add", carried, apply("mul", found.shift, Read(held.now, weight.dims)))
        if found.moved is not None:
            carried = apply("add", carried, apply("mul", found.moved, Read(held.before, weight.dims)))
        for last in found.factor.last:
            result = last.applied(result)
        if found.logarithm is not None:
            zero = self._zero(compute, found.logarithm, factoring)
            if zero is None:
                return None
            result = select(zero, Literal(math.nan, result.dtype), result)
        return Part(compute, reduced, total, rescaled(carried, found.factor.rescales), result)

    def _weight(self, compute: Compute, found: Weighted) -> Part:
        """The part that sums the weights: one that is there, or a new one."""
        for part in self.parts:
            if part.reduced.monoid == "sum" and part.reduced.body == found.weight and part.dims == _names(compute):
                return part
        reduced = _like(compute, found.weight, compute.dims, f"{compute.result.name}_weight")
        total = _stand_in(reduced, "total")
        kept = _whole(total, compute)
        part = Part(None, reduced, total, rescaled(kept, found.factor.rescales), kept)
        self.parts.append(part)
        return part

    def _zero(self, compute: Compute, logarithm: Logarithm, factoring: Factoring) -> Scalar | None:
        """Whether what a logarithm was taken of is zero for some element: it is for the least exponent."""
        forms, exponent = factoring.forms, logarithm.exponential.args[0]
        terms, constant = forms.linear(exponent)
        found = factoring.extremum({term: factor for term, factor in terms.items() if not forms.is_late(term)})
        if found is None:
            return None
        part, ratio = found
        least = _plain(_like(part.reduced, part.reduced.body, part.reduced.dims, "least", opposite=True), None)
        self.parts.append(least)
        there = self._refer(least, _whole(least.total, least.reduced), _whole(least.total, least.reduced))
        value: Scalar = apply("mul", cast(Read(there.now, least.dims), exponent.dtype), Literal(ratio, exponent.dtype))
        for term, factor in terms.items():
            if forms.is_late(term):
                value = apply("add", value, apply("mul", cast(term, exponent.dtype), Literal(factor, exponent.dtype)))
        value = apply("add", value, Literal(constant, exponent.dtype)) if constant else value
        instead = Apply(logarithm.exponential.function, (value,), logarithm.exponential.dtype)
        written = logarithm.value.rewrite(lambda node: instead if node == logarithm.exponential else None)
        return apply("eq", written, Literal(0, written.dtype))

    def _moment(self, compute: Compute, body: Scalar, factoring: Factoring) -> Part | None:
        """A part that sums shifted values, or products of two, about their means so far."""
        if compute.monoid != "sum" or not compute.accumulate.is_float or contraction(compute) is not None:
            return None
        found = moment(body, factoring.forms, compute.accumulate)
        return None if found is None else self._about_means(compute, found)

    def _about_means(self, compute: Compute, found: Moment) -> Part:
        """The sum of products about the means so far, with the sums about them, which would be zero but for rounding."""
        sums = [self._sum(compute, element) for element in found.elements]
        means = [_Mean.of(part, self._mean(part)) for part in sums]
        about = [apply("sub", element, mean.now) for element, mean in zip(found.elements, means, strict=True)]
        offsets = [apply("add", mean.now, shift) for mean, shift in zip(means, found.shifts, strict=True)]
        moves = [mean.moved for mean in means]
        whole = cast(IndexValue(product(dim.extent for dim in self.reductions), I64), compute.accumulate)
        held = cast(IndexValue(index(BEFORE), I64), compute.accumulate)
        if len(about) == 1:
            reduced = _like(compute, about[0], compute.dims, compute.result.name)
            total = _stand_in(reduced, "total")
            kept = _whole(total, compute)
            carried, result = _moved(kept, held, moves), _moved(kept, whole, offsets)
        else:
            rests = [self._rest(compute, part, one, mean) for part, one, mean in zip(sums, about, means, strict=True)]
            reduced = _like(compute, apply("mul", *about), compute.dims, compute.result.name)
            total = _stand_in(reduced, "total")
            kept = _whole(total, compute)
            carried = _moved(kept, held, moves, [Read(rest.before, dims) for dims, rest in rests])
            result = _moved(kept, whole, offsets, [Read(rest.now, dims) for dims, rest in rests])
        for last in found.last:
            result = last.applied(result)
        return Part(compute, reduced, total, carried, result)

    def _rest(self, like: Compute, part: Part, about: Scalar, mean: _Mean) -> tuple[tuple[str, ...], Reference]:
        """The sum of an element about its mean so far as a reference, with its dims."""
        name = f"{part.reduced.result.name}_rest"
        for known in self.parts:
            if known.compute is None and known.reduced.body == about and known.reference is not None:
                return known.dims, known.reference
        reduced = _like(like, about, part.reduced.dims, name)
        total = _stand_in(reduced, "total")
        kept = _whole(total, reduced)
        held = cast(IndexValue(index(BEFORE), I64), like.accumulate)
        rest = Part(None, reduced, total, _moved(kept, held, [mean.moved]), kept)
        self.parts.append(rest)
        return rest.dims, self._refer(rest, kept, kept)

    # -- references ---------------------------------------------------------------------------------------------------
    def _refer(self, part: Part, settled: Scalar, left: Scalar) -> Reference:
        """A reference to a part, which is noted with it."""
        position = next(i for i, one in enumerate(self.parts) if one.total is part.total)
        known = self.parts[position].reference
        if known is not None:
            return known
        made = Reference(_stand_in(part.reduced, "now"), _stand_in(part.reduced, "before"), settled, left)
        old = self.parts[position]
        self.parts[position] = Part(old.compute, old.reduced, old.total, old.carry, old.finish, made)
        return made

    def _extreme(self, part: Part) -> Reference:
        """An extremum as a reference: where there is none yet (or it is infinite), zero does as well."""
        total = _whole(part.total, part.reduced)
        return self._refer(part, finite(total), total)

    def _mean(self, part: Part) -> Reference:
        """A sum's mean over the elements so far as a reference."""
        total = _whole(part.total, part.reduced)
        after = cast(IndexValue(index(AFTER), I64), total.dtype)
        before = apply("max", cast(IndexValue(index(BEFORE), I64), total.dtype), Literal(1, total.dtype))
        return self._refer(part, finite(apply("div", total, after)), finite(apply("div", total, before)))

    def _sum(self, like: Compute, element: Scalar) -> Part:
        """The part that sums an element: one that is there, or a new one."""
        forms = Forms(self.members, frozenset(self.dims), frozenset())
        wanted = forms.plain(element)
        for part in self.parts:
            if part.reduced.monoid == "sum" and not part.rescaled and part.total.type.dtype is element.dtype:
                if forms.plain(part.reduced.body) == wanted and part.reduced.accumulate is like.accumulate:
                    return part
        used = element.variables()
        dims = tuple(dim for dim in like.dims if dim.name in used)
        name = f"{like.result.name}_shift{len(self.parts)}"
        part = _plain(_like(like, element, dims, name), None)
        self.parts.append(part)
        return part


@dataclass(frozen=True)
class _Mean:
    """The mean so far of an element: with the last elements, and what it was less than that."""

    now: Scalar
    moved: Scalar

    @staticmethod
    def of(part: Part, reference: Reference) -> _Mean:
        now = Read(reference.now, part.dims)
        return _Mean(now, apply("sub", Read(reference.before, part.dims), now))


def _moved(total: Scalar, count: Scalar, by: list[Scalar], rests: Sequence[Scalar] = ()) -> Scalar:
    """A sum of a value, or of the product of two, of `count` elements, each of them moved `by` something.

    `rests`: the sums of the two values as they were: `sum (x + a) (y + b) = sum x y + a sum y + b sum x + n a b`.
    """
    if not rests:
        return apply("add", total, apply("mul", count, by[0]))
    crossed = apply("add", apply("mul", by[0], rests[1]), apply("mul", by[1], rests[0]))
    both = apply("mul", count, apply("mul", *by))
    return apply("add", total, apply("add", crossed, both))


def _plain(reduced: Compute, compute: Compute | None) -> Part:
    """A part that needs no earlier one."""
    total = _stand_in(reduced, "total")
    read = _whole(total, reduced)
    return Part(compute, reduced, total, read, read)


def _like(compute: Compute, body: Scalar, dims: tuple[Dim, ...], name: str, *, opposite: bool = False) -> Compute:
    """A reduction of another body as a compute does it, or by the opposite extremum."""
    other: Monoid = "min" if compute.monoid == "max" else "max"
    monoid = other if opposite else compute.monoid
    return compute.with_domain(dims, compute.reductions, body, dtype=compute.accumulate, name=name, monoid=monoid)


def _names(compute: Compute) -> tuple[str, ...]:
    return tuple(dim.name for dim in compute.dims)


def _stand_in(compute: Compute, what: str) -> Value:
    return Value(
        TensorType(compute.accumulate, tuple(dim.extent for dim in compute.dims)), f"{compute.result.name}_{what}"
    )


def _whole(value: Value, compute: Compute) -> Read:
    return Read(value, [dim.name for dim in compute.dims])
