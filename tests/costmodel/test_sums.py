"""The interval of a sum: never wider than the intervals' sum, never narrower than what is shared, its point inside."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.costmodel.sums import Part, Time, time_of_parts, total

FACTORS = st.tuples(st.floats(0.2, 1.0), st.floats(1.0, 6.0))
PARTS = st.dictionaries(
    st.sampled_from(["residual contraction", "residual chain", "kind window", "machine"]),
    st.builds(lambda pair, common: Part(pair[0], pair[1], common), FACTORS, st.floats(0.0, 1.0)),
    min_size=1,
)


def _time(seconds: float, parts: dict[str, Part], name: str = "") -> Time:
    """A time whose parts are independent of each other."""
    down = math.hypot(*(math.log(part.low) for part in parts.values()))
    up = math.hypot(*(math.log(part.high) for part in parts.values()))
    return time_of_parts(seconds, seconds * math.exp(-down), seconds * math.exp(up), parts, name)


TIMES = st.lists(st.tuples(st.builds(_time, st.floats(1e-6, 1e-2), PARTS), st.integers(1, 64)), min_size=1, max_size=6)


@given(TIMES)
def test_the_interval_of_a_sum_holds_it_and_is_within_the_sum_of_the_intervals(times: list[tuple[Time, int]]) -> None:
    found = total(times)
    assert found.seconds == pytest.approx(sum(time.seconds * count for time, count in times))
    assert found.low <= found.seconds <= found.high
    least, most = (sum(getattr(time, end) * count for time, count in times) for end in ("low", "high"))
    assert least * (1 - 1e-9) <= found.low
    assert found.high <= most * (1 + 1e-9)
    assert found.low > 0.0


@given(TIMES, TIMES)
def test_sums_of_sums_are_the_sum_of_all(first: list[tuple[Time, int]], second: list[tuple[Time, int]]) -> None:
    whole = total([*first, *second])
    nested = total([(total(first), 1.0), (total(second), 1.0)])
    assert (nested.low, nested.high) == pytest.approx((whole.low, whole.high))


@pytest.mark.parametrize(
    ("common", "wide"), [(0.0, 0.2 / math.sqrt(16)), (1.0, 0.2), (0.25, 0.2 * math.sqrt(0.25 + 0.75 / 16))]
)
def test_shared_errors_add_up_and_others_in_squares(common: float, wide: float) -> None:
    one = time_of_parts(1.0, 0.8, 1.2, {"residual": Part(0.8, 1.2, common)})
    found = total([(one, 1.0)] * 16)
    assert (found.seconds - found.low) / 16 == pytest.approx(wide)
    assert (found.high - found.seconds) / 16 == pytest.approx(wide)


def test_a_kernel_that_runs_often_errs_the_same_way_each_time() -> None:
    one = time_of_parts(1.0, 0.8, 1.2, {"residual": Part(0.8, 1.2, 0.0)}, "linear")
    assert total([(one, 10.0), (one, 6.0)]) == total([(one, 16.0)])
    assert total([(one, 16.0)]).high == pytest.approx(16 * 1.2)
