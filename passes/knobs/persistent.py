"""Persistent programs: one a multiprocessor, each of which walks many tiles of the grid."""

from __future__ import annotations

from codesign.passes.knobs.room import Unpriced, register
from codesign.passes.knobs.site import Site


@register
class Persistent(Unpriced):
    """Whether as many programs are launched as there are multiprocessors, each of which walks the grid."""

    name = "persistent"

    def unread(self, site: Site) -> str:
        return "" if site.gpu else f"programs of {site.machine.name} walk the grid anyway"
