"""Warp specialization: some warps of a program load, others compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob


@register
class WarpSpecialize(Room):
    """Whether loops are split among warps of a program by what they do, which launches more warps; no choice of a search."""

    name = "warp_specialize"
    default = 0
    needs = "tma"

    def unread(self, site: Site) -> str:
        if not site.machine.features.get("tma", False):
            return f"{site.machine.name} has no tensor descriptors, whose loads such warps do"
        return "" if site.may_loop else "the kernel has no loop to split"

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return (0, 1)

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()
