"""The order in which programs walk the grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from codesign.ir.schedule import Schedule
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
    """Outer dims, slowest first, as a GPU's grid walks them; no choice of a search. Accelerators keep the kernel's own order."""

    name = "order"

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return ()

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()

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
        if not site.gpu and names != [name for name in outer if name in names]:
            return f"programs of {site.machine.name} walk the grid in the order {', '.join(outer)}"
        return ""
