"""Joined programs: the phases of a split reduction in one launch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob


@register
class Joined(Room):
    """Whether a program goes on in the launch of the one before it, when all cores are done with that, and reads operands that it stages in a
    memory from there; the tuner says so of the program that merges the parts of a split reduction.
    """

    name = "joined"
    default = 0

    def unread(self, site: Site) -> str:
        return f"a grid of {site.machine.name} is a launch of its own" if site.gpu else ""

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return (0, 1)

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()
