"""The order of blocks and what L2 saves, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.costmodel import workloads
from codesign.costmodel.events import cache
from codesign.costmodel.events.cache import Panels, panels_of, reads
from codesign.costmodel.events.walk import PART, Walk
from codesign.costmodel.gpu.geometry import geometry

counts = st.integers(1, 9)


@given(counts, counts, counts, st.integers(1, 4), st.integers(1, 12))
def test_every_tile_is_walked_once_and_numbers_invert_coordinates(
    b: int, m: int, n: int, parts: int, group: int
) -> None:
    walk = Walk.of({"b": b, "m": m, "n": n}, ("b", "m", "n"), parts, group)
    numbers = np.arange(walk.blocks)
    at = walk.coordinates(numbers)
    assert walk.blocks == b * m * n * parts
    assert len(set(zip(*(at[dim].tolist() for dim in walk.dims), strict=True))) == (walk.blocks if walk.dims else 0)
    assert np.array_equal(np.broadcast_to(walk.numbers(at), numbers.shape), numbers)


def test_a_group_walks_its_rows_together() -> None:
    walk = Walk.of({"m": 5, "n": 3}, ("m", "n"), 1, 2)
    at = walk.coordinates(np.arange(15))
    pairs = list(zip(at["m"].tolist(), at["n"].tolist(), strict=True))
    assert pairs[:6] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert pairs[12:] == [(4, 0), (4, 1), (4, 2)]  # the last group is narrower


def test_order_names_the_slowest_dim_first() -> None:
    walk = Walk.of({"m": 4, "n": 3}, ("n", "m"), 1, 1)
    assert walk.coordinates(np.arange(4))["m"].tolist() == [0, 1, 2, 3]
    assert walk.dims == ("n", "m")


@given(counts, counts, st.integers(1, 4), st.integers(1, 12))
def test_an_endless_cache_reads_every_panel_once(m: int, n: int, group: int, row: int) -> None:
    walk = Walk.of({"m": m, "n": n}, (), 1, group)
    panels = [_panels(walk, 100.0, "m"), _panels(walk, 10.0, "n")]
    assert reads(panels, walk, row, 0.0, 1e30).total == pytest.approx(100.0 * m + 10.0 * n)


@given(counts, counts, st.integers(1, 4), st.integers(1, 12))
def test_without_a_cache_each_row_of_blocks_reads_its_own_panels(m: int, n: int, group: int, row: int) -> None:
    walk = Walk.of({"m": m, "n": n}, (), 1, group)
    panels = [_panels(walk, 100.0, "m"), _panels(walk, 10.0, "n")]
    at = walk.coordinates(np.arange(m * n))
    expected = 0.0
    for start in range(0, m * n, row):
        for dim, size in (("m", 100.0), ("n", 10.0)):
            if dim in at:
                expected += size * len(set(at[dim][start : start + row].tolist()))
            else:
                expected += size
    assert reads(panels, walk, row, 0.0, 0.0).total == pytest.approx(expected)


def test_a_larger_cache_never_reads_more() -> None:
    walk = Walk.of({"m": 40, "n": 24}, (), 1, 4)
    panels = [_panels(walk, 1e5, "m"), _panels(walk, 1e5, "n")]
    totals = [reads(panels, walk, 132, 1e3, capacity).total for capacity in (0.0, 1e6, 3e6, 1e7, 1e9)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 1.5 * totals[-1]


@pytest.mark.parametrize("capacity", [4e6, 8e6, 20e6])
def test_l2_keeps_what_fits_with_all_that_streamed_past(capacity: float) -> None:
    """Each row of 10 blocks reads one panel along m and all ten along n, which the row before read, and stores its results."""
    walk = Walk.of({"m": 6, "n": 10}, ("m", "n"), 1, 1)
    panels = [_panels(walk, 2e6, "m"), _panels(walk, 1e6, "n")]
    streamed = 2e6 + 10 * 1e6 + 10 * 5e4
    kept = min(0.8 * capacity / streamed, 1.0)
    expected = 6 * 2e6 + 10 * 1e6 * (1 + 5 * (1.0 - kept))
    assert reads(panels, walk, 10, 5e4, capacity).total == pytest.approx(expected)


def test_windows_of_a_large_grid_agree_with_the_whole_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walk.of({"m": 512, "n": 64}, (), 1, 8)
    panels = [_panels(walk, 2e6, "m"), _panels(walk, 2e6, "n")]
    whole = reads(panels, walk, 132, 3e4, 50e6)
    monkeypatch.setattr(cache, "EXACT_BLOCKS", 8192)
    sampled = reads(panels, walk, 132, 3e4, 50e6)
    assert sampled.total == pytest.approx(whole.total, rel=0.05)
    assert len(sampled.blocks) == len(whole.blocks)


def test_panels_of_a_gemm_are_its_rows_and_columns() -> None:
    kernel = workloads.gemm("bf16")
    g = geometry(kernel, {"tile.m": 128.0, "tile.n": 64.0, "tile.k": 32.0}, {"M": 1024.0, "N": 512.0, "K": 256.0})
    walk = Walk.of({"m": 8, "n": 8}, (), 1, 1)
    left, right = panels_of(kernel, g, g, walk, 1e9, 0.0, 8.0)
    assert (left.dims, left.bytes) == (("m",), 128 * 256 * 2)
    assert (right.dims, right.bytes) == (("n",), 64 * 256 * 2)


def test_parts_of_a_split_reduction_read_their_own_share() -> None:
    kernel = workloads.gemm("bf16")
    knobs = {"tile.m": 128.0, "tile.n": 64.0, "tile.k": 32.0, "split.k": 4.0}
    g = geometry(kernel, knobs, {"M": 1024.0, "N": 512.0, "K": 256.0})
    walk = Walk.of({"m": 8, "n": 8}, (), 4, 1)
    left, _ = panels_of(kernel, g, g, walk, 1e9, 0.0, 8.0)
    assert left.dims == (PART, "m")
    assert left.bytes == 128 * 64 * 2
    assert reads([left], walk, 132, 0.0, 1e12).total == 1024 * 256 * 2


def _panels(walk: Walk, size: float, dim: str) -> Panels:
    return Panels(dim, size, (dim,) if dim in walk.dims else (), 1.0)
