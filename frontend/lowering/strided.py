"""Strided windows of a tensor's storage, read and written: flat positions there, taken apart again by the tensor's own strides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, read
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of, unflatten
from codesign.ir.core import Value
from codesign.ir.index import Index, IndexLike, index, product


@lower("aten.as_strided.default", "aten.as_strided_copy.default")
def as_strided(
    b: Builder,
    x: Value,
    size: Sequence[IndexLike],
    stride: Sequence[IndexLike],
    storage_offset: IndexLike | None = None,
) -> Value:
    """Any strided window of a tensor's storage: a flat position there, taken apart again by the tensor's own strides."""
    place = _window(b, x, b.shape, (size, stride, storage_offset))
    return b.compute(b.shape, lambda i: read(x, place(i)))


@lower("aten.as_strided_scatter.default")
def as_strided_scatter(
    b: Builder,
    x: Value,
    source: Value,
    size: Sequence[IndexLike],
    stride: Sequence[IndexLike],
    storage_offset: IndexLike | None = None,
) -> Value:
    """x with a strided window of its storage written."""
    shape = shape_of(source)
    place = _window(b, x, shape, (size, stride, storage_offset))
    return b.scatter("set", x, shape, lambda i: (place(i), read(source, i)))


def _window(b: Builder, x: Value, shape: Sequence[Index], window: Any) -> Callable[[Point], list[Index]]:
    """Where in x the points of a window of this shape lie; `window` has its size, strides and offset in the storage."""
    size, stride, storage_offset = window
    source = shape_of(x)
    strides, start = b.layout or (None, 0)
    offset = start if storage_offset is None else storage_offset
    if strides is None or not all(size.is_constant for size in source) or _row_major(source, strides):
        _check_reach(b, source, (size, stride, offset), start)

        return lambda i: unflatten(b, _position(i, stride, index(offset) - start), source, shape)
    sizes = [size.constant for size in source]
    _check_window(b, sizes, strides, (size, stride, offset), start)
    order = sorted((d for d, n in enumerate(sizes) if n > 1 and strides[d] > 0), key=lambda d: -strides[d])

    def place(i: Point) -> list[Index]:
        rest, point = _position(i, stride, offset) - start, [index(0)] * len(sizes)
        for d in order:
            point[d], rest = rest // strides[d], rest % strides[d]
        return point

    return place


def _row_major(source: Sequence[Index], strides: Sequence[int]) -> bool:
    expected = 1
    for size, step in zip(reversed(source), reversed(strides), strict=True):
        if size.constant != 1 and step != expected:
            return False
        expected *= size.constant
    return True


def _position(i: Point, stride: Sequence[IndexLike], offset: IndexLike) -> Index:
    flat = index(offset)
    for position, step in zip(i, stride, strict=True):
        flat = flat + position * step
    return flat


_HINT = "pass the whole storage as an input"


def _check_reach(b: Builder, source: Sequence[Index], window: Any, start: int) -> None:
    """The window of a row-major tensor begins and ends inside of it, as far as its sizes are known."""
    extents, steps, offset = window
    held = product(source)
    if not held.is_constant or not all(isinstance(n, int) for n in (*extents, *steps, offset)) or 0 in extents:
        return
    last = offset + sum((n - 1) * step for n, step in zip(extents, steps, strict=True))
    if offset < start or last >= start + held.constant:
        raise b.unsupported("it reads storage between or around the elements of the tensor", _HINT)


WINDOW_POINTS = 1 << 22
"""Points of a window into a storage that are looked at for one that the tensor does not hold."""


def _check_window(b: Builder, sizes: Sequence[int], strides: Sequence[int], window: Any, start: int) -> None:
    """Every position of the window must be an element of the tensor: what lies between its elements is not captured."""
    extents, steps, offset = window
    if not all(isinstance(n, int) for n in (*extents, *steps, offset)):
        raise b.unsupported(
            "it takes a dynamic window of a tensor that is not row-major", "call .contiguous() before it"
        )
    if math.prod(extents) > WINDOW_POINTS or math.prod(sizes) > WINDOW_POINTS:
        raise b.unsupported("it takes a large window of a tensor that is not row-major", "call .contiguous() before it")

    def places(shape: Sequence[int], by: Sequence[int], first: int) -> set[int]:
        found = {first}
        for extent, step in zip(shape, by, strict=True):
            found = {place + k * step for place in found for k in range(extent)}
        return found

    order = sorted((step, n) for step, n in zip(strides, sizes, strict=True) if n > 1 and step > 0)
    reach = 0
    for step, n in order:
        if step <= reach:
            raise b.unsupported("it takes a window of a tensor whose elements overlap", "call .contiguous() before it")
        reach += step * (n - 1)
    if not places(extents, steps, offset) <= places(sizes, strides, start):
        raise b.unsupported("it reads storage between or around the elements of the tensor", _HINT)
