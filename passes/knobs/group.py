"""Groups of programs: the order in which a GPU's programs walk a plane of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codesign.ir.schedule import LARGEST
from codesign.ir.tiling.domain import SMALLEST_DOT, next_power_of_two
from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob, nearest, powers_of_two


@register
class Group(Room):
    """Tiles of the second-last grid dim that are walked together along the last, so that they share operands in L2."""

    name = "group"
    rank = 30

    def unread(self, site: Site) -> str:
        if not site.gpu:
            return f"programs of {site.machine.name} walk the grid in its own order"
        if sum(site.summary.extents[dim] != 1 for dim in site.summary.outer) < 2:
            return "a grid of one dim has no tiles to walk together"
        return ""

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return range(1, LARGEST + 1)

    def offered(self, site: Site) -> Iterable[Knob]:
        sides = site.roles.sides.items()
        wide = [dim for dim, role in sides if role in "mn" and site.extents[dim] > SMALLEST_DOT]
        if len(wide) > 1 and not self.unread(site):
            values = powers_of_two(1, next_power_of_two(int(site.cores**0.5)))
            yield Knob(self.name, values, nearest(values, 8))

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        return "" if value == self.default and isinstance(value, int) else super().wrong(value, site, dim)
