"""Layers under given mappings: what a mapping's text means, and what of it costs what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from codesign.accelerator_tables import accelerator_predictions
from codesign.costmodel.dataflow import target_of
from codesign.costmodel.dataflow.mapping import Figures, Layer, mapping_clocks, mapping_seconds, parse_mapping
from codesign.costmodel.machine import load_machine
from codesign.costmodel.rows import TableError
from codesign.costmodel.tables import read_table
from codesign.ir.errors import ScheduleError

GEMMINI = load_machine("gemmini_16x16")
TARGET = target_of(GEMMINI)
TEXT = "L3[WIO] K6 - L2[WI] N1 K16X - L1[O] K8 C48 P4 C16X - L0[W] P32"
SIZES = {"N": 1, "P": 128, "Q": 1, "K": 768, "C": 768, "R": 1, "S": 1}


def clocks(text: str, figures: Figures, stride: int = 1, **sizes: int) -> float:
    return mapping_clocks(TARGET, figures, parse_mapping(text), Layer({**SIZES, **sizes}, stride))


def test_a_mapping_is_a_tile_and_the_loops_around_it() -> None:
    nest = parse_mapping("L3[WIO] Q2 N1 K6 - L2[WI] N1 K16X - L1[O] K8 C48 P4 C16X - L0[W] P32 Q3")
    assert nest.outer == (("Q", 2), ("K", 6))
    assert nest.tile == {"N": 1, "P": 128, "Q": 3, "K": 128, "C": 768, "R": 1, "S": 1}
    assert (nest.loads("NPQCRS"), nest.loads("CKRS"), nest.tiles) == (2, 12, 12)


@pytest.mark.parametrize("text", ["", "L3[WIO] Z4", "K6 - P4", "L3[WIO] K0", "L3[WIO] K6; L2[WI] C4"])
def test_what_is_no_mapping_is_named(text: str) -> None:
    with pytest.raises(ScheduleError, match="mapping: cannot read"):
        parse_mapping(text)


def test_a_mapping_that_hides_all_transfers_takes_a_clock_for_each_row_of_the_array() -> None:
    assert clocks(TEXT, Figures()) == 768 * 768 * 128 / 256


def test_short_passes_and_changes_of_the_stationary_operand_take_their_time() -> None:
    narrow = "L3[WIO] Q2 - L2[WI] K16X - L1[O] C4 Q14 P4 C16X"
    blocks, passes = 2 * 4, 14
    assert clocks(narrow, Figures(least_pass=8.0), C=64, K=16, P=4, Q=28) == blocks * passes * 8.0
    assert clocks(narrow, Figures(least_pass=8.0, switch=6.0), C=64, K=16, P=4, Q=28) == blocks * (passes * 8.0 + 6.0)


def test_requests_bound_what_moves_much() -> None:
    """One output pixel: each weight is loaded for one multiply-add."""
    text = "L3[WIO] C16 - L2[WI] K16X - L1[O] K63 C8 C16X"
    free = clocks(text, Figures(), C=2048, K=1008, P=1)
    assert free == pytest.approx(2048 * 1008 / 16, rel=2e-3), "bytes over the width of the bus"
    assert clocks(text, Figures(request=4.0), C=2048, K=1008, P=1) > free + 4.0 * 2048 * 16 - 1


def test_a_convolution_loads_the_halo_of_each_tile_anew() -> None:
    heavy = Figures(request=1000.0)
    image = "L3[WIO] K2 - L2[WI] K16X - L1[O] R3 S3 C4 Q8 C16X - L0[W] P8"
    layer = {"C": 64, "K": 32, "P": 8, "Q": 8, "R": 3, "S": 3}
    each = clocks(image, heavy, **layer) - clocks(image.replace("K2", "K1"), heavy, **{**layer, "K": 16})
    assert each > 10 * 10 * 1000.0


def test_figures_that_a_machine_lacks_cost_nothing() -> None:
    assert Figures.of(load_machine("tpu_v4")) == Figures()
    assert Figures.of(GEMMINI) != Figures()
    nest, layer = parse_mapping(TEXT), Layer(SIZES)
    assert mapping_seconds(GEMMINI, nest, layer) > mapping_seconds(load_machine("tpu_v4"), nest, layer)
    assert mapping_seconds(GEMMINI, nest, replace(layer, width=2.0)) >= mapping_seconds(GEMMINI, nest, layer)


def table(tmp_path: Path, mapping: str) -> pd.DataFrame:
    columns = {f"prob.{dim}": [size] for dim, size in SIZES.items()}
    path = tmp_path / "layers.csv"
    pd.DataFrame({"mapping.mapping": [mapping], **columns, "rtl_cycle": [305870.0]}).to_csv(path)
    return read_table(path, TARGET.clock_hz)


def test_rows_of_a_table_are_priced_as_they_are_mapped(tmp_path: Path) -> None:
    found = accelerator_predictions(table(tmp_path, TEXT), "gemm", GEMMINI, lambda _, __: lambda: None)
    assert found["predicted"][0] == pytest.approx(305870e-9, rel=0.1)
    worse = accelerator_predictions(
        table(tmp_path, "L3[WIO] P16 K48 C48 - L2[WI] K16X - L1[O] C16X - L0[W] P8"),
        "gemm",
        GEMMINI,
        lambda _, __: lambda: None,
    )
    assert worse["predicted"][0] > 2 * found["predicted"][0]


def test_a_row_without_a_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"row 1, column 'mapping\.mapping': mapping: cannot read"):
        accelerator_predictions(table(tmp_path, "none"), "gemm", GEMMINI, lambda _, __: lambda: None)
