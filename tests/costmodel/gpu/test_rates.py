"""Rates of the way between L2 and an SM and what L2 keeps, in kernels whose time follows from them by hand."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.events import simulate
from codesign.costmodel.gpu.block import block_work
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.gpu.traffic import traffic
from codesign.costmodel.machine import load_machine
from codesign.ir.schedule import Schedule

A100 = load_machine("a100_sxm")
CLOCK = 1.41e9


def test_an_sm_takes_64_bytes_a_clock_from_l2() -> None:
    """One block of 128 x 128 loads 256 rows of k: the way into its SM is what bounds its loads."""
    sizes = {"M": 128.0, "N": 128.0, "K": 65536.0}
    knobs = {"tile.m": 128.0, "tile.n": 128.0, "tile.k": 64.0, "warps": 8.0, "pipeline": 3.0}
    columns = {name: np.array([value]) for name, value in knobs.items()}
    found = estimate(workloads.gemm("bf16"), A100, columns, sizes, load_calibration(A100).parameters)
    arriving = 256 * 65536 * 2 / (64.0 * CLOCK)
    assert float(np.ravel(found.resources["l2"])[0]) == pytest.approx(arriving, rel=0.01)
    schedule = Schedule({"m": 128, "n": 128, "k": 64}, pipeline=3, extras={"warps": 8})
    seen = simulate(workloads.gemm("bf16"), A100, schedule, {"M": 128, "N": 128, "K": 65536})
    assert seen.busy["port"] * seen.seconds * 108 == pytest.approx(arriving, rel=0.01)


@pytest.mark.parametrize("flow", [0.4, 1.0, 1.25, 1.5, 1.9, 2.0, 3.0])
@pytest.mark.parametrize(("rows", "l2"), [(108.0, 40e6), (216.0, 40e6), (216.0, 100e6)])
def test_a_second_sweep_finds_in_l2_what_the_first_and_its_results_left(rows: float, l2: float, flow: float) -> None:
    """A norm goes over its rows twice. While it reads the rows at work once it writes as many results: `flow` times the 0.8 of L2 that
    keep what is read. All is found again while that fits, and nothing once twice as much has gone by: under least recently used a
    sweep that does not fit pushes out what it comes back to, so it does not find the share that would still have room."""
    tokens, row = 8192.0, np.floor(flow * 0.8 * l2 / (rows * 2.0 * 2.0))
    kernel = workloads.rms_norm()
    outer, inner = kernel.outer[0], kernel.inner[0]
    knobs = {f"tile.{outer}": np.float64(1.0), f"tile.{inner}": np.float64(1024.0)}
    g = geometry(kernel, knobs, {"T": tokens, "N": row})
    block, _ = block_work(kernel, g, A100, knobs, compiled=False)
    found = traffic(kernel, g, rows, 1.0, (outer,), l2, 0.0, 0.0, sweeps=block.sweeps)
    missed = min(max(flow - 1.0, 0.0), 1.0)
    assert float(found.read) == pytest.approx(tokens * row * 2.0 * (1.0 + missed), rel=0.02)


@pytest.mark.parametrize("l2", [1e5, 4e6, 12e6, 1e9])
def test_a_later_wave_finds_in_l2_what_fits_with_all_that_streams_past(l2: float) -> None:
    """16 waves, each of one row of tiles: the left operand is read once, the right one by every wave anew."""
    kernel, size = workloads.gemm("bf16"), 2048.0
    g = geometry(kernel, {"tile.m": 128.0, "tile.n": 128.0, "tile.k": 64.0}, {"M": size, "N": size, "K": size})
    found = traffic(kernel, g, 16.0, 1.0, ("m", "n"), l2, 0.0, 0.0)
    operand = size * size * 2.0
    flow = operand / 16.0 + operand + operand / 16.0  # rows of the left operand, the right one, the results
    kept = min(0.8 * l2 / flow, 1.0)
    assert float(found.read) == pytest.approx(2.0 * operand + 15.0 * operand * (1.0 - kept))
