"""Depth of the pipelines of loops: how far loads run ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from codesign.ir.schedule import LARGEST, Schedule
from codesign.passes.knobs.room import Read, Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob

DEEPEST_PIPELINE = 6
"""Iterations in flight beyond which no memory latency of these machines is left to hide."""


@register
class Pipeline(Room):
    """Iterations of loads in flight: buffers of each loop's operands, and on accelerators of each program's."""

    name = "pipeline"
    rank = 20

    def unread(self, site: Site) -> str:
        if site.gpu and not site.may_loop:
            return "the kernel has no loop whose loads could run ahead"
        return ""

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return range(1, LARGEST + 1)

    def offered(self, site: Site) -> Iterable[Knob]:
        if not site.gpu:  # programs of one core follow each other, so loads run ahead without an inner loop too
            yield Knob("pipeline", (1, 2, 3, 4), 2)
        elif site.loops:
            yield Knob("pipeline", tuple(range(1, DEEPEST_PIPELINE + 1)), 3 if site.roles.any else 2)

    def said(self, schedule: Schedule) -> Iterator[Read]:
        if schedule.pipeline != 1:
            yield "pipeline", "", schedule.pipeline
