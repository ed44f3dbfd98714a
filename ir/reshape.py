"""Reshapes: where an element of a tensor of one shape lies in a tensor of another shape with the same elements in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from codesign.ir.index import Bounds, Index, index, product
from codesign.ir.types import row_major

Shape = tuple[Index, ...]


def reshaped(point: Sequence[Index], old: Shape, new: Shape, bounds: Bounds) -> tuple[Index, ...]:
    """The indices in the new shape of a point of the old one: `[g, c]` of `[16, 64]` is `[g*64 + c]` of `[1024]`, and the other way round.

    A point outside of a dim is outside of one that is made of it.
    """
    found: list[Index] = []
    for first, last, sizes in _runs(old, new):
        flat = index(0)
        for place, stride in zip(point[first:last], row_major(old[first:last]), strict=True):
            flat = flat + place * stride
        for position, (size, stride) in enumerate(zip(sizes, row_major(sizes), strict=True)):
            digit = flat // stride % size if position else flat // stride
            found.append(digit.simplify(bounds))
    return tuple(found)


def _runs(old: Shape, new: Shape) -> Iterator[tuple[int, int, Shape]]:
    """The shortest runs of old dims, from and to, with the new dims of as many elements."""
    a = b = 0
    while a < len(old) or b < len(new):
        first, start = a, b
        a, b = min(a + 1, len(old)), min(b + 1, len(new))
        while product(old[first:a]) != product(new[start:b]):
            mine, theirs = product(old[first:a]), product(new[start:b])
            longer = b < len(new) and (a == len(old) or _divides(theirs, mine))
            a, b = (a, b + 1) if longer else (a + 1, b)
            if a > len(old):
                raise ValueError(f"shapes {old} and {new} have not the same elements")
        yield first, a, new[start:b]


def _divides(a: Index, b: Index) -> bool:
    """Whether b is a multiple of a: not so of a dim that is larger."""
    return a != b and a != 0 and not (b % a).terms
