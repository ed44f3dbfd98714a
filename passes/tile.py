"""Tiling: a fused group and a schedule become a tile-level kernel.

The grid walks the outer dims; each program makes its blocks of the outputs, pulling what they need. Every schedule that names the
group's dims with power-of-two tiles gives a right kernel: lanes beyond an extent are guarded and take a reduction's identity.
"""

from __future__ import annotations

from collections.abc import Sequence

from codesign.ir.index import Bounds
from codesign.ir.schedule import Schedule
from codesign.ir.template import instantiate
from codesign.ir.tensor import Fusion
from codesign.ir.tile import Kernel
from codesign.ir.tiling.outputs import OutputMap
from codesign.ir.tiling.templates import template


def lower(
    fusion: Fusion,
    schedule: Schedule,
    *,
    name: str = "kernel",
    bounds: Bounds | None = None,
    outputs: Sequence[OutputMap] | None = None,
) -> Kernel:
    """The kernel of a group under a schedule: its template with the schedule's numbers.

    Its buffers are `fusion.uses()`, then the results. `bounds`: ranges of the size symbols. `outputs`: the shapes that the results have
    in memory when the group was normalised (default: their own). Raises ScheduleError for a schedule that does not apply.
    """
    made, sizes = template(fusion, schedule, name=name, bounds=bounds, outputs=outputs)
    return instantiate(made, sizes, schedule)
