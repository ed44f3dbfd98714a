"""Tests of tiles by data: whether steps are left out in which a mask that is data leaves nothing."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site


@register
class Skip(Room):
    """1: each step of a loop asks the data of its mask (documents, blocks) first, and loads and multiplies only where some point counts."""

    name = "skip"
    default = 0

    def unread(self, site: Site) -> str:
        if not site.gpu:
            return f"programs of {site.machine.name} take no way that hangs on data"
        folded = site.summary.folded or site.summary
        return "" if folded.tested else "no mask of the kernel is data that a tile could be asked for"

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return (0, 1)
