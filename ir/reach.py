"""Where a mask leaves a reduction something to do: the values of a reduced dim at which its expression is not neutral.

    sum(k) { select(k <= i, %a[i, k], 0) * %b[k, j] }        0 <= k < i + 1
    max(k) { select(i - 8 <= k and k <= i, %s[i, k], -inf) }  max(i - 8, 0) <= k < i + 1
    max(k) { select((i - 8 <= k or k < 4) and k <= i, %s[i, k], -inf) }  0 <= k < i + 1, but not min(4, i + 1) <= k < max(i - 8, 0)
    sum(k) { select(i < 5, %a[i, k], 0) * %b[k, j] }         0 <= k < K where i < 5, and else nowhere

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
from codesign.ir.tensor import Compute, Dim

Stretch = Literal["first", "second", "third", "fourth", "fifth", "before", "whole", "after", "rest"]
"""Which of its steps a loop along a dim that masks cut makes: those before the ones all of whose values are reached, those, or those after. Where
masks leave several intervals: those of the `first`, the `second` and so on, and then these of the last, or the `rest` of all."""

EARLIER: tuple[Stretch, ...] = ("first", "second", "third", "fourth", "fifth")
"""Steps of all intervals but the last."""

Interval = tuple[Index, Index]
"""The first value, and the one after the last."""

MOST_INTERVALS = len(EARLIER) + 1
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
    """The intervals within, of which one holds each value that is reached; none where it is one. Of a dim that is cut they are in order: none
    begins later than one behind it."""

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
        """The loop in steps along the dim that covers the reach of a block, with what lies between intervals: where it begins and before
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

        `even`: the extent is a multiple of the step. Without them where it is not known which steps are whole; the steps of several intervals
        are those of each in turn and the `rest`, those of the last.
        """
        if self.union:
            return self._of_several(ends, extent, step, even=even)
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

    def _of_several(
        self, ends: Ends, extent: IndexLike, step: IndexLike, *, even: bool
    ) -> dict[Stretch, tuple[Index, Index]]:
        """The stretches of intervals in order: steps that those before it have made are not made again."""
        found: dict[Stretch, tuple[Index, Index]] = {}
        done = index(0)
        for name, interval in zip(EARLIER, self.union[:-1], strict=False):
            one = Reach(*interval, once=self.once and not found)
            begin, end = one.over(ends, extent, step)
            begin = maximum(begin, done) if found else begin
            found[name] = begin, end
            done = maximum(begin, ceildiv(end, step) * index(step))
        last = Reach(*self.union[-1])
        lower, upper = last.over(ends, extent, step)
        for name, (low, high) in last.stretches(ends, extent, step, even=even).items():
            found[name] = maximum(low, done), high
        return {**found, "rest": (maximum(lower, done), upper)}

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
        """The intervals within an extent along which loops may go one after the other; none where they are one, or in no such order."""
        within = ((maximum(low, 0).simplify(known), minimum(high, extent).simplify(known)) for low, high in self.union)
        found: list[Interval] = []
        for low, high in _sequence(joined(within), known):
            if found and _reaching(low, found[-1][1], known, 0):
                found[-1] = found[-1][0], maximum(found[-1][1], high).simplify(known)
            else:
                found.append((low, high))
        return tuple(found) if len(found) > 1 else ()


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


def _sequence(intervals: Iterable[Interval], known: Bounds) -> list[Interval]:
    """Intervals of the same values of which none begins later than one behind it, as far as that can be proven; else none.

    One that may begin within another, but ends no later, has only what is before that one.
    """
    left, found = list(intervals), list[Interval]()
    while left:
        within = {one: [two for two in left if not _at_most(one[0], two[0], known)] for one in left}
        next_one = next((one for one in left if not within[one]), None)
        if next_one is None:
            inside = (one for one in left if all(_at_most(one[1], two[1], known) for two in within[one]))
            next_one = next(inside, None)
        if next_one is None:
            return []
        left.remove(next_one)
        begins = [low for low, _ in within[next_one]]
        found.append((minimum(next_one[0], *begins).simplify(known), minimum(next_one[1], *begins).simplify(known)))
    return found


def _at_most(one: Index, two: Index, known: Bounds) -> bool:
    """Whether one end is never greater than another, as far as that can be proven."""
    for kind, ends in (("min", (two,)), ("max", (one,))):
        parts = parts_of(*ends, kind)
        if len(parts) > 1:
            return all(_at_most(one, part, known) if kind == "min" else _at_most(part, two, known) for part in parts)
    above, below = parts_of(two, "max"), parts_of(one, "min")
    if len(above) == len(below) == 1:
        return (two - one).proves_at_least(0, known)
    pairs = [*((one, part) for part in above if len(above) > 1), *((part, two) for part in below if len(below) > 1)]
    return any(_at_most(*pair, known) for pair in pairs)


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
    every_row = any(_never_empty(*interval, known) for interval in intervals)
    if reach.somewhere and not every_row:
        return None
    if parts:
        return Reach(low, high, reach.once and not every_row, union=parts)
    return Reach(low, high, reach.once) if low != 0 or high != extent else None


def some_everywhere(compute: Compute, dim: Dim, inside: Mapping[Value, Compute], bounds: Bounds) -> bool:
    """Whether along a dim a value worked out point by point is not masked to zero everywhere, whatever the other dims, as far as that can be
    proven."""
    reach = _Intervals(dim.name, dim.extent, inside).unless(compute.body, 0.0)
    known = bounds.with_extents(compute.extents())
    if reach is None or reach.nowhere:
        return reach is None
    ends = (
        (maximum(low, 0).simplify(known), minimum(high, dim.extent).simplify(known)) for low, high in reach.intervals
    )
    return any(_never_empty(*interval, known) for interval in ends)


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
        """Where `value >= 0`, for one that is linear in the dim or in a quotient of it, or does not hang on it."""
        if self.name not in value.variables():
            return None if value.data() else Reach(index(0), _where(value, self.extent))
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


def _where(value: Index, extent: Index) -> Index:
    """The end of an extent that is reached where `value >= 0`."""
    return extent * minimum(maximum(value + 1, 0), 1)


def condition_of(end: Index) -> Index | None:
    """What is not negative where something is reached before such an end."""
    for atom in end.terms[0][0] if len(end.terms) == 1 else ():
        if isinstance(atom, Extremum) and atom.kind == "min" and index(1) in atom.args and len(atom.args) == 2:
            (part,) = (arg for arg in atom.args if arg != 1)
            above = [arg for arg in parts_of(part, "max") if arg != 0]
            return above[0] - 1 if len(above) == 1 and part != above[0] else None
    return None


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
