"""DRAM traffic: short runs, what an earlier run left in L2, and the end of a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.paths import SPREAD, late_seconds
from codesign.costmodel.gpu.timing import LONE_READ, SHARED_READ, estimate, shared_effort
from codesign.costmodel.gpu.traffic import READ_GAP, READ_OF_WRITE, Traffic, drain_seconds, read_gap, traffic
from codesign.costmodel.machine import load_machine

L2 = 40e6
GAP = 48.0
"""Bytes of a run of writes."""


def mixture(experts: float, replayed: bool, step: float = 128.0) -> Traffic:
    kernel = workloads.grouped_gemm("bf16", replayed)
    knobs: dict[str, Any] = {"tile.e": 1.0, "tile.m": 16.0, "tile.n": 64.0, "tile.k": step}
    sizes = {"T": 8.0, "E": experts, "M": 1.0, "N": 1024.0, "K": 2048.0}
    g = geometry(kernel, knobs, sizes)
    return traffic(kernel, g, 216.0, 1.0, ("e", "m", "n"), L2, 0.6, GAP)


def test_what_a_kernel_finds_of_its_last_run() -> None:
    small, large = 4.0, 64.0  # 17 and 268 MB of weights
    assert mixture(small, replayed=True).read < 0.01 * mixture(small, replayed=False).read
    assert mixture(large, replayed=True).read == pytest.approx(mixture(large, replayed=False).read)


def timed(rows: float, columns: float, halved: bool) -> Traffic:
    """A product of few rows or few columns that is timed over and over, with copies of its weights in turn."""
    kernel = workloads.gemm("bf16", rotated=True)
    knobs: dict[str, Any] = {"tile.m": 128.0, "tile.n": 64.0, "tile.k": 64.0}
    g = geometry(kernel, knobs, {"M": rows, "N": columns, "K": 2048.0})
    return traffic(kernel, g, 216.0, 1.0, ("m", "n"), 96e6, 0.0, 48.0, 0.0, halved)


def test_rotated_weights_stay_as_far_as_all_copies_fit() -> None:
    assert timed(16.0, 4000.0, halved=False).missed < 0.05  # five times 16 MB
    assert timed(16.0, 8000.0, halved=False).missed == pytest.approx(1.0, abs=0.02)
    assert timed(16.0, 4000.0, halved=True).missed > 0.9  # each half holds its own
    assert timed(16.0, 1500.0, halved=True).read == 0.0


def test_operands_that_do_not_change_stay_as_far_as_one_run_fits() -> None:
    assert timed(18000.0, 64.0, halved=False).read == 0.0  # 74 MB
    assert timed(18000.0, 64.0, halved=True).missed > 0.5
    assert timed(30000.0, 64.0, halved=False).missed > 0.9
    assert timed(18000.0, 64.0, halved=False).write_effort == 0.0  # written over before it is written back
    assert timed(18000.0, 64.0, halved=True).write_effort > 18000.0 * 64.0 * 2.0


def test_a_wave_of_blocks_loads_what_they_share_once() -> None:
    """216 blocks of 128 x 64: all of one column of tiles, or two rows of 108 in each of four waves."""
    narrow, square = timed(128.0 * 216, 64.0, halved=False), timed(1024.0, 64.0 * 108, halved=False)
    assert narrow.together == (128.0 * 216 + 64.0) * 2048.0 * 2.0
    assert square.together == 4.0 * (128.0 * 2 + 64.0 * 108) * 2048.0 * 2.0
    loaded = (128.0 + 64.0) * 2048.0 * 2.0
    lone = shared_effort(216 * loaded, narrow.together) / (216 * loaded)
    shared = shared_effort(864 * loaded, square.together) / (864 * loaded)
    assert SHARED_READ - 1.0 < shared < -0.15 < 0.0 < lone < LONE_READ - 1.0


def test_stores_far_apart_pay_for_each_run() -> None:
    near, far = (timed(65536.0, columns, halved=True) for columns in (2048.0, 65536.0))
    assert far.write_effort / far.write == pytest.approx(1.0 + 48.0 / 128.0)
    assert near.write_effort / near.write == pytest.approx(1.0 + 48.0 / 128.0 / 256.0)


def test_the_first_loads_of_many_blocks_come_later() -> None:
    machine = load_machine("a100_sxm")
    p = load_calibration(machine).parameters
    knobs: dict[str, Any] = {"tile.m": 32.0, "tile.n": 64.0, "tile.k": 64.0, "pipeline": 3.0, "warps": 4.0}
    kernel = workloads.gemm("bf16", rotated=True)
    one, many = (
        estimate(kernel, machine, knobs, {"M": 8.0, "N": columns, "K": 64.0}, p, compiled=False)
        for columns in (64.0, 64.0 * 64)
    )
    late = late_seconds(64.0, p, 1.0) - late_seconds(1.0, p, 1.0)
    assert late == pytest.approx(SPREAD * np.log(64.0) * p.fill_latency)
    latency = machine.need(machine.level("dram").latency_seconds, "latency")
    assert float(many.exposed - one.exposed) >= late * latency
    assert float(many.total - one.total) >= late * latency


def test_short_runs_cost_a_gap_each() -> None:
    for step in (32.0, 64.0, 256.0):
        found = mixture(64.0, replayed=False, step=step)
        assert found.read_effort / found.read == pytest.approx(1.0 + GAP * READ_OF_WRITE / (2.0 * step), rel=0.01)


def test_a_product_pays_a_quarter_of_the_gap_of_writes_for_each_run_of_its_reads() -> None:
    kernel = workloads.gemm()
    assert read_gap(kernel, 80.0) == 80.0 * READ_OF_WRITE
    assert read_gap(workloads.rms_norm(), 80.0) == READ_GAP


def test_a_grid_drains_by_the_bytes_that_are_left() -> None:
    assert drain_seconds(1.0, 1.0, 10.0) == 0.0  # one wave: all blocks end together
    assert drain_seconds(1.0, 4.0, 10.0) == pytest.approx(np.log(11.0) / 10.0 / 4.0)
    share = (np.arange(1_000_000) + 0.5) / 1e6
    lost = np.mean(1.0 / (1.0 + 10.0 * share))  # DRAM at u r / (1 + u r), u falling evenly from 1 to 0
    assert drain_seconds(1.0, 4.0, 10.0) * 4.0 == pytest.approx(lost, rel=1e-4)
    assert drain_seconds(1.0, 8.0, 10.0) < drain_seconds(1.0, 4.0, 10.0)
    assert drain_seconds(1.0, 4.0, 20.0) < drain_seconds(1.0, 4.0, 10.0)


def test_one_buffer_serialises_what_one_block_does() -> None:
    """A block of 128 x 256 with one stage of 96 KB waits for each load; with stages of 48 KB it loads ahead."""
    target = load_machine("a100_sxm")
    parameters = load_calibration(target).parameters
    sizes = {"M": 8192.0, "N": 8192.0, "K": 8192.0}

    def seconds(step: int, stages: int) -> float:
        knobs = {"tile.m": 128.0, "tile.n": 256.0, "tile.k": step, "warps": 8.0, "pipeline": stages, "group": 8.0}
        columns = {name: np.array([float(value)]) for name, value in knobs.items()}
        return float(estimate(workloads.gemm("bf16"), target, columns, sizes, parameters).total[0])

    assert seconds(128, 2) > 1.1 * seconds(64, 3)
