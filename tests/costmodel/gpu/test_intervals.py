"""Intervals: what widens them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu.intervals import distances, widened
from codesign.costmodel.gpu.model import GpuTileModel, distances_of
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import load_machine
from codesign.ir.schedule import Schedule, ScheduleBatch

SCHEDULE = Schedule({"m": 64, "n": 64, "k": 32}, pipeline=3, extras={"warps": 4})
SIZES = {"M": 2048, "N": 2048, "K": 2048}


@pytest.mark.parametrize("pair", [(0.9, 1.1), (0.8, 0.95), (1.05, 1.3), (0.1, 4.0)])
def test_an_interval_at_a_distance_is_wider_and_holds_its_point(pair: tuple[float, float]) -> None:
    assert widened(pair, []) == pytest.approx((min(pair[0], 1.0), max(pair[1], 1.0)))
    before = widened(pair, [])
    wide = [distance.widening("contraction") for distance in distances().values()]
    for each in wide:
        low, high = widened(pair, [each])
        assert 0.0 < low < before[0] <= 1.0 <= before[1] < high
    assert widened(pair, wide[:2])[1] > widened(pair, wide[:1])[1]


def test_distances_add_in_squares() -> None:
    wide = [distances()[name].widening("reduction") for name in ("machine", "dtype")]
    for side, end in enumerate(widened((1.0, 1.0), wide)):
        assert abs(math.log(end)) == pytest.approx(math.hypot(*(each.spread[side] for each in wide)))


@pytest.mark.parametrize(("machine", "dtype"), [("h100_sxm", "bf16"), ("h200_sxm", "bf16"), ("h200_sxm", "f8e4m3")])
def test_parts_of_an_interval_multiply_to_it(machine: str, dtype: str) -> None:
    cost = GpuTileModel().predict(workloads.gemm(dtype), load_machine(machine), ScheduleBatch.of([SCHEDULE]), SIZES)
    parts = cost.parts(0)
    assert len(parts) == 1 + (machine == "h200_sxm") + (dtype != "bf16")
    for side, end in (("low", cost.low), ("high", cost.high)):
        alone = math.hypot(*(math.log(getattr(part, side)) for part in parts.values()))
        assert alone == pytest.approx(abs(math.log(end[0] / cost.seconds[0])))


def _interval(name: str, dtype: str) -> tuple[float, tuple[str, ...]]:
    cost = GpuTileModel().predict(workloads.gemm(dtype), load_machine(name), ScheduleBatch.of([SCHEDULE]), SIZES)
    return float(cost.high[0] / cost.low[0]), cost.remarks


def test_what_was_not_measured_is_wider_and_says_so() -> None:
    known, remarks = _interval("h100_sxm", "bf16")
    assert not any("interval widened" in remark for remark in remarks)
    other, remarks = _interval("h100_sxm", "f8e4m3")
    assert other > 1.1 * known
    assert any("another type" in remark for remark in remarks)
    other, remarks = _interval("h200_sxm", "bf16")
    assert other > 1.1 * known
    assert any("a machine that was not measured" in remark for remark in remarks)


def test_a_window_is_a_kind_that_was_not_measured() -> None:
    calibration = load_calibration(load_machine("h100_sxm"))
    assert "kind window" in [each.name for each in distances_of(workloads.convolution(), calibration)]
    assert distances_of(workloads.gemm(), calibration) == ()
    assert [each.name for each in distances_of(workloads.gemm("f32"), calibration)] == ["dtype f32"]


def test_every_distance_has_a_reason() -> None:
    assert all(max(found.spread) > 0 and found.why for found in distances().values())
    assert np.isfinite([found.spread for found in distances().values()]).all()
