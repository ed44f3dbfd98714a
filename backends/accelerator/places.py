"""Where the tiles of a kernel are while it is lowered: in a scratch, in an instruction's expression, or nowhere yet."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.index import Index
from codesign.ir.program import Scratch
from codesign.ir.scalar import Literal, Read, Scalar
from codesign.ir.tile import Axis


@dataclass(frozen=True)
class Place:
    """Where a tile value lives: a scratch, indexed by expressions of the value's axes by position (`$0`, `$1`, ...)."""

    scratch: Scratch
    template: tuple[Index, ...]
    mutable: bool = False
    alias: bool = False

    def read(self, indices: tuple[Index, ...]) -> Read:
        positions = {f"${i}": value for i, value in enumerate(indices)}
        return Read(self.scratch.value, tuple(t.substitute(positions) for t in self.template))

    @property
    def whole(self) -> bool:
        """Each element of the scratch is one element of the value, in the same order of axes or another."""
        return sorted(t.variable or "" for t in self.template) == sorted(f"${i}" for i in range(len(self.template)))


@dataclass(frozen=True)
class Fill:
    """A tile of one constant, which takes no storage until something needs it."""

    value: Literal


@dataclass(frozen=True)
class Scaled:
    """An operand of a product, as the numbers of blocks and their scales, if they have some."""

    elements: Place
    scales: tuple[Place, ...]


@dataclass(frozen=True)
class Inline:
    """A tile that its only user computes where it needs it: `body` (over places) at a point of `axes`."""

    axes: tuple[Axis, ...]
    body: Scalar
