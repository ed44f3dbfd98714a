"""What a table tells of parameters, and which measurements would tell more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel import suggestions, workloads
from codesign.costmodel.calibration import LIBRARY_FIT, Fitted
from codesign.costmodel.fitting import Prepared
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.information import design, identify, known_of
from codesign.costmodel.machine import load_machine
from codesign.costmodel.rows import Rows
from codesign.costmodel.tables import kernels_of

A100 = load_machine("a100_sxm")
P = load_calibration(A100).parameters


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_gains_add_up_to_what_the_determinant_of_the_information_grows_by(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    felt, known = rng.normal(size=(40, 4)), 0.1 * np.eye(4)
    chosen = design(known, felt, np.arange(40), ("a", "b", "c", "d"), count)
    picked = felt[[each.row for each in chosen]]
    assert len({each.row for each in chosen}) == count
    grown = np.linalg.slogdet(known + picked.T @ picked)[1] - np.linalg.slogdet(known)[1]
    assert sum(each.gain for each in chosen) == pytest.approx(grown)
    assert (
        np.linalg.slogdet(known + picked.T @ picked)[1]
        >= np.linalg.slogdet(known + felt[:count].T @ felt[:count])[1] - 0.5
    )


def test_what_is_not_known_is_asked_for_and_not_at_one_site_alone() -> None:
    felt = np.array([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    known = np.diag([100.0, 0.1])
    chosen = design(known, felt, np.arange(10), ("told", "untold"), 5)
    assert {each.parameter for each in chosen} == {"untold"}
    assert all(each.row >= 5 for each in chosen)
    sites = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2])
    first, second = design(known, felt, sites, ("told", "untold"), 2)
    assert sites[first.row] != sites[second.row]


def _fitted(seconds_by: float = 1.0) -> Fitted:
    """A sum of two tensors of growing size, whose time is DRAM's but for the launch; measured as the model says, with some noise."""
    count = 40
    sizes = {"T": np.geomspace(64, 65536, count).round(), "N": np.full(count, 4096.0)}
    columns = {"tile.t": 1.0, "tile.n": 1024.0, "warps": 4.0, "pipeline": 1.0}
    space = {name: np.array([value], dtype=np.float32) for name, value in columns.items()}
    rows = Rows("add", workloads.add("f16"), sizes, np.ones(count), np.arange(count), np.arange(count), columns=space)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.02, count)) * seconds_by
    seconds = Prepared(rows, space).predict(A100, P) * noise
    names = ("launch_seconds", "dram_efficiency", "tensor_efficiency")
    known = Rows("add", rows.kernel, sizes, seconds, rows.index, rows.site, columns=space)
    return Fitted("adds", names, P, [Prepared(known, space)], 25.0)


def test_a_table_identifies_what_its_rows_feel() -> None:
    launch, dram, tensor = identify(_fitted(), A100)
    assert (launch.identified, dram.identified, tensor.identified) == (True, True, False)
    assert dram.told > 0.99
    assert tensor.told == pytest.approx(0.0, abs=1e-6)
    for each in (launch, dram):
        assert each.low < each.value < each.high
        assert each.high / each.low < 1.3
    assert tensor.high / tensor.low > 1.9  # or its bound


def test_larger_errors_are_wider_intervals() -> None:
    near, far = (identify(_fitted(by), A100)[1] for by in (1.0, 1.2))
    assert far.high / far.low > near.high / near.low


def test_products_that_are_suggested_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestions, "CANDIDATES", 60)
    found = suggestions.suggest(A100, P, [], 12)
    assert len(found) == 12
    assert len(set(zip(found.m, found.n, found.k, strict=True))) == 12
    assert found.gain.is_monotonic_decreasing
    (rows,) = kernels_of(found.assign(seconds=1.0), A100)
    assert len(rows.seconds) == 12
    assert {text.split()[0] for text in found.informs} <= {*LIBRARY_FIT}
    assert known_of([np.zeros((0, 3))], 1.0).shape == (3, 3)
