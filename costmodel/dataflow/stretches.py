"""Steps that loops make under a set of schedules, all together and in each stretch of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.summary import KernelSummary
from codesign.costmodel.visits import Deal, Visits, visited
from codesign.ir.reach import EARLIER, Stretch

Many = tuple[Array, Array]
"""Steps in the mean over the grid, and of the core that makes most."""


@dataclass
class Steps:
    """Steps by dim that is looped over (`all`), and by dim and stretch (`parted`), as if each loop were parted."""

    all: dict[str, Many] = field(default_factory=dict)
    parted: dict[tuple[str, Stretch], Many] = field(default_factory=dict)


def steps_of(
    kernel: KernelSummary,
    looped: Iterable[str],
    tile: Mapping[str, Array],
    extents: Mapping[str, int],
    programs: Mapping[str, Array],
    deal: Deal,
    sizes: Mapping[str, int],
) -> Steps:
    """The steps of each loop: fewer where a mask cuts it, and apart where masks leave everything or no lane sticks out."""
    found = Steps()
    for dim in looped:
        every, covered = np.ceil(extents[dim] / tile[dim]), np.floor(extents[dim] / tile[dim])
        reach = kernel.reach.get(dim)
        if reach is None:
            found.all[dim] = every, every
            found.parted[dim, "whole"], found.parted[dim, "after"] = (covered, covered), (every - covered,) * 2
            continue
        needed = {name: sizes[name] for name in reach.variables - extents.keys()}
        seen = visited(reach, dim, tile, programs, extents, needed, deal)
        found.all[dim] = _many(seen.all)
        of = {stretch: _many(steps) for stretch, steps in seen.parted.items()}
        found.parted.update({(dim, stretch): of[stretch] for stretch in (*EARLIER, "rest") if stretch in of})
        if "whole" not in of:
            continue
        found.parted[dim, "whole"] = of["whole"]
        # one loop, the last, where no step is whole
        joined = [
            np.where((none == 0.0) & (last > 0.0), first, 0.0)
            for first, none, last in zip(of["before"], of["whole"], of["after"], strict=True)
        ]
        found.parted[dim, "before"] = of["before"][0] - joined[0], of["before"][1] - joined[1]
        found.parted[dim, "after"] = of["after"][0] + joined[0], of["after"][1] + joined[1]
    return found


def _many(steps: Visits) -> Many:
    return steps.mean, steps.slowest
