"""How a group becomes two: partial results in parallel, then their combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.ir.tensor import Empty, Fusion
from codesign.passes.tiling.split import split_reduction, splittable
from codesign.passes.tiling.tail import Tail, has_tail, split_tail


@dataclass(frozen=True)
class Cutting:
    """Into how many `parts` a group's reduction is cut (1: not at all): for all points of its results, or for those of a `tail`."""

    parts: int = 1
    tail: Tail | None = None

    def applies(self, fusion: Fusion) -> bool:
        """Whether a group can be cut so."""
        where = splittable(fusion)
        if self.parts == 1 or where is None or self.parts > where.extent:
            return self.parts == 1
        if self.tail is None:
            return True
        if self.tail.position >= len(fusion.dims()):
            return False
        dim = self.tail.dim(fusion)
        return has_tail(fusion, dim) and 0 < self.tail.start < dim.extent.constant

    def dim(self, fusion: Fusion) -> str:
        """The dim that is cut into parts."""
        where = splittable(fusion)
        assert where is not None
        return where.dim

    def halves(self, fusion: Fusion) -> tuple[Fusion, Fusion]:
        """The group of partial results and the group that combines them."""
        if self.tail is not None:
            return split_tail(fusion, self.tail, self.parts)
        where = splittable(fusion)
        assert where is not None
        return split_reduction(fusion, where, self.parts)


WHOLE = Cutting()


def memory(partial: Fusion) -> Sequence[Empty]:
    """What makes the memory that the group of partial results writes a part of."""
    return [write.base.owner for write in partial.writes.values() if isinstance(write.base.owner, Empty)]
