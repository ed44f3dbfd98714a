"""The norm of concurrent times against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.gpu.overlap import overlap


@pytest.mark.parametrize("order", [1.2, 2.0, 5.0, 6.0, 7.35, 12.0])
def test_overlap_is_the_norm_for_whole_orders_and_others(order: float) -> None:
    rng = np.random.default_rng(0)
    parts = tuple(rng.random(500) * 10.0 ** rng.integers(-9, 0, 500) for _ in range(4))
    expected = sum(part**order for part in parts) ** (1.0 / order)
    np.testing.assert_allclose(overlap(parts, order), expected, rtol=1e-12)
    assert overlap((3.0, 0.0), order) == pytest.approx(3.0, rel=1e-14)


def test_nothing_takes_no_time_and_says_nothing() -> None:
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        assert overlap((np.zeros(3), 0.0), 6.0).tolist() == [0.0, 0.0, 0.0]
        assert overlap((np.zeros(3), 0.0), 1.5).max() < 1e-100
