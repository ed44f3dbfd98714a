"""What is kept of a search between runs, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codesign.ir.schedule import Schedule
from codesign.passes.schedule.context import Candidate

if TYPE_CHECKING:
    from codesign.passes.schedule.tuner import Tuned


@dataclass(frozen=True)
class Choice:
    """What is kept of a search."""

    schedule: Schedule
    evaluated: int
    space_size: int
    runners_up: tuple[Candidate, ...]
    programs: tuple[Candidate, ...]
    rejected: Mapping[str, tuple[int, str]]


def to_json(tuned: Tuned) -> dict[str, Any]:
    """What a search chose and saw beside it; `from_json` reads it back."""
    return {
        "schedule": tuned.schedule.to_json(),
        "evaluated": tuned.evaluated,
        "space_size": tuned.space_size,
        "runners_up": [_listed(other) for other in tuned.runners_up],
        "programs": [_listed(other) for other in tuned.programs],
        "rejected": {kind: list(entry) for kind, entry in tuned.rejected.items()},
    }


def from_json(data: Mapping[str, Any]) -> Choice:
    """ScheduleError, KeyError, TypeError or ValueError for what `to_json` would not have made."""
    return Choice(
        schedule=Schedule.from_json(data["schedule"]),
        evaluated=int(data["evaluated"]),
        space_size=int(data["space_size"]),
        runners_up=_candidates(data["runners_up"]),
        programs=_candidates(data["programs"]),
        rejected={str(kind): (int(count), str(example)) for kind, (count, example) in data["rejected"].items()},
    )


def _listed(candidate: Candidate) -> list[Any]:
    return [candidate.schedule.to_json(), candidate.seconds]


def _candidates(data: Sequence[Any]) -> tuple[Candidate, ...]:
    return tuple(Candidate(Schedule.from_json(schedule), float(seconds)) for schedule, seconds in data)
