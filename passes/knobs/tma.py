"""Bulk loads: whole blocks of a tensor by one instruction, through a descriptor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob


@register
class Tma(Room):
    """Whether loads of whole blocks go by tensor descriptors; no choice of a search.

    Only with `warp_specialize`, without which no price on all machines follows from it.
    """

    name = "tma"
    default = 0
    needs = "warp_specialize"

    def unread(self, site: Site) -> str:
        return "" if site.machine.features.get("tma", False) else f"{site.machine.name} has no tensor descriptors"

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return (0, 1)

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()
