"""Cuts: which points of a group are done in parts of their sums, where its schedule splits a reduction."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.passes.knobs.room import Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Knob
from codesign.passes.tiling.cutting import WHOLE, Cutting
from codesign.passes.tiling.tail import Tail

STRIPS = "strips"
TAIL = re.compile(r"tail (\w+) (\d{1,18})")


@register
class Cut(Room):
    """Which points of a group are done in parts, where `split` makes it two kernels on a GPU; without it, all.

    `tail j 4096`: those from 4096 on along j, all before are whole (the hybrid of stream-K). `strips`: the dim that is split is one of results
    too, which are made strip by strip with a part of the sums along it. The tuner says so of a group by itself.
    """

    name = "cut"
    default = ""

    def unread(self, site: Site) -> str:
        return "says how a group becomes two kernels, and this is one of its own; give it for the group"

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return ("", STRIPS)

    def offered(self, site: Site) -> Iterable[Knob]:
        return ()

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        if site is not None:
            return self.unread(site)
        right = isinstance(value, str) and (value in self.values(None) or TAIL.fullmatch(value))
        return (
            "" if right else f'needs "strips", or "tail j 4096" with a dim and its first point, got {json.dumps(value)}'
        )


def cut_of(schedule: Schedule, fusion: Fusion) -> Cutting:
    """How a group becomes two kernels by its schedule, or not; ScheduleError where it can't."""
    dims = list(fusion.dims())
    split = {dim: parts for dim, parts in schedule.split.items() if parts > 1}
    said = str(schedule.extras.get("cut", ""))
    if not split and said:
        raise ScheduleError("extras.cut: nothing is split", hint="say into how many parts: split.<dim>")
    if not split:
        return WHOLE
    if len(split) > 1:
        raise ScheduleError(f"split: {', '.join(split)}, but a group is split along one dim")
    ((dim, parts),) = split.items()
    tail = TAIL.fullmatch(said)
    along = tail.group(1) if tail else dim
    for field, name in (("split", dim), ("extras.cut", along)):
        if name not in dims:
            raise ScheduleError(f"{field}: the group has no dim {name}", hint=f"dims: {', '.join(dims)}")
    position = dims.index(along)
    if tail:
        cutting = Cutting(parts, tail=Tail(position, int(tail.group(2))))
    else:
        cutting = Cutting(parts, along=position) if said == STRIPS else Cutting(parts)
    if not cutting.applies(fusion) or cutting.dim(fusion) != dim:
        what = f" as {json.dumps(said)}" if said else ""
        raise ScheduleError(f"split.{dim}: the group can't be cut into {parts} parts along it{what}")
    return cutting


def said_of(cutting: Cutting, fusion: Fusion) -> Schedule:
    """What a schedule says of a group that is cut; `cut_of` reads it."""
    extras: dict[str, Value] = {}
    if cutting.along is not None:
        extras["cut"] = STRIPS
    elif cutting.tail is not None:
        extras["cut"] = f"tail {cutting.tail.dim(fusion).name} {cutting.tail.start}"
    return Schedule(split={cutting.dim(fusion): cutting.parts}, extras=extras)
