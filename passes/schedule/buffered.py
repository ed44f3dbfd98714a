"""Two buffers for what memories between DRAM and the cores keep, where a search's best schedules lose time to bursts of DRAM.

The search itself goes by one buffer: whether a second one pays is known from the price of what bursts take, which is the most that it can
save. So few schedules are priced with two buffers, and none where there are no bursts.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from codesign.costmodel.dataflow.model import BURSTS
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.dataflow.turns import memories
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.passes.knobs import Site
from codesign.passes.knobs.staging import sizes
from codesign.passes.schedule.context import Context

TRIED = 8
"""Schedules that are priced with two buffers."""
WORTH = 0.005
"""Share of the best schedule's time that is worth a second buffer."""
LARGE = 0.01
"""Share of the bytes of all that is read again, from which on an operand gets a second buffer."""


def buffered(context: Context, best: Schedule, seconds: float) -> tuple[Schedule, float]:
    """The best schedule and its time, with two buffers where that is faster."""
    site = Site.of(context.summary, context.machine, context.sizes)
    known = list(memories(target_of(context.machine)))
    if not known:
        return best, seconds
    tried = [two for one in _promising(context, seconds) if (two := _with_two(one, site, known[-1])) is not None]
    tried = list(dict.fromkeys(tried))[: context.remaining]
    if not tried:
        return best, seconds
    cost = context.evaluate(ScheduleBatch.of(tried))
    row = int(np.argmin(cost.seconds))
    return (tried[row], float(cost.seconds[row])) if cost.seconds[row] < (1.0 - WORTH) * seconds else (best, seconds)


def _promising(context: Context, seconds: float) -> list[Schedule]:
    """Schedules that would be better than the best without their bursts, the most promising first."""
    found: list[tuple[float, int, int]] = []
    for position, (_, cost) in enumerate(context.batches):
        saved = cost.details.get(BURSTS)
        if saved is not None:
            late = np.asarray(saved, dtype=np.float64)
            even = np.where(cost.followed & (late > 0.0), cost.seconds - late, np.inf)
            rows = np.flatnonzero(even < (1.0 - WORTH) * seconds)
            rows = rows[np.argsort(even[rows], kind="stable")][:TRIED]
            found += [(float(even[row]), position, int(row)) for row in rows]
    return [context.batches[position][0].row(row) for _, position, row in sorted(found)[:TRIED]]


def _with_two(schedule: Schedule, site: Site, place: str) -> Schedule | None:
    """The schedule with two buffers at a place for what is read again; None where nothing is, or it says already what is staged."""
    if any(at.stage for at in schedule.levels.values()):
        return None
    programs = {dim: -(-site.extents[dim] // schedule.tiles.get(dim, 1)) for dim in site.summary.outer}
    parts = {dim: prod(at.split.get(dim, 1) for at in schedule.levels.values()) for dim in programs}
    walked = [dim for dim, many in programs.items() if many > parts[dim]]
    again = {name: size for name, (size, dims) in sizes(site).items() if any(dim not in dims for dim in walked)}
    if not again:
        return None
    total = sum(again.values())
    at = schedule.levels.get(place, AtLevel())
    staged = {name: 2 if size >= LARGE * total else 1 for name, size in again.items()}
    return replace(schedule, levels={**schedule.levels, place: replace(at, stage=staged)})
