"""The order in which programs walk the grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from codesign.costmodel.dataflow.target import target_of
from codesign.ir.schedule import Schedule, rank_of
from codesign.passes.knobs.room import Read, Room, Value, register
from codesign.passes.knobs.site import Site, matrix_product
from codesign.passes.schedule.space import Knob


def order_of(site: Site) -> tuple[str, ...]:
    """How a space's schedules walk the grid: as the kernel lists its dims, but fastest along those by which data choose a whole operand.

    So blocks of rows whose matrix a table names (those of one expert, one after the other) meet in L2 at the same part of it.
    """
    outer = site.summary.outer
    chosen: set[str] = set()
    for nest in site.summary.nests:
        product = matrix_product(nest) if site.gpu else None
        if product is None:
            continue
        at = (expression for access in nest.loads for expression in access.index if expression.data())
        chosen.update(
            dim for expression in at for dim in expression.variables() if expression.variables() <= {*product.batch}
        )
    return (*(dim for dim in outer if dim not in chosen), *(dim for dim in outer if dim in chosen))


@register
class Order(Room):
    """Outer dims, slowest first, as programs walk the grid. What a later block reads again stays in the memories on its way where there is room
    until then, so on accelerators the order decides what is read twice; a GPU's is no choice of a search."""

    name = "order"

    def unread(self, site: Site) -> str:
        if not site.gpu and len(target_of(site.machine).ports) < 2:
            return f"{site.machine.name} has no memory between DRAM and its cores that keeps what is read again"
        return ""

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return ()

    def offered(self, site: Site) -> Iterable[Knob]:
        """Where two loads depend on different dims of the grid: any dim slowest, the others as the kernel has them."""
        outer = order_of(site)
        loads = {
            frozenset(load.dims) & {*outer} for nest in site.summary.nests for load in nest.loads if not load.gather
        }
        if site.gpu or self.unread(site) or len(loads) < 2:
            return
        first = [dim for dim in outer if site.extents[dim] > 1 and any(dim not in dims for dims in loads)]
        ranks = {rank_of(outer, (dim, *(other for other in outer if other != dim))) for dim in first}
        values = tuple(sorted({0, *ranks}))
        if len(values) > 1:
            yield Knob(self.name, values, 0)

    def said(self, schedule: Schedule) -> Iterator[Read]:
        if schedule.order:
            yield "order", "", ", ".join(schedule.order)

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        if site is None:
            return ""
        names, outer = str(value).split(", "), site.summary.outer
        for name in names:
            if name not in outer:
                return f"{name!r} is not an outer dim of the kernel; outer dims: {', '.join(outer)}"
        return "" if names == [name for name in outer if name in names] else self.unread(site)
