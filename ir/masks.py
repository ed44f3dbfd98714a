"""Where an expression may be another value than a given one: followed through what masks are made of, for whatever says where.

A factor that is masked to zero makes its product zero, and a term that is minus infinity its sum, whatever the others hold. What a part of a
domain is (`codesign.ir.reach`: an interval; `Conditions`) is the matter of subclasses; None stands for everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL
from codesign.ir.functions import FUNCTIONS
from codesign.ir.numerics import highest, lowest
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply
from codesign.ir.tensor import Compute

Part = TypeVar("Part")

NEVER = Literal(False, BOOL)
"""The condition of nowhere."""

_LOWEST = frozenset({-65504.0, float(np.finfo(np.float32).min), float(np.finfo(np.float64).min), -255 * 2.0**120})
"""The lowest finite numbers of float16, float32, float64 and bfloat16: what models write for minus infinity in a mask."""

_ENDS = (0.0, -math.inf, math.inf)
"""Values of an argument that are tried for what makes a function's result a given value."""


def neutral(compute: Compute) -> float | None:
    """The value of a reduced expression that contributes nothing; None where every value counts, if only by its position."""
    monoid, dtype = compute.monoid, compute.accumulate
    if monoid is None or monoid in ("argmax", "argmin"):
        return None
    if monoid in ("max", "min"):
        return float(lowest(dtype) if monoid == "max" else highest(dtype))
    return 1.0 if monoid in ("prod", "all") else 0.0


class Masks(ABC, Generic[Part]):
    """Parts of a domain in which expressions may be another value; None stands for everywhere."""

    nowhere: Part

    def __init__(self) -> None:
        self.memo: dict[tuple[int, float | str], Part | None] = {}

    @abstractmethod
    def both(self, a: Part | None, b: Part | None) -> Part | None:
        """What is in both."""

    @abstractmethod
    def either(self, a: Part | None, b: Part | None) -> Part | None:
        """A part that holds both."""

    @abstractmethod
    def at_least_once(self, part: Part | None) -> Part | None:
        """A part; what is masked whole still gets what its expression gives there."""

    @abstractmethod
    def hardly(self) -> Part | None:
        """Nowhere, but only where something else counts: the lowest finite number stands in for minus infinity."""

    @abstractmethod
    def compares(self, node: Apply, *, truth: bool) -> Part | None:
        """Where a comparison may hold, or with `truth` False where it may not."""

    @abstractmethod
    def through(self, read: Read, ask: Callable[[Masks[Part], Scalar], Part | None]) -> Part | None:
        """What is asked of a value that is read."""

    def unless(self, node: Scalar, value: float) -> Part | None:
        """Where an expression may be another value than this one."""
        key = (id(node), value)
        if key not in self.memo:
            self.memo[key] = self._unless(node, value)
        return self.memo[key]

    def _unless(self, node: Scalar, value: float) -> Part | None:
        if isinstance(node, Literal):
            if value == -math.inf and float(node.value) in _LOWEST:
                return self.hardly()
            return self.nowhere if float(node.value) == value else None
        if isinstance(node, Read):
            return self.through(node, lambda masks, body: masks.unless(body, value))
        if not isinstance(node, Apply):
            return None
        if node.dtype is BOOL:
            return self.holds(node, truth=not value)
        if node.function == "select":
            condition, *branches = node.args
            yes, no = (self.unless(branch, value) for branch in branches)
            if yes is None and no is None:
                return None
            chosen = self.both(self.holds(condition, truth=True), yes)
            return self.either(chosen, self.both(self.holds(condition, truth=False), no))
        return self._function(node, value)

    def _function(self, node: Apply, value: float) -> Part | None:
        varying = [arg for arg in node.args if not isinstance(arg, Literal)]
        if len(varying) == 1 and node.function not in ("cast", "bitcast"):
            return self._of_one(node, varying[0], value)
        parts = [self.unless(arg, value) for arg in node.args]
        infinite = math.isinf(value)
        if node.function == "cast" and (node.dtype.is_float or value == 0.0):
            return None if node.args[0].dtype is BOOL and value not in (0.0, 1.0) else parts[0]
        if node.function == "mul" and value == 0.0:
            return self.both(*parts)
        if node.function == "div" and value == 0.0:
            return self.at_least_once(parts[0])
        if node.function == "sub" and infinite:
            return self.at_least_once(self.both(parts[0], self.unless(node.args[1], -value)))
        if node.function == "add" and infinite:
            return self.at_least_once(self.both(*parts))
        if node.function in ("add", "sub") and value == 0.0:
            return self.either(*parts)
        if node.function in ("max", "min") and infinite:
            absorbing = (node.function == "max") == (value > 0)
            return self.both(*parts) if absorbing else self.either(*parts)
        return None

    def _of_one(self, node: Apply, arg: Scalar, value: float) -> Part | None:
        """Of a function of one argument (and numbers): where the argument may be another value than one that gives this one."""
        found: Part | None = None
        for end in _ENDS if arg.dtype.is_float else (0.0,):
            dtype = arg.dtype.numpy
            args = [np.asarray(a.value if isinstance(a, Literal) else end, dtype=dtype) for a in node.args]
            with np.errstate(all="ignore"):
                if float(FUNCTIONS[node.function].evaluate(*args)) == value:
                    found = self.both(found, self.unless(arg, end))
        return found

    def holds(self, node: Scalar, *, truth: bool) -> Part | None:
        """Where a condition may hold, or with `truth` False where it may not."""
        key = (id(node), "holds" if truth else "fails")
        if key not in self.memo:
            self.memo[key] = self._holds(node, truth=truth)
        return self.memo[key]

    def _holds(self, node: Scalar, *, truth: bool) -> Part | None:
        if isinstance(node, Literal):
            return None if bool(node.value) == truth else self.nowhere
        if isinstance(node, Read):
            return self.through(node, lambda masks, body: masks.holds(body, truth=truth))
        if not isinstance(node, Apply):
            return None
        if node.function == "not":
            return self.holds(node.args[0], truth=not truth)
        if node.function in ("and", "or"):
            parts = [self.holds(arg, truth=truth) for arg in node.args]
            return self.both(*parts) if (node.function == "and") == truth else self.either(*parts)
        if node.function == "cast" and node.args[0].dtype is BOOL:
            return self.holds(node.args[0], truth=truth)
        return self.compares(node, truth=truth)

    def where(self, node: Scalar, test: Callable[[float], bool]) -> Part | None:
        """Where the value of an expression that chooses among numbers may pass a test."""
        if isinstance(node, Literal):
            return None if test(float(node.value)) else self.nowhere
        if isinstance(node, Read):
            return self.through(node, lambda masks, body: masks.where(body, test))
        if not isinstance(node, Apply):
            return None
        condition: Scalar = node
        if node.dtype is BOOL:
            yes, no = self._passes(test, 1.0), self._passes(test, 0.0)
        elif node.function == "select":
            condition, yes, no = node.args[0], self.where(node.args[1], test), self.where(node.args[2], test)
        else:
            return self.where(node.args[0], test) if node.function == "cast" else None
        return self.either(
            self.both(self.holds(condition, truth=True), yes), self.both(self.holds(condition, truth=False), no)
        )

    def _passes(self, test: Callable[[float], bool], value: float) -> Part | None:
        return None if test(value) else self.nowhere


class Conditions(Masks[Scalar]):
    """Parts of a domain as conditions; `wanted`: what is masked whole gets another value than what is left out.

    `makers`: what the values are that are asked through.
    """

    nowhere = NEVER

    def __init__(self, makers: Mapping[Value, Compute]) -> None:
        super().__init__()
        self.makers = makers
        self.wanted = False

    def both(self, a: Scalar | None, b: Scalar | None) -> Scalar | None:
        if a is None or b is None:
            return b if a is None else a
        return NEVER if NEVER in (a, b) else a if a == b else apply("and", a, b)

    def either(self, a: Scalar | None, b: Scalar | None) -> Scalar | None:
        if a is None or b is None:
            return None
        return b if a == NEVER else a if b in (NEVER, a) else apply("or", a, b)

    def at_least_once(self, part: Scalar | None) -> Scalar | None:
        self.wanted = self.wanted or (part is not None and part != NEVER)
        return part

    def hardly(self) -> Scalar | None:
        return None

    def pointwise(self, read: Read) -> Compute | None:
        """What makes a value that is read, where it is worked out point by point and read within its bounds."""
        maker = self.makers.get(read.source)
        return None if maker is None or maker.reductions or read.otherwise is not None else maker
