"""Expressions where masks leave everything: what is known of the values of a dim there decides conditions, and what they choose goes.

    select(k <= i, %s[i, k], -inf)   ->   %s[i, k]        where 0 <= k < i + 1
    %s[i, k] + select(k <= i, 0, -inf)   ->   %s[i, k]

The sign of a zero is not kept where zero is added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Bounds, Extremum, Index, index
from codesign.ir.reach import Reach, bound, condition_of, parts_of
from codesign.ir.scalar import Apply, Literal, Read, Scalar, cast
from codesign.ir.tensor import Compute


@dataclass
class Filled:
    """What is known where every row reaches every value of some dims.

    `facts`: expressions that are not negative. `bounds`: ranges of dims and sizes. `members`: computes of the group, through which conditions are
    followed. `whole`: the dims, all whose values lie inside of their extents. `used`: whether conditions were decided by it; `spared`: whether
    lanes are not asked if they lie inside.
    """

    facts: tuple[Index, ...]
    bounds: Bounds
    members: Mapping[Value, Compute]
    whole: frozenset[str]
    used: bool = False
    spared: bool = False
    _memo: dict[Scalar, Scalar] = field(default_factory=dict)

    @staticmethod
    def of(
        dim: str, reach: Reach, bounds: Bounds, members: Mapping[Value, Compute], around: Filled | None = None
    ) -> Filled:
        """Where all of a dim is reached, within what is known `around` it."""
        facts, whole = (around.facts, around.whole) if around is not None else ((), frozenset[str]())
        return Filled((*facts, *_facts(dim, reach)), bounds, members, whole | {dim})

    def scalar(self, node: Scalar) -> Scalar:
        """The expression with what is decided in place of conditions."""
        if node not in self._memo:
            self._memo[node] = self._scalar(node)
        return self._memo[node]

    def _scalar(self, node: Scalar) -> Scalar:
        if isinstance(node, Read):
            return self._through(node)
        if not isinstance(node, Apply):
            return node
        if node.dtype is BOOL and (known := self._decided(node)) is not None:
            self.used = True
            return Literal(known, BOOL)
        if node.function == "select":
            condition = self.scalar(node.args[0])
            if isinstance(condition, Literal):
                return self.scalar(node.args[1 if condition.value else 2])
        args = tuple(self.scalar(arg) for arg in node.args)
        if all(new is old for new, old in zip(args, node.args, strict=True)):
            return node
        return _folded(node, args)

    def _through(self, read: Read) -> Scalar:
        """A number in place of a value of the group that is one."""
        maker = self.members.get(read.source)
        if maker is None or maker.reductions or read.otherwise is not None:
            return read
        if any(place.variable != dim.name for dim, place in zip(maker.dims, read.indices, strict=True)):
            return read
        found = self.scalar(maker.body)
        return cast(found, maker.dtype) if isinstance(found, Literal) else read

    # -- conditions ---------------------------------------------------------------------------------------------------
    def _decided(self, node: Apply) -> bool | None:
        """What a comparison of indices along the dims comes to, or one or the other of several, where that is known."""
        if not any(fact.variables() & node.variables() for fact in self.facts):
            return None
        if node.function in ("and", "or"):
            wanted = node.function == "or"
            margins = _margins(node, node.function, truth=wanted)
            return wanted if margins and self._one_holds(margins) else None
        known = (truth for truth in (True, False) if self._certain(node, truth=truth))
        return next(known, None)

    def _certain(self, node: Apply, *, truth: bool) -> bool:
        """Whether a comparison is known to hold, or with `truth` False to fail."""
        if node.function in ("eq", "ne") and all(arg.dtype.is_integer for arg in node.args):
            more = node.args[1].as_index() - node.args[0].as_index()
            if (node.function == "eq") == truth:
                return self._holds(more) and self._holds(-more)
            return self._holds(more - 1) or self._holds(-more - 1)
        margins = _margin(node, truth=truth)
        return margins is not None and all(self._holds(margin) for margin in margins)

    def _holds(self, value: Index) -> bool:
        """Whether an expression is known not to be negative."""
        return any(self._follows(value, fact) for fact in self.facts)

    def _one_holds(self, values: Iterable[Index]) -> bool:
        """Whether one of some expressions is known not to be negative: of what a fact says is one or the other, each makes one of them so."""
        margins = list(values)
        return any(
            all(any(self._follows(margin, case) for margin in margins) for case in _cases(fact)) for fact in self.facts
        )

    def _follows(self, value: Index, fact: Index) -> bool:
        """Whether an expression is not negative where another is not."""
        if value.data():
            return False
        if (value - fact).proves_at_least(0, self.bounds):
            return True
        for name in sorted(self.whole & value.variables()):
            end = bound(value, name)
            if end is not None:
                rest = index(name) - end[1] if end[0] else end[1] - index(name)
                if (rest - fact).proves_at_least(0, self.bounds):
                    return True
        return False


def _margin(node: Scalar, *, truth: bool) -> tuple[Index, ...] | None:
    """The expressions that are all not negative where a comparison of indices holds, or with `truth` False fails; None for what is no such."""
    if not isinstance(node, Apply) or node.function not in ("lt", "le", "gt", "ge"):
        return None
    if not all(arg.dtype.is_integer for arg in node.args):
        return None
    left, right = node.args
    if isinstance(left, Apply) and left.function == "abs":
        if node.function not in ("lt", "le") or not truth:
            return None
        most, distance = right.as_index() - (1 if node.function == "lt" else 0), left.args[0].as_index()
        return most - distance, most + distance
    low, high = left.as_index(), right.as_index()
    if node.function in ("gt", "ge"):
        low, high = high, low
    more = high - low - (1 if node.function in ("lt", "gt") else 0)
    return (more,) if truth else (-more - 1,)


def _margins(node: Scalar, function: str, *, truth: bool) -> list[Index]:
    """Of conditions joined by `or`, or by `and` whose opposites are, an expression each that is not negative where one holds."""
    if isinstance(node, Apply) and node.function == function:
        return [margin for arg in node.args for margin in _margins(arg, function, truth=truth)]
    if isinstance(node, Apply) and node.function == "not":
        return _margins(node.args[0], "or" if function == "and" else "and", truth=not truth)
    found = _margin(node, truth=truth)
    return list(found) if found is not None and len(found) == 1 else []


def _cases(fact: Index) -> list[Index]:
    """What an expression that is not negative may be: one of these is not."""
    for monomial, c in fact.terms:
        (atom, *others) = monomial or (None,)
        if isinstance(atom, Extremum) and not others and (atom.kind, c) in (("max", 1), ("min", -1)):
            return [fact - Index.atom(atom) * c + arg * c for arg in atom.args]
    return [fact]


def _facts(dim: str, reach: Reach) -> Iterable[Index]:
    place, (lower, upper) = index(dim), reach.intervals[-1] if reach.intervals else (reach.low, reach.high)
    yield from (place - low for low in parts_of(lower, "max"))
    for high in parts_of(upper, "min"):
        yield high - 1 - place
        condition = condition_of(high)
        if condition is not None:
            yield condition


def _folded(node: Apply, args: tuple[Scalar, ...]) -> Scalar:
    """A function of new arguments, some of which are numbers now."""
    name = node.function
    if name in ("and", "or") and node.dtype is BOOL:
        for this, other in (args, args[::-1]):
            if isinstance(this, Literal):
                return other if bool(this.value) == (name == "and") else this
    if all(isinstance(arg, Literal) for arg in args):
        return _evaluated(node, args)
    if name in ("add", "mul"):
        for this, other in (args, args[::-1]):
            if isinstance(this, Literal) and this.value == (0 if name == "add" else 1) and other.dtype is node.dtype:
                return other
    return node.rebuild(args)


def _evaluated(node: Apply, args: tuple[Scalar, ...]) -> Scalar:
    """The number that a function of numbers is."""
    if node.function == "cast":
        (arg,) = args
        assert isinstance(arg, Literal)
        return cast(arg, node.dtype) if arg.dtype is not BOOL else Literal(arg.value, node.dtype)
    if node.function not in FUNCTIONS or (node.dtype.is_float and node.dtype.bits < 32):
        return node.rebuild(args)
    values = [np.asarray(arg.value, dtype=arg.dtype.numpy) for arg in args if isinstance(arg, Literal)]
    with np.errstate(all="ignore"):
        return Literal(FUNCTIONS[node.function].evaluate(*values).item(), node.dtype)
