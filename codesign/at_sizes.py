"""What a compiled model takes at other sizes: the same kernels and schedules, priced anew at each point."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from codesign.compiler import Compiled
from codesign.document import PriceAtSizes
from codesign.documents import document_of
from codesign.passes.planning import sizes_of


def prices_at(compiled: Compiled, points: Sequence[Mapping[str, int]]) -> list[PriceAtSizes]:
    """The price at each point, where sizes that it does not name are what they are for these; CodesignError for a size that the module
    does not have there, ScheduleError where a kernel's schedule is none for its sizes."""
    return [_price(compiled, point) for point in points]


def _price(compiled: Compiled, point: Mapping[str, int]) -> PriceAtSizes:
    planned = compiled.planned
    sizes = sizes_of(planned.module, point)
    tuner = copy.copy(planned.tuner)
    tuner.sizes = sizes
    kernels = {
        name: replace(
            info, tuned=tuner.predict(info.normalized, info.tuned.schedule, name, reported=info.tuned.reported)
        )
        for name, info in planned.kernels.items()
    }
    there = replace(compiled, planned=replace(planned, kernels=kernels, sizes=sizes), outcomes={})
    document = document_of(planned.module.name, there, {}, None, {})
    return PriceAtSizes(
        symbols=sizes,
        seconds=document.seconds,
        seconds_low=document.seconds_low,
        seconds_high=document.seconds_high,
        energy_joules=document.energy_joules,
    )
