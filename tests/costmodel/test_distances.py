"""Distances learned from what was left out: they cover what they were learned from, and say how well."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel.distances import MANY, Learned, common_shares, document, learn
from codesign.costmodel.gpu.intervals import distances
from codesign.costmodel.leaving_out import Left


def _left(
    group: str, error: np.ndarray, family: str = "contraction", distance: str = "kind", side: float = 0.1
) -> Left:
    count = len(error)
    return Left(distance, family, group, error, np.full(count, -side), np.full(count, side), np.zeros(count))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1.0), st.integers(4, 20))
def test_a_spread_covers_nine_tenths_of_what_was_left_out_and_four_fifths_of_each(
    seed: int, scale: float, groups: int
) -> None:
    """Each group has an error of its own besides that of its rows."""
    rng = np.random.default_rng(seed)
    left = [_left(str(number), rng.normal(0, scale) + rng.normal(0, 0.05, 200)) for number in range(groups)]
    (found,) = learn(left)
    covered = np.array(list(found.covered.values()))
    assert covered.mean() >= 0.89
    assert covered.min() >= 0.8 - (groups >= MANY) * 0.2
    assert found.without <= np.mean(covered) + 1e-9
    down, up = found.of["contraction"]
    inside = [(-np.hypot(0.1, down) <= one.error) & (one.error <= np.hypot(0.1, up)) for one in left]
    assert [round(float(each.mean()), 3) for each in inside] == pytest.approx(list(found.covered.values()), abs=0.01)
    if groups < MANY and down > 0.002:  # and no wider than that takes
        narrower = [np.mean(np.abs(one.error) <= np.hypot(0.1, down - 0.002)) for one in left]
        row = 1.0 / 200.0
        assert np.mean(narrower) <= 0.9 + row or min(narrower) <= 0.8 + row


def test_many_groups_tell_the_sides_of_an_interval_apart() -> None:
    """Where what was left out is slower than predicted, an interval reaches further to that side."""
    rng = np.random.default_rng(0)
    left = [_left(str(number), abs(rng.normal(0, 0.4)) + rng.normal(0, 0.1, 200)) for number in range(20)]
    (found,) = learn(left)
    down, up = found.of["contraction"]
    assert down < 0.5 * up
    assert min(found.covered.values()) >= 0.75
    assert _few(left).of["contraction"][0] == _few(left).of["contraction"][1]
    rows = tomllib.loads(document([found], {}, "the command"))
    assert rows["kind"]["of"]["contraction"] == [down, up]


def _few(left: list[Left]) -> Learned:
    (found,) = learn(left[: MANY - 1])
    return found


def test_groups_weigh_the_same_and_few_of_them_are_held_whole() -> None:
    near, far = np.full(10_000, 0.05), np.full(10, 0.5)
    (found,) = learn([_left("many", near), _left("few", far)])
    assert found.of["contraction"] == pytest.approx((np.sqrt(0.5**2 - 0.1**2),) * 2, abs=2e-3)
    assert set(found.covered.values()) == {1.0}


def test_a_family_has_its_own_spread_and_the_file_says_where_from() -> None:
    rng = np.random.default_rng(0)
    left = [_left(f"a{n}", rng.normal(0, 0.05, 100)) for n in range(4)]
    left += [_left(f"b{n}", rng.normal(0, 0.5, 100), "chain") for n in range(4)]
    (found,) = learn(left)
    assert found.of["contraction"] < found.spread < found.of["chain"]
    rows = tomllib.loads(document([found], {"chain": 0.25}, "the command"))
    assert set(rows) == {*distances(), "residual"}
    assert rows["kind"]["of"] == {family: down for family, (down, _) in found.of.items()}
    assert "800 rows of 8 groups" in rows["kind"]["from"]
    assert rows["kind"]["covered"] == found.covered
    assert (rows["machine"]["spread"],) * 2 == distances()["machine"].spread  # nothing was left out that way
    assert rows["residual"]["of"] == {"chain": 0.25}


@pytest.mark.parametrize(("own", "common"), [(0.0, 1.0), (0.1, 0.5), (1.0, 0.0)])
def test_what_rows_of_one_run_have_in_common(own: float, common: float) -> None:
    rng = np.random.default_rng(0)
    together = np.repeat(np.arange(400), 10).astype(np.float64)
    error = np.repeat(rng.normal(0, 0.1, 400), 10) * (common > 0) + rng.normal(0, own, 4000) + 0.0
    one = Left("", "gather", "x", error, -np.ones(4000), np.ones(4000), together)
    assert common_shares([one])["gather"] == pytest.approx(common, abs=0.06)
