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
    """Of the operands, as the unit takes them."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Element-wise work at `points`, or a reduction of them. `parts`: slots of expressions by the points that they depend on (the first of
    all of them). Bytes that it reads and writes."""

    points: Index
    parts: tuple[tuple[Index, Slots], ...]
    read: Index
    written: Index
    width: int
    reduces: bool

    @cached_property
    def key(self) -> Hashable:
        """Equal for equal work."""
        parts = tuple((size, tuple(slots.items())) for size, slots in self.parts)
        return ("vectors", self.points, parts, self.read, self.written, self.width, self.reduces)


Item = Transfer | Multiply | Vectors
Touch = tuple[Buffer, bool]
"""A buffer that an instruction reads, or writes (true)."""
