"""Splits: parts of a reduction that different programs do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from codesign.ir.schedule import LARGEST, Schedule
from codesign.passes.knobs.room import Read, Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.knobs.tile import no_such_dim
from codesign.passes.schedule.space import Knob


@register
class Split(Room):
    """Into how many parts over the grid a reduction dim is split; the tuner makes a kernel of each phase of it."""

    name = "split"
    rank = 40

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return range(1, LARGEST + 1)

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()  # the tuner prices each number of parts at tiles of its own

    def said(self, schedule: Schedule) -> Iterator[Read]:
        for dim, parts in schedule.split.items():
            yield f"split.{dim}", dim, parts

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        if site is not None and dim not in site.extents:
            return no_such_dim(dim, site.extents)
        return super().wrong(value, site, dim)
