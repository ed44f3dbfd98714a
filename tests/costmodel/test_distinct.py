"""Different rows of columns, against NumPy's sort of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.costmodel.distinct import WIDEST, distinct


@pytest.mark.parametrize("high", [5, 4 * WIDEST])
def test_rows_that_differ_are_those_of_a_sort(high: int) -> None:
    rng = np.random.default_rng(0)
    columns: list[Any] = [rng.integers(-3, high, 300), np.int64(7), rng.integers(0, 4, 300).astype(np.float64)]
    found, which = distinct(columns)
    rows = np.stack([np.broadcast_to(column, (300,)) for column in columns], axis=-1)
    np.testing.assert_array_equal(found[which], rows)
    np.testing.assert_array_equal(found, np.unique(rows, axis=0))


def test_numbers_are_one_row() -> None:
    found, which = distinct([3.0, 4])
    assert (found.tolist(), which.tolist()) == ([[3, 4]], [0])
