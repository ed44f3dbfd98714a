"""Planning looks for cycles less often, and leaves the collector as its owner had it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from codesign.passes.collecting import MADE, collecting_rarely


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(("own", "inside"), [(700, MADE), (MADE * 2, MADE * 2), (0, 0)])
def test_a_collector_that_is_wanted_works_less_often_and_as_before_afterwards(
    own: int, inside: int, thresholds: None
) -> None:
    gc.set_threshold(own, 11, 12)
    with collecting_rarely():
        assert gc.get_threshold() == (inside, 11, 12)
    assert gc.get_threshold() == (own, 11, 12)
