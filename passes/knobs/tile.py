"""Tile sizes: how much of a dim one program, or one step of a loop, works on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from codesign.ir.schedule import Schedule
from codesign.ir.tiling.domain import LARGEST_TILE, SMALLEST_DOT, next_power_of_two
from codesign.passes.knobs.room import Read, Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob, nearest, powers_of_two


@register
class Tile(Room):
    """The block size of each dim: outer dims are cut into the grid by it, reductions into steps of a loop."""

    name = "tile"
    rank = 0

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return powers_of_two(1, LARGEST_TILE)

    def offered(self, site: Site) -> Iterable[Knob]:
        for dim in site.summary.extents:
            if dim not in site.roles.pinned:
                knob = self._knob(dim, site)
                if len(knob.values) > 1 or knob.values[0] != 1:
                    yield knob

    def _knob(self, dim: str, site: Site) -> Knob:
        top, roles, most = next_power_of_two(site.extents[dim]), site.roles, _most(dim, site)
        if dim in roles.sides:
            values = powers_of_two(SMALLEST_DOT, min(max(top, SMALLEST_DOT), most))
            return Knob(f"tile.{dim}", values, nearest(values, 64 if roles.sides[dim] == "k" else 128))
        values = powers_of_two(1, min(top, most))
        return Knob(f"tile.{dim}", values, values[0] if roles.any else nearest(values, 32))

    def said(self, schedule: Schedule) -> Iterator[Read]:
        for dim, size in schedule.tiles.items():
            yield f"tiles.{dim}", dim, size

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        if site is not None and dim not in site.extents:
            return no_such_dim(dim, site.extents)
        if value not in self.values(site, dim):
            return f"needs a power of two up to {LARGEST_TILE}, got {value}"
        return ""


def _most(dim: str, site: Site) -> int:
    """The longest tile along a dim: of a side of a matrix product, whose other side has a length too, a part of what a program may hold."""
    return site.lanes // SMALLEST_DOT if dim in site.roles.sides else site.lanes


def longest_tiles(site: Site) -> dict[str, float]:
    """The longest tile that a schedule may have along each dim of the grid."""
    return {dim: float(_most(dim, site)) for dim in site.summary.outer}


def no_such_dim(dim: str, known: Iterable[str]) -> str:
    """The message for a dim that a kernel doesn't have, with the nearest that it has."""
    names = list(known)
    near = difflib.get_close_matches(dim, names, n=1)
    return f"the kernel has no such dim; {f'nearest: {near[0]}; ' if near else ''}dims: {', '.join(names)}"
