"""Clocks of the engines: against SCALE-Sim's own answers, and by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.costmodel.dataflow import target_of
from codesign.costmodel.dataflow.engines import (
    dma_clocks,
    matmul_clocks,
    matmul_reads,
    overlapped_clocks,
    systolic_clocks,
    transfer_bytes,
    vector_clocks,
)
from codesign.costmodel.machine import load_machine
from codesign.ir.dtypes import BF16, F32, I8
from codesign.ir.errors import MachineError, UnsupportedError

FLOWS = {"os": "output_stationary", "ws": "weight_stationary", "is": "input_stationary"}


def test_systolic_clocks_equal_scale_sim(shared_dir: Path) -> None:
    rows = list(csv.DictReader((shared_dir / "goldens" / "scalesim_cycles.csv").open()))
    assert len(rows) >= 45
    for row in rows:
        m, n, k, height, width = (int(row[name]) for name in ("M", "N", "K", "array_rows", "array_cols"))
        clocks = systolic_clocks(m, n, k, height, width, FLOWS[row["dataflow"]])
        assert clocks == int(row["cycles"]), row


def test_one_fold_of_each_dataflow_by_hand() -> None:
    # 16 x 16 array, one 16 x 16 x 16 product: fill 15 + 15, 16 steps (output stationary); load 16, stream 16, drain 30 (others)
    assert systolic_clocks(16, 16, 16, 16, 16, "output_stationary") == 46
    assert systolic_clocks(16, 16, 16, 16, 16, "weight_stationary") == 62
    assert systolic_clocks(16, 16, 16, 16, 16, "input_stationary") == 62
    both = systolic_clocks(np.array([16, 17]), 16, 16, 16, 16, "output_stationary")
    assert both.tolist() == [46, 92], "one more row is one more fold"
    with pytest.raises(UnsupportedError, match="row_stationary"):
        systolic_clocks(16, 16, 16, 16, 16, "row_stationary")


def test_a_matmul_runs_at_the_array_s_rate_or_at_its_operands() -> None:
    maia = target_of(load_machine("maia100"))
    assert float(matmul_clocks(maia, 256, 256, 256, BF16)) == maia.array.startup_clocks + 16**3
    assert float(matmul_clocks(maia, 256, 256, 256, F32)) == maia.array.startup_clocks + 8 * 16**3
    gemmini = target_of(load_machine("systolic_16x16"))
    a, b = matmul_reads(gemmini, 64, 64, 64, "output_stationary")
    assert (float(a), float(b)) == (4 * 64 * 64, 4 * 64 * 64), (
        "each operand passes once per fold of the other's dimension"
    )
    narrow = float(matmul_clocks(gemmini, 64, 64, 64, I8))
    assert narrow == gemmini.array.startup_clocks + 16 * (64 + 30)
    wide = float(matmul_clocks(gemmini, 64, 64, 64, F32))
    assert wide == gemmini.array.startup_clocks + 2 * 4 * 64 * 64 * 4 / 32, (
        "the scratchpad's 32 bytes a clock bound f32"
    )


def test_four_arrays_of_a_core_share_the_folds() -> None:
    tpu = target_of(load_machine("tpu_v4"))
    one = systolic_clocks(512, 128, 128, 128, 128, "weight_stationary")
    assert float(matmul_clocks(tpu, 512, 512, 128, BF16)) == tpu.array.startup_clocks + float(one)
    plain = replace(tpu, array=replace(tpu.array, held_twice=False))
    assert float(matmul_clocks(plain, 512, 512, 128, BF16)) == tpu.array.startup_clocks + float(one)
    assert float(matmul_clocks(plain, 512, 640, 128, BF16)) == tpu.array.startup_clocks + 2 * float(one), "a fifth fold"


@pytest.mark.parametrize(("flow", "m", "n", "k", "rows"), [
    ("weight_stationary", 512, 256, 384, 512),
    ("weight_stationary", 40, 256, 384, 128),
    ("output_stationary", 256, 384, 512, 512),
    ("input_stationary", 256, 512, 384, 512),
])  # fmt: skip
def test_an_array_that_holds_twice_pays_its_fill_and_drain_once(flow: str, m: int, n: int, k: int, rows: int) -> None:
    folds = 2 * 3
    each = 2 * 128 + 128 - 2 if flow != "output_stationary" else 128 + 128 - 2
    streamed = {"weight_stationary": m, "output_stationary": k, "input_stationary": n}[flow]
    assert overlapped_clocks(m, n, k, 128, 128, flow, 1) == (folds - 1) * rows + each + streamed
    assert overlapped_clocks(m, n, k, 128, 128, flow, 4) == rows + each + streamed, "two folds on the busiest of four"
    assert overlapped_clocks(16, 16, 16, 128, 128, flow, 1) == systolic_clocks(16, 16, 16, 128, 128, flow)


def test_only_a_machine_that_says_so_holds_twice() -> None:
    tpu, plain = target_of(load_machine("tpu_v4")), target_of(load_machine("systolic_16x16"))
    assert tpu.array.held_twice
    assert not plain.array.held_twice
    long = float(matmul_clocks(tpu, 1024, 1024, 1024, BF16))
    assert long < 1.05 * (1024**3 / (4 * 128 * 128)) + 1000, "folds follow each other without a gap"


def test_vector_clocks_take_the_slowest_pipe() -> None:
    maia = target_of(load_machine("maia100"))
    start = maia.vector_startup_clocks
    assert float(vector_clocks(maia, 6400, {("fma", "f32"): 2.0}, 0)) == start + 200
    assert float(vector_clocks(maia, 6400, {("fma", "f32"): 2.0, ("special", "f32"): 1.0}, 0)) == start + 400
    assert float(vector_clocks(maia, 6400, {("fma", "f32"): 2.0}, 1280 * 1000)) == start + 1000
    assert float(vector_clocks(maia, 6400, {("fma", "bf16"): 2.0}, 0)) == start + 100
    with pytest.raises(UnsupportedError, match="no rate for f64"):
        vector_clocks(maia, 64, {("fma", "f64"): 1.0}, 0)


def test_dma_moves_whole_lines_after_a_set_up() -> None:
    maia = target_of(load_machine("maia100"))
    assert float(transfer_bytes(maia, 10, 2)) == 10 * maia.dram.line_bytes
    assert float(dma_clocks(maia, 1280)) == maia.dma_setup_clocks + 10


def test_the_power_limit_leaves_the_work_what_is_not_drawn_anyway() -> None:
    target = replace(target_of(load_machine("maia100")), power_watts=100.0, static_watts=30.0)
    assert float(target.throttled(1.0, 69.0)) == 1.0
    assert float(target.throttled(1.0, 700.0)) == 10.0
    assert float(target.throttled(1.0, float("nan"))) == 1.0, "no energy figures, no throttling"
    assert float(replace(target, static_watts=float("nan")).throttled(1.0, 700.0)) == 7.0


def test_a_gpu_is_not_a_target() -> None:
    with pytest.raises(MachineError, match="h100_sxm is a gpu, not a dataflow machine"):
        target_of(load_machine("h100_sxm"))
