"""Dataflows: which operand stays in a systolic array while the others stream through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codesign.costmodel.dataflow.target import target_of
from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site, matrix_product
from codesign.passes.schedule.space import Knob

DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary")


@register
class Dataflow(Room):
    """What of a matrix product stays in the array; without it, the machine's own first choice."""

    name = "dataflow"
    default = ""

    def unread(self, site: Site) -> str:
        if site.gpu or len(_dataflows(site)) < 2:
            return f"{site.machine.name} has no choice of dataflows"
        if not any(matrix_product(nest) for nest in site.summary.nests):
            return "the kernel has no matrix product"
        return ""

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return DATAFLOWS if site is None else _dataflows(site)

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()


def _dataflows(site: Site) -> tuple[str, ...]:
    """What the array of an accelerator can do, its own choice first; a unit with depth has no dataflow to choose."""
    array = target_of(site.machine).array
    return array.dataflows if array.systolic else ()
