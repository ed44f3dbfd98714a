"""Schedules as data: what they say of each level, and what an old file may say."""

from __future__ import annotations

import pytest

from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch

SPLIT = Schedule({"i": 64}, {"chip": AtLevel({"b": 2}), "cluster": AtLevel({"i": 4, "j": 4}, order=("j", "i"))})


def test_levels_survive_json_and_count_in_the_hash() -> None:
    assert Schedule.from_json(SPLIT.to_json()) == SPLIT
    assert SPLIT.hash != Schedule({"i": 64}).hash
    assert "levels" not in Schedule({"i": 64}, {"cluster": AtLevel()}).to_json()


def test_a_batch_has_a_column_for_each_split() -> None:
    batch = ScheduleBatch.of(
        [Schedule(levels={"core": AtLevel({"i": 4})}), Schedule(levels={"core": AtLevel({"j": 2})})]
    )
    assert list(batch.column("levels.core.split.i")) == [4, 1]
    assert batch.row(0).levels == {"core": AtLevel({"i": 4})}
    assert batch.row(1).levels == {"core": AtLevel({"j": 2})}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {"warp": {"m": 64}}}, "inner: schedules say this by `levels` now"),
        ({"levels": {"core": {"splt": {}}}}, "unknown field 'splt' in a schedule's levels.core"),
        ({"levels": {"core": {"split": {"i": 0}}}}, "levels.core.split.i: needs an integer from 1"),
        ({"levels": {"core": {"order": ["i", "i"]}}}, "levels.core.order: names a dim twice"),
        ({"levels": {"core": 4}}, "levels.core: needs an object"),
    ],
)
def test_a_wrong_level_is_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule.from_json(data)


def test_an_old_file_that_said_nothing_of_inner_levels_replays() -> None:
    assert Schedule.from_json({"tiles": {"m": 32}, "inner": {}, "pipeline": 2}) == Schedule({"m": 32}, pipeline=2)


def test_an_extra_that_is_too_large_is_told_so() -> None:
    with pytest.raises(ScheduleError, match=r"extras.group: needs an integer of at most \d+, got 1000000000000"):
        Schedule.from_json({"extras": {"group": 10**12}})
