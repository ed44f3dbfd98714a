"""Reshapes of points: every element of a tensor has one place in another shape of it, as NumPy's order says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.ir.index import Bounds, index
from codesign.ir.reshape import reshaped

SHAPES = [(24,), (4, 6), (2, 3, 4), (1, 24), (2, 12, 1), (8, 3), (1, 2, 2, 6, 1)]


@given(st.sampled_from(SHAPES), st.sampled_from(SHAPES))
def test_every_element_keeps_its_number(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    names = [f"i{k}" for k in range(len(old))]
    extents = {name: index(size) for name, size in zip(names, old, strict=True)}
    before, after = tuple(map(index, old)), tuple(map(index, new))
    places = reshaped([index(name) for name in names], before, after, Bounds().with_extents(extents))
    points = dict(zip(names, np.unravel_index(np.arange(math.prod(old)), old), strict=True))
    found = [np.broadcast_to(place.evaluate(points), 24) for place in places]
    np.testing.assert_array_equal(np.ravel_multi_index(found, new), np.arange(24))


def test_a_dim_of_an_unknown_size_stays_while_others_are_cut() -> None:
    batch = index("B")
    bounds = Bounds().with_extents({"b": batch, "c": index(12)})
    old, new = (batch, index(12)), (batch, index(3), index(4))
    assert reshaped([index("b"), index("c")], old, new, bounds) == (index("b"), index("c") // 4, index("c") % 4)


def test_shapes_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same elements"):
        reshaped([index("i")], (index(6),), (index(4),), Bounds())
