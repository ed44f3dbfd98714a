"""How a group becomes two: partial results in parallel, then their combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.tensor import Empty, Fusion
from codesign.passes.tiling.split import split_reduction, splittable
from codesign.passes.tiling.strips import Strips, strips_of
from codesign.passes.tiling.tail import Tail, has_tail, split_tail


@dataclass(frozen=True)
class Cutting:
    """Into how many `parts` a group's reduction is cut (1: not at all): for all points of its results, or for those of a `tail`; or into how many
    strips the group is along the dim at position `along` among its dims, whose results the first group makes and whose sums it makes a part of."""

    parts: int = 1
    tail: Tail | None = None
    along: int | None = None

    def applies(self, fusion: Fusion) -> bool:
        """Whether a group can be cut so."""
        if self.along is not None:
            strips = self._strips(fusion)
            return strips is not None and 1 < self.parts <= strips.extent
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
        strips = self._strips(fusion)
        if strips is not None:
            return strips.dim
        where = splittable(fusion)
        assert where is not None
        return where.dim

    def halves(self, fusion: Fusion) -> tuple[Fusion, Fusion]:
        """The group of partial results, after those that it makes whole, and the group that combines them."""
        strips = self._strips(fusion)
        if strips is not None:
            return strips.halves(fusion, self.parts)
        if self.tail is not None:
            return split_tail(fusion, self.tail, self.parts)
        where = splittable(fusion)
        assert where is not None
        return split_reduction(fusion, where, self.parts)

    def results(self, fusion: Fusion, first: Sequence[Value], second: Sequence[Value]) -> list[Value]:
        """What stands for each result of a group, from what its halves give."""
        strips = self._strips(fusion)
        kept = strips.kept if strips is not None else ()
        whole, combined = iter(first), iter(second)
        return [next(whole if position in kept else combined) for position in range(len(fusion.results))]

    def _strips(self, fusion: Fusion) -> Strips | None:
        if self.along is None or self.along >= len(fusion.dims()):
            return None
        dim = list(fusion.dims())[self.along]
        return next((found for found in strips_of(fusion) if found.dim == dim), None)


WHOLE = Cutting()


def memory(partial: Fusion) -> Sequence[Empty]:
    """What makes the memory that the group of partial results writes a part of."""
    return [write.base.owner for write in partial.writes.values() if isinstance(write.base.owner, Empty)]
