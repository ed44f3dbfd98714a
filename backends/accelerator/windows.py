"""Parts of arrays that instructions reach, for many executions of one at once.

Each index that is linear in the axes makes steps of a constant stride; where the executions start may differ. So a part is a window of
strides laid over the array, at one start each: a view where the starts lie evenly apart, else taken window by window in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from codesign.ir.core import Value
from codesign.ir.errors import EvaluationError
from codesign.ir.index import Index
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.numerics import Array
from codesign.ir.tile import Axis

BATCH = "@batch"
"""The axis along which executions differ; the first of every domain."""


class BatchDomain(Domain):
    """The axes of an instruction for so many executions: `fixed` values are integers, or arrays of one integer for each execution."""

    def __init__(self, axes: Sequence[Axis], controls: Mapping[str, int | Array], count: int) -> None:
        super().__init__([Span(BATCH, 0, count), *(Span(axis.name, 0, axis.size) for axis in axes)], controls)
        shape = (count, *(1 for _ in axes))
        self._grids = {
            name: value if isinstance(value, int) else value.reshape(shape) for name, value in controls.items()
        }


class BatchEvaluator(Evaluator):
    """Evaluates scalars for many executions at once."""

    domain: BatchDomain

    def _window(self, indices: tuple[Index, ...], array: Array) -> Array | None:
        found = window_of(indices, self.domain, array)
        return None if found is None else found.read()


class Window:
    """A part of an array for each execution: `view`, or `view[starts]` where the starts are uneven."""

    def __init__(self, view: Array, starts: Array | None) -> None:
        self.view = view
        self.starts = starts

    def read(self) -> Array:
        """Its elements: executions along the first axis (of size 1 where all have the same)."""
        return self.view if self.starts is None else self.view[self.starts]

    def write(self, values: Array) -> None:
        """Put elements there; the last execution's stay where several write one."""
        if self.starts is None:
            self.view[...] = values if self.view.shape[0] > 1 or values.shape[0] == 1 else values[-1:]
        else:
            self.view[self.starts] = values


def window_of(indices: Sequence[Index], domain: BatchDomain, array: Array) -> Window | None:
    """The part that an access reaches; None where it is not linear, or not inside the array for all."""
    axes = domain.spans[1:]
    strides = [0] * len(axes)
    first: Any = 0
    below = 1
    for expression, size in zip(reversed(indices), reversed(array.shape), strict=True):
        found = domain.steps(expression)
        if found is None:
            return None
        steps, start = found
        low, high = domain.reach(steps)
        for name, step in steps.items():
            strides[domain.axis[name] - 1] += step * below
        least, most = (start, start) if isinstance(start, int) else (np.min(start), np.max(start))
        if least + low < 0 or most + high >= size:
            return None
        first, below = first + start * below, below * size
    if not array.flags.c_contiguous or any(span.size == 0 for span in domain.spans):
        return None
    shape = [span.size if stride else 1 for span, stride in zip(axes, strides, strict=True)]
    each = [stride * array.itemsize for stride in strides]
    flat = array.reshape(-1)
    if isinstance(first, int | np.integer):
        return Window(as_strided(flat[first:], (1, *shape), (0, *each)), None)
    apart = np.diff(first)
    if len(first) == 1 or (apart == apart[0]).all():
        apart = int(apart[0]) if len(first) > 1 else 0
        return Window(as_strided(flat[int(first[0]) :], (len(first), *shape), (apart * array.itemsize, *each)), None)
    begin = int(first.min())
    count = int(first.max()) - begin + 1
    return Window(as_strided(flat[begin:], (count, *shape), (array.itemsize, *each)), first - begin)


def places_of(
    memory: Value, indices: Sequence[Index], evaluator: Evaluator, array: Array, active: bool | Array
) -> tuple[int | Array, ...]:
    """The index of every lane along each dimension, idle lanes moved inside; EvaluationError when an active one is outside."""
    places: list[int | Array] = []
    for axis, (expression, size) in enumerate(zip(indices, array.shape, strict=True)):
        place = evaluator.index(expression)
        if np.size(place) and (np.min(place) < 0 or np.max(place) >= size):
            outside = (np.asarray(place) < 0) | (np.asarray(place) >= size)
            if np.any(outside & active):
                raise out_of_range(memory, axis, size, np.min(place), np.max(place))
            place = np.clip(place, 0, max(size - 1, 0))
        places.append(place)
    return tuple(places)


def out_of_range(memory: Value, axis: int, size: int, low: int, high: int) -> EvaluationError:
    """The error of an access along one dimension of a memory."""
    return EvaluationError(
        f"address out of range: index {low}..{high} along dim {axis} of %{memory.name}, whose size is {size}"
    )
