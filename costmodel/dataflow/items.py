"""Instructions of a dataflow machine as a kernel's text has them, with sizes that are expressions of the tiles."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

from codesign.costmodel.dataflow.buffers import Buffer
from codesign.costmodel.features import Move, Product
from codesign.costmodel.summary import Access
from codesign.ir.index import Index

Slots = Mapping[tuple[str, str], float]
"""Issue slots of a point by unit and dtype."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """A load or store of a tile. `follows`: it waits for positions that the same steps load."""

    kind: str
    move: Move
    access: Access
    buffer: Buffer
    follows: bool = False
    cut: bool = False
    """Loops around it end where a mask says."""
    operand: str = ""
    """As schedules name it."""
    dims: frozenset[str] = frozenset()
    """Of the group, that its data depends on, through the ends of the loops around it too where a mask cuts them."""

    @property
    def filled(self) -> Index:
        """Bytes in scratchpad."""
        return self.buffer.size


@dataclass(frozen=True, eq=False)
class Multiply:
    """A matrix product that adds to a buffer."""

    product: Product
    result: Buffer
    dtype: str
    right: str
    """Of the operands, as the unit takes them."""


@dataclass(frozen=True)
class Part:
    """Of an expression, what depends on so many `points` alone. Where it is worked out alone it reads and writes so many bytes;
    elsewhere the expression reads `inline` bytes, and has `inline_slots`, for it that it would not have otherwise."""

    points: Index
    slots: Slots
    inline_slots: Slots
    read: Index
    inline: Index
    written: Index


@dataclass(frozen=True, eq=False)
class Vectors:
    """Element-wise work at `points`, or a reduction of them: issue slots, and bytes that it reads and writes, besides its `parts`."""

    points: Index
    slots: Slots
    parts: tuple[Part, ...]
    read: Index
    written: Index
    reduces: bool

    @cached_property
    def key(self) -> Hashable:
        """Equal for equal work."""
        parts = tuple(
            (p.points, tuple(p.slots.items()), tuple(p.inline_slots.items()), p.read, p.inline, p.written)
            for p in self.parts
        )
        return ("vectors", self.points, tuple(self.slots.items()), parts, self.read, self.written, self.reduces)


Item = Transfer | Multiply | Vectors
Touch = tuple[Buffer, bool]
"""A buffer that an instruction reads, or writes (true)."""
