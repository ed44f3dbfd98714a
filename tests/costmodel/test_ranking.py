"""Rank quality on measured tuning spaces: skipped where the tables are not beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from codesign.costmodel.machine import load_machine
from codesign.costmodel.ranking import is_ranking, rankings
from codesign.costmodel.rows import TableError
from codesign.costmodel.tables import kernels_of, read_table


@pytest.mark.parametrize(
    ("machine", "listed", "tile"),
    [
        ("a100_sxm", 0.35, 0.55),
        pytest.param("h800", 0.35, 0.60, marks=pytest.mark.slow),
        pytest.param("l40", 0.18, 0.40, marks=pytest.mark.slow),
    ],
)
def test_tiles_of_mixtures_of_experts(measured: Path, machine: str, listed: float, tile: float) -> None:
    table = read_table(measured / "gpu_moe_triton_best_tiles.parquet")
    (space,) = rankings(table, load_machine(machine))
    assert space["shapes"] == 288
    assert space["within_5_percent"] >= 0.8
    assert space["listed"] >= listed
    assert space["listed"] > 4.0 * space["chance"]
    assert space["listed"] <= space["listed_at_5"] <= space["listed_at_10"]
    assert space["tile_listed"] >= tile
    assert space["percentile"] < 0.3
    assert space["predicted_loss"] < 0.02


def test_filters_of_a_measured_space(measured: Path) -> None:
    table = read_table(measured / "tuning_space_convolution_a100.parquet")
    (space,) = rankings(table, load_machine("a100_sxm"))
    assert space["rows"] > 4000
    assert space["kendall_tau"] > 0.7
    assert space["regret_at_10"] < 0.6  # the best rows owe their time to the compiler's order of loads


def test_register_tiled_gemms_of_a_measured_space(measured: Path) -> None:
    table = read_table(measured / "tuning_space_gemm_rtx3090.parquet")
    (space,) = rankings(table, load_machine("rtx_3090"))
    assert space["kendall_tau"] > 0.6
    assert space["regret_at_5"] <= 0.10
    assert space["regret_at_10"] <= 0.05


def mixture_table() -> pd.DataFrame:
    shape = {"M": 3, "E": 8, "topk": 2, "H": 1024, "N": 512}
    knobs = {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 128, "GROUP_SIZE_M": 1, "num_warps": 4}
    rows = [{**shape, **knobs, "num_stages": stages, "hardware": "A100", "seconds": 1e-5} for stages in (2, 3)]
    wide = {**shape, **knobs, "M": 64, "BLOCK_SIZE_M": 256, "num_stages": 2, "hardware": "L40", "seconds": 2e-5}
    return pd.DataFrame([*rows, wide])


def test_experts_of_a_mixture_get_equal_shares() -> None:
    (rows,) = kernels_of(mixture_table())
    np.testing.assert_array_equal(rows.sizes["E"], [6.0, 6.0, 8.0])  # 3 tokens x 2 reach six experts, 64 x 2 all eight
    np.testing.assert_array_equal(rows.sizes["M"], [1.0, 1.0, 16.0])
    assert rows.kernel.notes["replayed"]


def test_a_mixture_is_ranked_among_the_schedules_of_all_machines() -> None:
    table = mixture_table()
    assert is_ranking(table)
    (space,) = rankings(table, load_machine("a100_sxm"))
    assert (space["shapes"], space["schedules"]) == (1, 3)
    assert space["chance"] == pytest.approx(2.0 / 3.0)
    assert space["listed"] == 1.0
    with pytest.raises(TableError, match="no rows of h800"):
        rankings(table, load_machine("h800"))
