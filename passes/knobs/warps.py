"""Warps: the threads of a program on a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob, powers_of_two

MOST_OFFERED = 16
"""Warps of the largest program that a search tries."""


@register
class Warps(Room):
    """Warps of a program (`num_warps` of Triton)."""

    name = "warps"
    rank = 10
    default = 4

    def unread(self, site: Site) -> str:
        return "" if site.gpu else f"programs of {site.machine.name} have no warps"

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return powers_of_two(1, 64 if site is None else _most(site))

    def offered(self, site: Site) -> Iterable[Knob]:
        if site.gpu:
            yield Knob(self.name, powers_of_two(1, min(_most(site), MOST_OFFERED)), 4)

    def options(self, value: Value) -> Mapping[str, int]:
        return {"num_warps": int(value)}


def _most(site: Site) -> int:
    return int(site.machine.limit("threads_per_block") / site.machine.limit("warp_size"))
