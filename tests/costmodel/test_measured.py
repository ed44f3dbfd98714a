"""The model against measured tables: skipped where the tables are not beside the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from codesign.costmodel.fitting import folds_of
from codesign.costmodel.gpu.intervals import common_share
from codesign.costmodel.gpu.model import family_of, ledger
from codesign.costmodel.gpu.parameters import calibration_like, load_calibration
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.machine import load_machine
from codesign.costmodel.ranking import quality, rankings
from codesign.costmodel.rows import TableError
from codesign.costmodel.serving import visited
from codesign.costmodel.sums import Part, time_of_parts, total
from codesign.costmodel.tables import kernels_of, machine_rows, read_table
from codesign.costmodel.validation import predictions, report


@pytest.mark.parametrize(("machine", "limit"), [("h100_sxm", 0.06), ("a100_sxm", 0.08)])
def test_library_gemms(measured: Path, machine: str, limit: float) -> None:
    table = read_table(measured / "gpu_gemm.parquet")
    table = table[table.machine == machine].sample(600, random_state=7).reset_index(drop=True)
    (op,) = report(predictions(table, load_machine(machine)), table)
    assert op["mape"] < limit
    assert op["spearman"] > 0.98
    assert 0.84 <= op["coverage"] <= 0.97
    assert sum(part["rows"] for part in op["regimes"] if part["regime"].endswith("-bound")) == op["rows"]


@pytest.mark.parametrize(
    ("machine", "like", "file"),
    [
        ("h100_sxm", "a100_sxm", "gpu_gemm"),
        ("a100_sxm", "h100_sxm", "gpu_gemm"),
        ("b300_sxm", "h100_sxm", "gpu_gemm_more"),
        ("b300_sxm", "a100_sxm", "gpu_gemm_more"),
    ],
)
def test_library_gemms_of_a_machine_known_by_its_spec_sheet(measured: Path, machine: str, like: str, file: str) -> None:
    table = read_table(measured / f"{file}.parquet")
    table = (
        table[(table.machine == machine) & (table.dtype == "bf16")].sample(900, random_state=7).reset_index(drop=True)
    )
    target = load_machine(machine)
    (op,) = report(predictions(table, target, calibration_like(like, target)), table)
    assert op["mape"] <= 0.10
    assert op["coverage"] >= 0.85


def test_trips_of_a_part_at_a_lower_rate(measured: Path) -> None:
    """Triton's mixtures of experts on an L40, never fitted: with the clocks of trips of the L40S, not with twice as many at half its rate."""
    machine = load_machine("l40")
    table = machine_rows(read_table(measured / "gpu_moe_triton_best_tiles.parquet"), "l40").sample(300, random_state=7)
    (rows,) = kernels_of(table, machine)
    assert rows.columns is not None
    p = load_calibration(machine).parameters
    errors = []
    for trips in (p, replace(p, step_clocks=2.0 * p.step_clocks)):
        found = estimate(rows.kernel, machine, rows.columns, rows.sizes, trips, ("e", "m", "n"))
        errors.append(np.abs(ledger(found, len(rows.seconds)).sum(axis=1) / rows.seconds - 1.0).mean())
    assert errors[0] <= 0.18
    assert errors[0] < 0.9 * errors[1]


def test_every_op_of_a_profiled_model(measured: Path) -> None:
    table = (
        read_table(measured / "gpu_transformer_ops_a100.parquet").sample(8000, random_state=7).reset_index(drop=True)
    )
    ops = {op["op"]: op for op in report(predictions(table, load_machine("a100_sxm")), table)}
    assert len(ops) == 10
    for name, op in ops.items():
        assert op["mape"] < 0.085, name
        assert 0.84 <= op["coverage"] <= 0.97, name
        assert op["spearman"] > 0.98, name


@pytest.mark.slow
def test_the_interval_of_a_layer_is_that_of_a_sum(measured: Path) -> None:
    """The ten operators of a layer together: nine in ten sums lie inside, of an interval that is half as wide as the intervals' sum."""
    machine, table = load_machine("a100_sxm"), read_table(measured / "gpu_transformer_ops_a100.parquet")
    keys = ["n_embd", "n_head", "n_kv_head", "n_expanded_embd", "num_tensor_parallel_workers", "num_tokens"]
    layer = table.groupby(keys).ngroup()
    picked = table[layer.isin(np.random.default_rng(1).permutation(layer.max() + 1)[:200])]
    family = {rows.op: family_of(rows.kernel) for rows in kernels_of(picked, machine)}
    found = predictions(picked, machine).set_index("row")
    inside, wide = [], []
    for _, rows in found.groupby(layer.loc[found.index]):
        columns = (rows[name].to_numpy() for name in ("op", "predicted", "low", "high"))
        times = []
        for op, seconds, low, high in zip(*columns, strict=True):
            part = Part(low / seconds, high / seconds, common_share(family[op]))
            times.append((time_of_parts(seconds, low, high, {family[op]: part}, op), 1.0))
        whole = total(times)
        inside.append(whole.low <= rows.measured.sum() <= whole.high)
        wide.append((whole.high - whole.low) / (rows.high.sum() - rows.low.sum()))
    assert 0.82 <= np.mean(inside) <= 0.96
    assert np.median(wide) < 0.6


def test_a_model_without_gated_units_has_other_kernels(measured: Path) -> None:
    table = read_table(measured / "gpu_transformer_ops_a100.parquet")
    kernels = {rows.op: rows for rows in kernels_of(table[~table.use_gated_mlp])}
    assert kernels["input_layernorm"].kernel.name == "layer_norm"
    assert kernels["mlp_act"].kernel.name == "gelu"
    assert (kernels["add"].launches, kernels["input_layernorm"].launches) == (2, 1)


def test_tuning_space_of_another_machine(measured: Path) -> None:
    table = read_table(measured / "tuning_space_gemm_rtx3090.parquet")
    (space,) = rankings(table, load_machine("rtx_3090"))
    assert space["regret_at_10"] <= 0.10
    assert space["kendall_tau"] > 0.5


def test_validate_command_answers_in_json(measured: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(measured / "gpu_gemm.parquet")
    table[table.machine == "a100_sxm"].sample(100, random_state=1).to_csv(tmp_path / "some.csv", index=False)
    command = [sys.executable, "-m", "codesign.validate", str(tmp_path / "some.csv"), "--machine", "a100_sxm", "--json"]
    document = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert document["machine"] == "a100_sxm"
    keys = {"op", "rows", "mape", "median", "p90", "bias", "spearman", "coverage", "regimes", "worst"}
    assert keys <= set(document["ops"][0])


def test_a_table_of_an_unknown_kind_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("seconds,colour\n1.0,red\n")
    with pytest.raises(TableError, match="unknown kind: columns colour, seconds"):
        list(kernels_of(read_table(path)))
    with pytest.raises(TableError, match="no such table"):
        read_table(tmp_path / "none.parquet")
    path.write_text("m,n,k\n1,2,3\n")
    with pytest.raises(TableError, match="no column 'seconds'"):
        read_table(path)


def test_folds_keep_a_site_together() -> None:
    frame = pd.DataFrame({"m": np.arange(1, 61), "n": np.repeat(np.arange(1, 7), 10), "k": 8, "seconds": 1e-6})
    (rows,) = kernels_of(frame)
    folds = folds_of(rows, 3)
    assert {len(set(folds[rows.site == site])) for site in set(rows.site)} == {1}
    assert len(set(folds)) == 3


def test_visited_keys_of_a_causal_mask_against_counting() -> None:
    tile, step = 128, 64
    for queries, keys, window in ((1024, 1024, 0), (256, 1024, 0), (1024, 1024, 128), (3000, 3000, 500)):
        each = []
        for start in range(0, queries, tile):
            seen = set()
            for query in range(start, min(start + tile, queries)):
                last = keys - queries + query
                seen |= {key // step for key in range(max(last - window + 1, 0) if window else 0, last + 1)}
            each.append(len(seen) * step)
        q, k, w, t = (np.array([float(size)]) for size in (queries, keys, window, tile))
        mean, skew = visited(q, k, w, t, step)
        assert mean[0] == pytest.approx(np.mean(each), rel=0.03)
        assert mean[0] * skew[0] == pytest.approx(max(each), rel=0.03)


def test_one_query_visits_its_keys_and_no_padding() -> None:
    one, thousand, none, rows = (np.array([size]) for size in (1.0, 1000.0, 0.0, 16.0))
    mean, skew = visited(one, thousand, none, rows, 128.0)
    assert (mean[0], skew[0]) == (1000.0, 1.0)
    mean, _ = visited(one, thousand, np.array([128.0]), rows, 128.0)
    assert 128.0 <= mean[0] < 256.0  # the window, and the rest of the step that it starts in


def test_quality_of_a_perfect_and_a_reversed_order() -> None:
    seconds = np.array([3.0, 1.0, 2.0, np.nan])
    assert quality(seconds, seconds)["kendall_tau"] == pytest.approx(1.0)
    worst = quality(seconds, -seconds)
    assert worst["kendall_tau"] == pytest.approx(-1.0)
    assert worst["regret_at_1"] == pytest.approx(2.0)
