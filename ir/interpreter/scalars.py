"""Evaluates scalar expressions over whole domains at once, with NumPy broadcasting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.ir.core import Value
from codesign.ir.errors import EvaluationError
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Index, Var
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.numerics import Array, convert, finish, next_after, reinterpret
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.ir.tile import Guard


@dataclass(frozen=True, slots=True)
class Span:
    """The values `low, low + 1, ..., high - 1` that a dimension takes in the part of a domain being evaluated."""

    name: str
    low: int
    high: int

    @property
    def size(self) -> int:
        return max(self.high - self.low, 0)


class Domain:
    """A box of integer points: dimension number `a` varies along array axis `a`; `fixed` names are the same at every
    point (an array is of one value for each of many boxes, where a subclass has so many).

    Every array evaluated over it has its rank, with size 1 along dimensions that do not matter.
    """

    def __init__(self, spans: Sequence[Span], fixed: Mapping[str, int | Array]) -> None:
        self.spans = tuple(spans)
        self.fixed = fixed
        self.axis = {span.name: a for a, span in enumerate(self.spans)}
        self._grids: dict[str, int | Array] = {**fixed}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(span.size for span in self.spans)

    def values(self, expression: Index) -> Mapping[str, int | Array]:
        """What the expression's variables are, as integers and arrays that broadcast to the domain."""
        for name in expression.variables():
            if name not in self._grids:
                if name not in self.axis:
                    raise EvaluationError(f"no value for {name!r} in index {expression}")
                span = self.spans[self.axis[name]]
                shape = [1] * len(self.spans)
                shape[self.axis[name]] = span.size
                self._grids[name] = np.arange(span.low, span.high, dtype=np.int64).reshape(shape)
        return self._grids

    def steps(self, expression: Index) -> tuple[dict[str, int], Any] | None:
        """The expression as steps along dims from a start where all are 0; None where it is not linear in them."""
        steps: dict[str, int] = {}
        start: Any = 0
        for monomial, c in expression.terms:
            factor: Any = c
            dim = ""
            for atom in monomial:
                if not isinstance(atom, Var):
                    return None
                if atom.name in self.axis:
                    if dim:
                        return None
                    dim = atom.name
                elif atom.name in self.fixed:
                    factor = factor * self.fixed[atom.name]
                else:
                    raise EvaluationError(f"no value for {atom.name!r} in index {expression}")
            if not dim:
                start = start + factor
            elif isinstance(factor, np.ndarray):
                return None
            else:
                steps[dim] = steps.get(dim, 0) + factor
        return steps, start

    def linear(self, expression: Index) -> tuple[str, int, int] | None:
        """The expression as `coefficient * dim + offset`, or None when it is not of that form (dim "" when constant)."""
        found = self.steps(expression)
        if found is None or len(found[0]) > 1 or isinstance(found[1], np.ndarray):
            return None
        ((name, step),) = found[0].items() or [("", 0)]
        return (name, step, found[1]) if step else ("", 0, found[1])

    def reach(self, steps: Mapping[str, int]) -> tuple[int, int]:
        """How far steps along dims lead at least and at most."""
        spans = [(self.spans[self.axis[name]], step) for name, step in steps.items()]
        ends = [(step * span.low, step * (span.high - 1)) for span, step in spans]
        return sum(map(min, ends)), sum(map(max, ends))


class Evaluator:
    """Evaluates scalars over one domain, each distinct node once."""

    def __init__(self, domain: Domain, data: Mapping[Value, Array], location: Location = UNKNOWN) -> None:
        self.domain = domain
        self.data = data
        self.location = location
        self._done: dict[int, Array] = {}
        self._keep: list[Scalar] = []  # holds nodes alive, since results are filed under their ids

    def scalar(self, expression: Scalar) -> Array:
        """The value at every point; the array's rank is the domain's or 0."""
        self._keep.append(expression)
        with np.errstate(all="ignore"):
            for node in expression.walk():
                if id(node) not in self._done:
                    self._done[id(node)] = self._node(node)
        return self._done[id(expression)]

    def index(self, expression: Index) -> int | Array:
        """The value of an index expression, as an integer when it is the same at every point."""
        values = self.domain.values(expression)
        value: int | Array = expression.evaluate(values, lambda scalar: self.scalar(scalar).astype(np.int64))
        return value if isinstance(value, np.ndarray) else int(value)

    def active(self, guards: Iterable[Guard]) -> bool | Array:
        """Which lanes all guards leave active; True when all are."""
        lanes: bool | Array = True
        for guard in guards:
            value = np.asarray(self.index(guard.value))
            if guard.low is not None:
                lanes = lanes & (value >= self.index(guard.low))
            if guard.high is not None:
                lanes = lanes & (value < self.index(guard.high))
        return True if np.all(lanes) else lanes

    def _node(self, node: Scalar) -> Array:
        if isinstance(node, Literal):
            return convert(node.value, node.dtype)
        if isinstance(node, IndexValue):
            return convert(np.asarray(self.index(node.index), dtype=np.int64), node.dtype)
        if isinstance(node, Read):
            return self._read(node)
        if isinstance(node, Apply):
            args = [self._done[id(arg)] for arg in node.args]
            if node.function == "cast":
                return convert(args[0], node.dtype)
            if node.function == "bitcast":
                return reinterpret(args[0], node.args[0].dtype, node.dtype)
            if node.function == "nextafter":  # neighbours in the format, not in what holds it
                return next_after(args[0], args[1], node.dtype)
            return finish(FUNCTIONS[node.function].evaluate(*args), node.dtype)
        raise TypeError(f"unknown scalar {node!r}")

    def _read(self, node: Read) -> Array:
        array = self.data.get(node.source)
        if array is None:
            raise EvaluationError(f"%{node.source.name} has no value yet", place=self.location)
        if len(node.indices) != array.ndim:
            raise EvaluationError(f"{node} has {len(node.indices)} indices for rank {array.ndim}", place=self.location)
        window = self._window(node.indices, array)
        if window is not None:
            return window
        places: list[int | Array] = []
        inside: bool | Array = True
        for position, (expression, size) in enumerate(zip(node.indices, array.shape, strict=True)):
            place = self.index(expression)
            if np.size(place) == 0 or (np.min(place) >= 0 and np.max(place) < size):
                places.append(place)
                continue
            if node.otherwise is None:
                raise EvaluationError(
                    f"index {position} of {node} reaches {np.min(place)}..{np.max(place)} but the size is {size}",
                    place=self.location,
                )
            inside = inside & ((np.asarray(place) >= 0) & (np.asarray(place) < size))
            places.append(np.clip(place, 0, max(size - 1, 0)))
        if array.size == 0:
            shape = np.broadcast_shapes(*(np.shape(place) for place in places))
            gathered = np.zeros(shape, array.dtype)
        else:
            gathered = np.asarray(array[tuple(places)])
        if inside is True or node.otherwise is None:
            return gathered
        return np.where(inside, gathered, self._done[id(node.otherwise)])

    def _window(self, indices: tuple[Index, ...], array: Array) -> Array | None:
        """The read as a view, when each index is linear in a dim of its own and stays inside; else None."""
        picks: list[int | slice] = []
        axes: list[int] = []
        for expression, size in zip(indices, array.shape, strict=True):
            form = self.domain.linear(expression)
            if form is None:
                return None
            name, step, start = form
            if not name:
                if not 0 <= start < size:
                    return None
                picks.append(start)
                continue
            axis = self.domain.axis[name]
            span = self.domain.spans[axis]
            first, last = step * span.low + start, step * (span.high - 1) + start
            if axis in axes or span.size == 0 or min(first, last) < 0 or max(first, last) >= size:
                return None
            end = last + (1 if step > 0 else -1)
            picks.append(slice(first, end if end >= 0 else None, step))
            axes.append(axis)
        view = array[tuple(picks)]
        order = sorted(range(len(axes)), key=axes.__getitem__)
        shape = [1] * len(self.domain.spans)
        for position, axis in enumerate(axes):
            shape[axis] = view.shape[position]
        return np.asarray(view).transpose(order).reshape(shape)
