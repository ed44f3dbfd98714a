"""Distances learned from what was left out: they cover what they were learned from, and say how well."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel.distances import common_shares, document, learn
from codesign.costmodel.gpu.intervals import distances
from codesign.costmodel.leaving_out import Left


def _left(
    group: str, error: np.ndarray, family: str = "contraction", distance: str = "kind", side: float = 0.1
) -> Left:
    count = len(error)
    return Left(distance, family, group, error, np.full(count, -side), np.full(count, side), np.zeros(count))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1.0), st.integers(4, 12))
def test_a_spread_covers_nine_tenths_of_what_was_left_out(seed: int, scale: float, groups: int) -> None:
    """Each group has an error of its own besides that of its rows."""
    rng = np.random.default_rng(seed)
    left = [_left(str(number), rng.normal(0, scale) + rng.normal(0, 0.05, 200)) for number in range(groups)]
    (found,) = learn(left)
    assert np.mean(list(found.covered.values())) == pytest.approx(0.9, abs=0.02) or found.spread == 0.0
    assert found.without <= np.mean(list(found.covered.values())) + 1e-9
    inside = [np.abs(one.error) <= np.hypot(0.1, found.of["contraction"]) for one in left]
    assert [round(float(each.mean()), 3) for each in inside] == pytest.approx(list(found.covered.values()), abs=0.01)


def test_groups_weigh_the_same_and_few_of_them_are_held_whole() -> None:
    near, far = np.full(10_000, 0.05), np.full(10, 0.5)
    (found,) = learn([_left("many", near), _left("few", far)])
    assert found.of["contraction"] == pytest.approx(np.sqrt(0.5**2 - 0.1**2), abs=1e-3)
    assert set(found.covered.values()) == {1.0}


def test_a_family_has_its_own_spread_and_the_file_says_where_from() -> None:
    rng = np.random.default_rng(0)
    left = [_left(f"a{n}", rng.normal(0, 0.05, 100)) for n in range(4)]
    left += [_left(f"b{n}", rng.normal(0, 0.5, 100), "chain") for n in range(4)]
    (found,) = learn(left)
    assert found.of["contraction"] < found.spread < found.of["chain"]
    rows = tomllib.loads(document([found], {"chain": 0.25}, "the command"))
    assert set(rows) == {*distances(), "residual"}
    assert rows["kind"]["of"] == found.of
    assert "800 rows of 8 groups" in rows["kind"]["from"]
    assert rows["kind"]["covered"] == found.covered
    assert rows["machine"]["spread"] == distances()["machine"].spread  # nothing was left out that way
    assert rows["residual"]["of"] == {"chain": 0.25}


@pytest.mark.parametrize(("own", "common"), [(0.0, 1.0), (0.1, 0.5), (1.0, 0.0)])
def test_what_rows_of_one_run_have_in_common(own: float, common: float) -> None:
    rng = np.random.default_rng(0)
    together = np.repeat(np.arange(400), 10).astype(np.float64)
    error = np.repeat(rng.normal(0, 0.1, 400), 10) * (common > 0) + rng.normal(0, own, 4000) + 0.0
    one = Left("", "gather", "x", error, -np.ones(4000), np.ones(4000), together)
    assert common_shares([one])["gather"] == pytest.approx(common, abs=0.06)
