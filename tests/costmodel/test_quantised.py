"""Products of quantised operands: what the call holds beside the product."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.fitting import prepare
from codesign.costmodel.gpu.library import library
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import load_machine
from codesign.costmodel.quantised import FORMATS, formats
from codesign.costmodel.rows import Rows
from codesign.costmodel.tables import kernels_of

PACE = min(7.75e12, 16.0 * 148 * 1.965e9)
"""Bytes that small kernels move in a second on a B300: what DRAM gives, or what its SMs convert."""


def _rows(dtype: str, m: int, n: int = 128, k: int = 4096) -> Rows:
    (rows,) = kernels_of(pd.DataFrame({"dtype": [dtype], "m": m, "n": n, "k": k, "seconds": 1e-5}))
    return rows


def _seconds(dtype: str, m: int, passes: float = 1.0) -> float:
    machine = load_machine("b300_sxm")
    parameters = replace(load_calibration(machine).parameters, quantise_seconds=4e-6, quantise_passes=passes)
    return float(prepare(_rows(dtype, m), machine, parameters).predict(machine, parameters)[0])


def test_formats_name_their_source() -> None:
    data = tomllib.loads(FORMATS.read_text())
    assert {row["source"] for row in data["format"]} == set(data["sources"])
    assert {"fp8", "fp8_block", "nvfp4"} <= set(formats())


def test_a_call_holds_the_quantisation_of_its_activations() -> None:
    assert _seconds("fp8", 16) == pytest.approx(_seconds("f8e4m3", 16) + 4e-6, rel=0.2)
    read = 2.0 * 65536 * 4096 / PACE  # one pass over the activations, far more than L2 holds
    more = _seconds("fp8", 65536, passes=3.0) - _seconds("fp8", 65536, passes=1.0)
    assert 0.99 * 2.0 * read < more < 2.0 * read / 0.7


def test_four_bits_are_half_a_byte_and_a_sixteenth_of_scales() -> None:
    (nest,) = workloads.quantised_gemm("f4", 16).nests
    sizes = {"M": 8.0, "N": 64.0, "K": 1024.0}
    held = {load.tensor.split("#")[0] + load.tensor[-6:]: load for load in nest.loads}
    weights = [load for load in nest.loads if load.tensor.startswith("b#")]
    stored = sum(
        load.dtype.bytes * float(np.prod([extent.evaluate(sizes) for extent in load.shape])) for load in weights
    )
    assert len(held) == 4
    assert stored == 64 * 1024 * 4.5 / 8


def test_a_library_has_its_tiles_by_the_rows_of_a_product() -> None:
    rows = {m: formats()["fp8_block"].tiles(m)[0] for m in (1, 64, 65, 4096)}
    assert rows == {1: (64,), 64: (64,), 65: (128,), 4096: (128,)}
    table = pd.DataFrame({"dtype": "fp8_block", "m": [16, 4096, 64], "n": 128, "k": 4096, "seconds": 1e-5})
    parts = {part.tiles[0]: list(part.index) for part in kernels_of(table)}
    assert parts == {(64,): [0, 2], (128,): [1]}


def test_libraries_without_parts_of_k_are_given_none() -> None:
    machine = load_machine("b300_sxm")
    parameters = load_calibration(machine).parameters
    spaces = {name: prepare(_rows(name, 16, k=65536), machine, parameters).space for name in ("fp8", "nvfp4")}
    assert spaces["nvfp4"] is not None
    assert spaces["fp8"] is not None
    assert set(spaces["nvfp4"]["split.k"].tolist()) == {1.0}
    assert spaces["fp8"]["split.k"].max() > 1.0


@pytest.mark.parametrize(("machine", "dtype"), [("b300_sxm", "nvfp4"), ("h100_sxm", "fp8_block")])
def test_a_library_has_the_tiles_that_its_row_says(machine: str, dtype: str) -> None:
    target, form = load_machine(machine), formats()[dtype]
    parameters = load_calibration(target).parameters
    for m, n, k in ((1, 4096, 4096), (4096, 16384, 512)):
        space = prepare(_rows(dtype, m, n, k), target, parameters).space
        assert space is not None
        assert {*space["tile.m"]} <= {*form.tiles(m)[0]}
        assert {*space["tile.n"]} <= {*form.columns}


def test_what_follows_a_product_passes_over_its_results() -> None:
    machine = load_machine("b300_sxm")
    p = replace(load_calibration(machine).parameters, result_passes=0.0)
    prepared = prepare(_rows("nvfp4", 16384, 32768, 128), machine, p)
    once, twice = (prepared.predict(machine, replace(p, result_passes=passes))[0] for passes in (1.0, 2.0))
    written = 2.0 * 16384 * 32768 / PACE  # far more than L2 holds
    assert 0.99 * written < twice - once < written / 0.7


def test_each_row_takes_the_kernels_that_quantise_it_some_time() -> None:
    machine, rows = load_machine("b300_sxm"), _rows("nvfp4", 32768, k=128)
    parameters = replace(load_calibration(machine).of("gemm nvfp4"), token_seconds=0.0)
    prepared = prepare(rows, machine, parameters)
    slower = replace(parameters, token_seconds=1e-9)
    more = prepared.predict(machine, slower) - prepared.predict(machine, parameters)
    assert more[0] == pytest.approx(32768 * 1e-9, rel=0.05)


@pytest.mark.parametrize(("ragged", "whole", "slower"), [(65, 128, 46.3 / 26.7), (129, 256, 59.7 / 32.1)])
def test_a_block_scaled_product_waits_for_the_rows_that_it_lacks(ragged: int, whole: int, slower: float) -> None:
    """Published times on an H100 of 2560 columns and 12288 terms: fewer rows take longer."""
    table = pd.DataFrame({"dtype": "fp8_block", "m": [ragged, whole], "n": 2560, "k": 12288, "seconds": 1e-5})
    machine = load_machine("h100_sxm")
    p = load_calibration(machine).of("gemm fp8_block")
    (rows,) = kernels_of(table, machine)
    few, many = prepare(rows, machine, p).predict(machine, p)
    assert few / many == pytest.approx(slower, rel=0.25)
    assert "missing_reads" not in _rows("nvfp4", 65).sizes


@pytest.mark.parametrize(
    ("m", "n", "tile"),
    [
        (1, 2560, (16, 128, 1)),  # operands exchanged: 20 blocks however few columns
        (17, 65536, (24, 128, 1)),
        (64, 2560, (64, 24, 1)),  # 107 blocks; 160 of 16 columns would be two waves
        (65, 2560, (128, 24, 1)),
        (129, 2560, (128, 40, 1)),  # 2 x 64 blocks
        (512, 2048, (128, 64, 1)),  # 4 x 32 blocks
        (769, 2560, (128, 72, 1)),  # 7 x 36 = 252 blocks; of two waves the fullest
        (1024, 2048, (128, 128, 2)),
        (2816, 128, (128, 24, 1)),  # 22 x 6 = 132 blocks, which is one wave
        (2817, 128, (128, 32, 2)),
    ],
)
def test_a_library_takes_the_tile_of_the_fullest_waves(m: int, n: int, tile: tuple[int, int, int]) -> None:
    assert formats()["fp8_block"].taken(m, n, 132.0) == tile
    machine = load_machine("h100_sxm")
    table = pd.DataFrame({"dtype": "fp8_block", "m": [m], "n": n, "k": 4096, "seconds": 1e-5})
    (rows,) = kernels_of(table, machine)
    parameters = load_calibration(machine).parameters
    space = prepare(rows, machine, parameters).space
    assert space is not None
    (choice,) = library(rows.kernel, machine, rows.sizes, parameters, space).choice
    assert (space["tile.m"][choice], space["tile.n"][choice], space["cluster.n"][choice]) == tile


def test_what_quantises_has_a_pace_of_its_own() -> None:
    """Activations that L2 holds are quantised as fast as an SM converts, not as fast as L2 gives."""
    machine = load_machine("h100_sxm")
    clocks = 132 * 1.98e9
    p = replace(
        load_calibration(machine).of("gemm fp8_block"), quantise_seconds=0.0, token_seconds=0.0, result_passes=0.0
    )
    rows = _rows("fp8_block", 1024, k=8192)
    prepared = prepare(rows, machine, p)
    few, many = (
        prepared.predict(machine, replace(p, quantise_passes=passes, pass_bytes=4.0))[0] for passes in (1.0, 2.0)
    )
    assert many - few == pytest.approx(2.0 * 1024 * 8192 / (4.0 * clocks), rel=0.1)
