"""What a program keeps in a core's scratchpad, and from when to when it lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from codesign.ir.index import Index

if TYPE_CHECKING:
    from codesign.costmodel.dataflow.selection import Section

Loop = TypeVar("Loop")


@dataclass(eq=False)
class Buffer:
    """Scratchpad of one value. `home`: the innermost loop that has every access to it (None: the loop over programs)."""

    size: Index
    engines: set[str] = field(default_factory=set)
    paths: list[tuple[Section, ...]] = field(default_factory=list)
    first: int = 1 << 30
    last: int = -1
    summed: bool = False
    operand: bool = False
    """A matrix product adds to it; or reads it."""
    part: tuple[Index, Index, float] | None = None
    """Of a part of an expression, the points of all of it, those of the part, and its issue slots: it is there where that is worked out alone."""
    through: list[tuple[Buffer, int]] = field(default_factory=list)
    """A part that reads it, and the position of the whole expression, which reads it instead where that part is not worked out alone."""

    @property
    def sums(self) -> bool:
        """Whether the array's own memory may hold it."""
        return self.summed and not self.operand and self.engines <= {"tensor", "vector"}

    @property
    def inside(self) -> tuple[Section, ...]:
        """The loops that have every access to it, outermost first."""
        return common(self.paths)

    @property
    def home(self) -> Section | None:
        inside = self.inside
        return inside[-1] if inside else None

    @property
    def life(self) -> tuple[int, int]:
        """Its first and last access, where no part is worked out alone; one in a deeper loop is made at any time of that loop."""
        first, last = self.life_beside_parts
        return first, max([last, *(position for _, position in self.through)])

    @property
    def life_beside_parts(self) -> tuple[int, int]:
        """The same where all are."""
        return lasting(self.first, self.last, self.paths, lambda section: section.span)


def common(paths: Sequence[tuple[Loop, ...]]) -> tuple[Loop, ...]:
    """The loops that all paths begin with, outermost first."""
    found = paths[0] if paths else ()
    for path in paths[1:]:
        length = 0
        while length < min(len(found), len(path)) and found[length] is path[length]:
            length += 1
        found = found[:length]
    return found


def lasting(
    first: int, last: int, paths: Sequence[tuple[Loop, ...]], span: Callable[[Loop], tuple[int, int]]
) -> tuple[int, int]:
    """From the first to the last position of accesses, each in the loops of its path; one that is not in all of them is made at any time of that."""
    depth = len(common(paths))
    inner = [span(loop) for path in paths for loop in path[depth:]]
    return min([first, *(begin for begin, _ in inner)]), max([last, *(end for _, end in inner)])
