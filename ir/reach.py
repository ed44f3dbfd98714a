"""Where a mask leaves a reduction something to do: the values of a reduced dim at which its expression is not neutral.

    sum(k) { select(k <= i, %a[i, k], 0) * %b[k, j] }        0 <= k < i + 1
    max(k) { select(i - 8 <= k and k <= i, %s[i, k], -inf) }  max(i - 8, 0) <= k < i + 1
    max(k) { select((i - 8 <= k or k < 4) and k <= i, %s[i, k], -inf) }  0 <= k < i + 1, but not min(4, i + 1) <= k < max(i - 8, 0)

A factor that is masked to zero makes its product neutral, and a term that is minus infinity its sum, whatever the others hold: what is
masked contributes nothing, as in kernels written by hand. The lowest finite number is minus infinity to a row that has more than it. A row
that is masked whole still gets what its expression gives there (`exp(-inf - -inf)` is NaN): where that may be, a loop makes at least one step
(`once`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from codesign.ir.atoms import Atom, Monomial
from codesign.ir.core import Value
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import (
    Bounds,
    Extremum,
    FloorDiv,
    Index,
    IndexLike,
    Var,
    ceildiv,
    extremum,
    index,
    maximum,
    minimum,
)
from codesign.ir.masks import Masks, neutral
from codesign.ir.scalar import Apply, IndexValue, Read, Scalar
from codesign.ir.scalar import Literal as Number
from codesign.ir.tensor import Compute

Stretch = Literal["first", "before", "whole", "after", "rest"]
"""Which of its steps a loop along a dim that masks cut makes: those before the ones all of whose values are reached, those, or those after. Where
masks leave two intervals: those of the `first`, and then these of the second, or the `rest` of all."""

Interval = tuple[Index, Index]
"""The first value, and the one after the last."""

MOST_INTERVALS = 6
"""Of which a union is known; of more, only what holds all of them."""

Ends = Mapping[str, tuple[IndexLike, IndexLike]]
"""The first and the last value of dims in a block of the domain."""


@dataclass(frozen=True)
class Reach:
    """`low <= dim < high`, over the other dims; `once`: a loop along the dim makes a step even where that is nowhere."""

    low: Index
    high: Index
    once: bool = False
    somewhere: bool = False
    """It is so only if every row reaches something: the lowest finite number stands in for minus infinity."""
    union: tuple[Interval, ...] = ()
    """The intervals within, of which one holds each value that is reached; none where it is one. Of a dim that is cut they are two, in order:
    the first begins no later than the second, and reaches something in every row if a step is made `once`."""

    @property
    def nowhere(self) -> bool:
        return self.low == 0 and self.high == 0

    @property
    def variables(self) -> frozenset[str]:
        """The dims, and size symbols, that it hangs on."""
        ends = (end for interval in ((self.low, self.high), *self.union) for end in interval)
        return frozenset(name for end in ends for name in end.variables())

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The intervals of which one holds each value that is reached."""
        return () if self.nowhere else self.union or ((self.low, self.high),)

    def over(self, ends: Ends, extent: IndexLike, step: IndexLike) -> tuple[Index, Index]:
        """The loop in steps along the dim that covers the reach of a block, with what lies between two intervals: where it begins and before
        which value it ends."""
        low, _ = extremes(self.low, ends)
        _, high = extremes(self.high, ends)
        size = index(step)
        lower = index(0) if low is None else maximum(low, 0) // size * size
        upper = index(extent) if high is None else minimum(high, extent)
        if self.once:
            lower = minimum(lower, (index(extent) - 1) // size * size)
            upper = maximum(upper, lower + 1)
        return lower, upper

    def stretches(
        self, ends: Ends, extent: IndexLike, step: IndexLike, *, even: bool = False
    ) -> dict[Stretch, tuple[Index, Index]]:
        """The loop of `over` in stretches, any of which may be none: `whole` are the steps all of whose values all of a block reaches.

        `even`: the extent is a multiple of the step. Without them where it is not known which steps are whole; the steps of two intervals are
        those of the `first` and of the `rest`.
        """
        if self.union:
            return self._of_two(ends, extent, step, even=even)
        lower, upper = self.over(ends, extent, step)
        _, low = extremes(self.low, ends)
        high, _ = extremes(self.high, ends)
        if low is None or high is None:
            return {}
        size = index(step)
        begin = index(0) if low == 0 else ceildiv(low, size) * size
        end = high if even and high == extent else high // size * size
        return {
            "before": (lower, minimum(begin, upper)),
            "whole": (begin, end),
            "after": (maximum(begin, end), upper),
        }

    def _of_two(
        self, ends: Ends, extent: IndexLike, step: IndexLike, *, even: bool
    ) -> dict[Stretch, tuple[Index, Index]]:
        """The stretches of two intervals: steps of the second that the first has made are not made again."""
        one, two = (Reach(*interval) for interval in self.union)
        begin, end = one.over(ends, extent, step)
        done = maximum(begin, ceildiv(end, step) * index(step))
        lower, upper = two.over(ends, extent, step)
        lower = maximum(lower, done)
        parted = {
            name: (maximum(low, done), high)
            for name, (low, high) in two.stretches(ends, extent, step, even=even).items()
        }
        return {"first": (begin, end), **parted, "rest": (lower, upper)}

    def also(self, other: Reach) -> Reach:
        """The least reach that holds both."""
        return _union((*self.intervals, *other.intervals), self, other)

    def within(self, other: Reach) -> Reach:
        """What both reach."""
        if self.nowhere or other.nowhere:
            return self if self.nowhere else other
        pairs = ((a, b) for a in self.intervals for b in other.intervals)
        return _union(tuple((maximum(a[0], b[0]), minimum(a[1], b[1])) for a, b in pairs), self, other)

    def with_ends(self, change: Callable[[Index], Index]) -> Reach:
        """The same of other ends."""
        union = tuple((change(low), change(high)) for low, high in self.union)
        return replace(self, low=change(self.low), high=change(self.high), union=union)

    def in_order(self, extent: Index, known: Bounds) -> tuple[Interval, ...]:
        """The intervals within an extent, where they are two along which loops may go one after the other."""
        within = ((maximum(low, 0).simplify(known), minimum(high, extent).simplify(known)) for low, high in self.union)
        found = joined(within)
        if len(found) == 2:
            for one, two in (found, found[::-1]):
                if _no_later(one[0], two[0], known):
                    apart = not _reaching(two[0], one[1], known, 0)
                    return (one, two) if apart and (not self.once or _never_empty(*one, known)) else ()
        return ()


NOWHERE = Reach(index(0), index(0))


def joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The same values in fewer intervals: those with an end in common are one."""
    left: list[Interval] = []
    for low, high in intervals:
        for k, (other_low, other_high) in enumerate(left):
            if low == other_low:
                left[k] = low, high if high == other_high else maximum(high, other_high)
                break
            if high == other_high:
                left[k] = minimum(low, other_low), high
                break
        else:
            left.append((low, high))
    return tuple(left)


def _union(intervals: Iterable[Interval], *of: Reach) -> Reach:
    """A reach of intervals."""
    once, somewhere = any(one.once for one in of), any(one.somewhere for one in of)
    found = joined(intervals)
    if not found:
        return replace(NOWHERE, once=once, somewhere=somewhere)
    low, high = minimum(*(one[0] for one in found)), maximum(*(one[1] for one in found))
    return Reach(low, high, once, somewhere, found if 1 < len(found) <= MOST_INTERVALS else ())


def _no_later(one: Index, two: Index, known: Bounds) -> bool:
    """Whether one end is never greater than another, as far as that can be proven."""
    return all(
        any((above - below).proves_at_least(0, known) for above in parts_of(two, "max"))
        for below in parts_of(one, "max")
    )


def reaches(computes: Iterable[Compute], results: Set[Value], bounds: Bounds) -> dict[str, Reach]:
    """For the reduced dims of a group that masks cut, what the reductions along them reach together.

    A dim that a result of the group has is not cut: its whole extent is stored. `bounds`: ranges of size symbols.
    """
    members = tuple(computes)
    if not any(isinstance(node, IndexValue) for compute in members for node in compute.body.walk()):
        return {}
    inside = {compute.result: compute for compute in members}
    whole = {dim.name for compute in members if compute.result in results for dim in compute.dims}
    found: dict[str, Reach | None] = {}
    for compute in members:
        for dim in compute.reductions:
            if dim.name not in whole and found.get(dim.name, NOWHERE) is not None:
                mine = _of_reduction(compute, dim.name, dim.extent, inside)
                before = found.get(dim.name, NOWHERE)
                found[dim.name] = None if before is None or mine is None else before.also(mine)
    extents = {dim.name: dim.extent for compute in members for dim in compute.domain}
    known = bounds.with_extents(extents)
    cut: dict[str, Reach] = {}
    for name, reach in found.items():
        if reach is not None and not reach.nowhere:
            mine = _cut(reach, extents[name], known)
            if mine is not None:
                cut[name] = mine
    return cut


def _cut(reach: Reach, extent: Index, known: Bounds) -> Reach | None:
    """A reach within the extent of its dim; None where that is all of it."""
    low = maximum(reach.low, 0).simplify(known)
    high = minimum(reach.high, extent).simplify(known)
    parts = reach.in_order(extent, known) if reach.union else ()
    intervals = parts or ((low, high),)
    if reach.somewhere and not any(_never_empty(*interval, known) for interval in intervals):
        return None
    return Reach(low, high, reach.once, union=parts) if parts or low != 0 or high != extent else None


def _never_empty(low: Index, high: Index, known: Bounds) -> bool:
    """Whether every row reaches something, as far as that can be proven."""
    return _reaching(low, high, known, 1)


def _reaching(low: Index, high: Index, known: Bounds, least: int) -> bool:
    """Whether an end is at least so much greater than another in every row, as far as that can be proven."""
    pairs = ((below, above) for below in parts_of(low, "max") for above in parts_of(high, "min"))
    return all((above - below).proves_at_least(least, known) for below, above in pairs)


def parts_of(value: Index, kind: str) -> tuple[Index, ...]:
    """What a maximum or minimum is of."""
    if len(value.terms) == 1 and value.terms[0][1] == 1 and len(value.terms[0][0]) == 1:
        (atom,) = value.terms[0][0]
        if isinstance(atom, Extremum) and atom.kind == kind:
            return atom.args
    return (value,)


def _of_reduction(compute: Compute, name: str, extent: Index, inside: Mapping[Value, Compute]) -> Reach | None:
    """Where the reduced expression is not the monoid's neutral element; None for everywhere."""
    value = neutral(compute)
    return None if value is None else _Intervals(name, extent, inside).unless(compute.body, value)


class _Intervals(Masks[Reach]):
    """Reaches along one dim of an expression."""

    nowhere = NOWHERE

    def __init__(self, name: str, extent: Index, inside: Mapping[Value, Compute]) -> None:
        super().__init__()
        self.name, self.extent, self.inside = name, extent, inside

    def both(self, a: Reach | None, b: Reach | None) -> Reach | None:
        return b if a is None else a if b is None else a.within(b)

    def either(self, a: Reach | None, b: Reach | None) -> Reach | None:
        return None if a is None or b is None else a.also(b)

    def at_least_once(self, part: Reach | None) -> Reach | None:
        return part if part is None or part.nowhere else replace(part, once=True)

    def hardly(self) -> Reach | None:
        return replace(NOWHERE, somewhere=True)

    def compares(self, node: Apply, *, truth: bool) -> Reach | None:
        function = node.function if truth else _OPPOSITE.get(node.function, "")
        if function not in _OPPOSITE:
            return None
        left, right = node.args
        if isinstance(right, Number) and isinstance(left, (Apply, Read)) and not left.dtype.is_integer:
            compare, number = FUNCTIONS[node.function].evaluate, float(right.value)
            return self.where(left, lambda value: bool(compare(np.float64(value), np.float64(number))) == truth)
        if not all(arg.dtype.is_integer for arg in node.args):
            return None
        if isinstance(node.args[0], Apply) and node.args[0].function == "abs" and function in ("lt", "le"):
            inner, limit = node.args[0].args[0].as_index(), node.args[1].as_index()
            margin = limit - (1 if function == "lt" else 0)
            return self.both(self._from(margin - inner), self._from(margin + inner))
        low, high = (arg.as_index() for arg in node.args)
        if function in ("gt", "ge"):
            low, high = high, low
        more = high - low - (1 if function in ("lt", "gt") else 0)
        if function == "eq":
            return self.both(self._from(more), self._from(-more))
        return None if function == "ne" else self._from(more)

    def _from(self, value: Index) -> Reach | None:
        """Where `value >= 0`, for one that is linear in the dim or in a quotient of it."""
        found = bound(value, self.name)
        if found is None:
            return None
        rises, end = found
        return Reach(end, self.extent) if rises else Reach(index(0), end + 1)

    def through(self, read: Read, ask: Callable[[Masks[Reach], Scalar], Reach | None]) -> Reach | None:
        """The reach of what a read finds, where that is worked out in the group point by point."""
        maker = self.inside.get(read.source)
        if maker is None or maker.reductions or read.otherwise is not None:
            return None
        places = dict(zip((dim.name for dim in maker.dims), read.indices, strict=True))
        along = [name for name, place in places.items() if self.name in place.variables()]
        if len(along) != 1 or places[along[0]].variable != self.name:
            return None
        found = ask(_Intervals(along[0], maker.extents()[along[0]], self.inside), maker.body)
        if found is None:
            return found
        others = {name: place for name, place in places.items() if name != along[0]}
        return found.with_ends(lambda end: end.substitute(others))


_OPPOSITE = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}


def bound(value: Index, name: str) -> tuple[bool, Index] | None:
    """Where `value >= 0`, for one that is linear in a dim or in a quotient of it: whether it rises, and the first value of the dim if so, else
    the last."""
    if value.data() or name not in value.variables():
        return None
    factor = value.coefficient(name)
    if factor is None:
        return _bound_by_quotient(value, name)
    if not factor.is_constant:
        return None
    rest, rise = value - factor * index(name), factor.constant
    return (True, ceildiv(-rest, rise)) if rise > 0 else (False, rest // -rise)


def _bound_by_quotient(value: Index, name: str) -> tuple[bool, Index] | None:
    found = [(m, c) for m, c in value.terms if any(name in Index.atom(atom).variables() for atom in m)]
    if len(found) != 1 or len(found[0][0]) != 1:
        return None
    (atom,), rise = found[0]
    if not isinstance(atom, FloorDiv) or not atom.denominator.is_constant or atom.denominator.constant < 1:
        return None
    rest = value - Index.atom(atom) * rise
    if rise > 0:  # x // d >= n where x >= n*d
        return bound(atom.numerator - ceildiv(-rest, rise) * atom.denominator, name)
    return bound(rest // -rise * atom.denominator + atom.denominator - 1 - atom.numerator, name)


def extremes(value: Index, ends: Ends) -> tuple[Index | None, Index | None]:
    """The least and the greatest value while dims go over a block, None where that is not known; other variables are sizes or stay."""
    low: Index | None = index(0)
    high: Index | None = index(0)
    for monomial, c in value.terms:
        least, greatest = _of_monomial(monomial, ends)
        if c < 0:
            least, greatest = greatest, least
        low = None if low is None or least is None else low + least * c
        high = None if high is None or greatest is None else high + greatest * c
    return low, high


def _of_monomial(monomial: Monomial, ends: Ends) -> tuple[Index | None, Index | None]:
    moving = [atom for atom in monomial if not Index.atom(atom).variables().isdisjoint(ends)]
    factor = index(1)
    for atom in monomial:
        if atom not in moving:
            factor = factor * Index.atom(atom)
    if not moving:
        return factor, factor
    if len(moving) > 1 or not all(isinstance(atom, Var) or atom in moving for atom in monomial):
        return None, None
    low, high = _of_atom(moving[0], ends)
    return None if low is None else low * factor, None if high is None else high * factor


def _of_atom(atom: Atom, ends: Ends) -> tuple[Index | None, Index | None]:
    if isinstance(atom, Var):
        first, last = ends[atom.name]
        return index(first), index(last)
    if isinstance(atom, FloorDiv) and atom.denominator.variables().isdisjoint(ends):
        low, high = extremes(atom.numerator, ends)
        return None if low is None else low // atom.denominator, None if high is None else high // atom.denominator
    if isinstance(atom, Extremum):
        pairs = [extremes(arg, ends) for arg in atom.args]
        return _extremum(atom.kind, [low for low, _ in pairs]), _extremum(atom.kind, [high for _, high in pairs])
    return None, None


def _extremum(kind: str, args: list[Index | None]) -> Index | None:
    known = [arg for arg in args if arg is not None]
    return extremum(kind, known) if len(known) == len(args) else None
