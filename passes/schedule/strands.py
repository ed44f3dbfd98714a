"""Schedules of a kernel of several strands, put together from those that are good for each alone.

A launch has one number of warps, one depth of pipelines and one grouping for all of its programs: those that are best for the strand that takes
longest are tried with what is best for the others under them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from codesign.ir.schedule import Schedule
from codesign.passes.schedule.context import Candidate

COMMON = 6
"""Settings that the strands have in common which are tried."""


@dataclass(frozen=True)
class Alone:
    """The best schedules of one strand, fastest first."""

    candidates: Sequence[Candidate]

    @property
    def seconds(self) -> float:
        return self.candidates[0].seconds

    def under(self, common: Schedule) -> Schedule:
        """Its best schedule with the warps of another and, if there is one, its depth."""
        same = [
            one.schedule for one in self.candidates if one.schedule.extras.get("warps") == common.extras.get("warps")
        ]
        same = same or [self.candidates[0].schedule]
        return next((one for one in same if one.pipeline == common.pipeline), same[0])


def combined(strands: Sequence[Alone]) -> list[Schedule]:
    """Schedules of the whole kernel to choose from."""
    longest = max(strands, key=lambda strand: strand.seconds)
    settings: dict[tuple[object, ...], Schedule] = {}
    for one in longest.candidates:
        settings.setdefault((one.schedule.pipeline, *sorted(one.schedule.extras.items())), one.schedule)
    return [
        _joined([common if strand is longest else strand.under(common) for strand in strands], common)
        for common in list(settings.values())[:COMMON]
    ]


def renamed(schedule: Schedule, names: Mapping[str, str]) -> Schedule:
    """The schedule for dims of other names."""
    levels = {
        place: replace(
            at,
            split={names[dim]: parts for dim, parts in at.split.items()},
            tile={names[dim]: size for dim, size in at.tile.items()},
            order=tuple(names[dim] for dim in at.order),
        )
        for place, at in schedule.levels.items()
    }
    return replace(
        schedule,
        tiles={names[dim]: size for dim, size in schedule.tiles.items()},
        levels=levels,
        reduce={names[dim]: mode for dim, mode in schedule.reduce.items()},
        order=tuple(names[dim] for dim in schedule.order),
    )


def _joined(schedules: Sequence[Schedule], common: Schedule) -> Schedule:
    tiles = {dim: size for one in schedules for dim, size in one.tiles.items()}
    reduce = {dim: mode for one in schedules for dim, mode in one.reduce.items()}
    order = tuple(dim for one in schedules for dim in one.order)
    return Schedule(tiles, order=order, reduce=reduce, pipeline=common.pipeline, extras=common.extras)
