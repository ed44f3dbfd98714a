"""What libraries do by rule: published times of single products, on both sides of each rule."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu.habits import splits_offered, start_seconds
from codesign.costmodel.gpu.library import library
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import load_machine

QUICK = [(192, 512, 32, 3.0), (96, 768, 64, 3.4), (8, 512, 32, 2.9)]
SLOW = [(192, 256, 32, 4.2), (48, 128, 64, 4.0), (128, 256, 512, 5.9), (80, 512, 32, 4.2)]
"""Rows, columns, terms, and microseconds on an A100 (AIConfigurator's table)."""


def _sizes(products: list[tuple[int, int, int, float]]) -> dict[str, np.ndarray]:
    return dict(zip("MNK", np.array(products, dtype=np.float64).T[:3], strict=True))


def test_small_products_start_as_their_kernel_does() -> None:
    kernel, machine = workloads.gemm(), load_machine("a100_sxm")
    found = library(kernel, machine, _sizes(QUICK + SLOW), load_calibration(machine).parameters).seconds * 1e6
    measured = np.array([us for *_, us in QUICK + SLOW])
    assert np.abs(found / measured - 1.0).max() < 0.15
    assert (start_seconds(kernel, machine, _sizes(QUICK)) == 0.0).all()
    assert (start_seconds(kernel, machine, _sizes(SLOW)) > 0.0).all()


@pytest.mark.parametrize("name", ["h100_sxm", "b300_sxm"])
def test_other_generations_and_types_have_no_such_rule(name: str) -> None:
    assert np.all(start_seconds(workloads.gemm(), load_machine(name), _sizes(SLOW)) == 0.0)
    assert np.all(start_seconds(workloads.gemm("f32"), load_machine("a100_sxm"), _sizes(SLOW)) == 0.0)


def test_sums_are_cut_from_some_size_on_where_the_library_has_a_rule() -> None:
    space = {"split.k": np.array([1.0, 4.0])}
    sizes = {name: column[:, None] for name, column in _sizes([(4, 64, 4096, 0.0), (4, 64, 8704, 0.0)]).items()}
    ada, hopper = (splits_offered(workloads.gemm(), load_machine(name), space, sizes) for name in ("l40s", "h100_sxm"))
    assert np.asarray(ada).tolist() == [[True, False], [True, True]]
    assert np.all(hopper)


WHOLE = [(8, 1024, 2560, 11.0), (2560, 32, 7168, 34.9), (1536, 64, 5120, 25.5), (14, 1536, 3584, 15.4)]
CUT = [(8, 1024, 3584, 6.2), (2048, 32, 7168, 21.1), (1024, 64, 5120, 13.2), (2560, 64, 8192, 25.1)]
"""Rows, columns, terms, and microseconds on an L40S (the same table)."""


def test_narrow_and_flat_products_of_ada_are_cut_only_when_their_sums_are_long() -> None:
    kernel, machine = workloads.gemm(rotated=True), load_machine("l40s")
    space = {"split.k": np.array([1.0, 4.0])}
    columns = {name: column[:, None] for name, column in _sizes(WHOLE + CUT).items()}
    offered = np.asarray(splits_offered(kernel, machine, space, columns))[:, 1]
    assert offered.tolist() == [False] * len(WHOLE) + [True] * len(CUT)
    found = library(kernel, machine, _sizes(WHOLE + CUT), load_calibration(machine).parameters).seconds * 1e6
    assert np.abs(found / [us for *_, us in WHOLE + CUT] - 1.0).max() < 0.35  # the worst would else be 0.58 off


SHORT = [(64, 768, 1536, 8.88), (48, 1536, 3584, 21.87), (64, 512, 1536, 7.83), (64, 1536, 4096, 24.43)]
PARTS = [(64, 768, 2048, 6.95), (64, 1024, 3584, 10.64), (128, 1536, 4096, 13.3), (64, 512, 3072, 7.08)]


def test_some_rows_and_many_columns_are_cut_from_2048_terms_on_and_few_tiles_of_64_rows_later() -> None:
    kernel, machine = workloads.gemm(rotated=True), load_machine("l40s")
    space = {"split.k": np.array([1.0, 4.0])}
    columns = {name: column[:, None] for name, column in _sizes(SHORT + PARTS).items()}
    offered = np.asarray(splits_offered(kernel, machine, space, columns))[:, 1]
    assert offered.tolist() == [False] * len(SHORT) + [True] * len(PARTS)
    found = library(kernel, machine, _sizes(SHORT + PARTS), load_calibration(machine).parameters).seconds * 1e6
    assert np.abs(found / [us for *_, us in SHORT + PARTS] - 1.0).max() < 0.35
