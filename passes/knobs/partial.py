"""Partial results: whether lanes add up along a loop, or every step of it is reduced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site, matrix_product
from codesign.passes.schedule.space import Knob


@register
class Partial(Room):
    """1: each lane keeps a result of its own over the steps of a loop, reduced once after it; 0: each step is reduced.

    Accelerators only, and no choice of a search: no model of a GPU prices reductions in each step.
    """

    name = "partial"

    def unread(self, site: Site) -> str:
        if site.gpu:
            return f"lanes of {site.machine.name} always keep partial results"
        if all(not nest.reductions or matrix_product(nest) for nest in site.summary.nests):
            return "the kernel has no reduction but in matrix products"
        return ""

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return (0, 1)

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()
