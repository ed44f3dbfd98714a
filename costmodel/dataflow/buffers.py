"""What a program keeps in a core's scratchpad, and from when to when it lives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codesign.ir.index import Index

if TYPE_CHECKING:
    from codesign.costmodel.dataflow.selection import Section


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

    @property
    def sums(self) -> bool:
        """Whether the array's own memory may hold it."""
        return self.summed and not self.operand and self.engines <= {"tensor", "vector"}

    @property
    def inside(self) -> tuple[Section, ...]:
        """The loops that have every access to it, outermost first."""
        common = self.paths[0] if self.paths else ()
        for path in self.paths[1:]:
            length = 0
            while length < min(len(common), len(path)) and common[length] is path[length]:
                length += 1
            common = common[:length]
        return common

    @property
    def home(self) -> Section | None:
        inside = self.inside
        return inside[-1] if inside else None

    @property
    def life(self) -> tuple[int, int]:
        """Its first and last access; one in a deeper loop is made at any time of that loop."""
        first, last, depth = self.first, self.last, len(self.inside)
        for path in self.paths:
            for section in path[depth:]:
                first, last = min(first, section.span[0]), max(last, section.span[1])
        return first, last
