"""`codesign.ladder`: every fidelity on the same kernels, as a document, as a table, and against measured times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from codesign import ladder
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.workloads import gemm
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import Schedule, ScheduleBatch

H100 = load_machine("h100_sxm")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(ladder.application, list(arguments))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    result = run("--kernels", "gemm.16x*", "--kernels", "add.*", "--sample", "6", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_every_fidelity_prices_the_same_schedule(document: dict[str, Any]) -> None:
    assert {entry["name"] for entry in document["kernels"]} == {"gemm.16x4096x4096", "add.64", "add.8192"}
    entry = next(e for e in document["kernels"] if e["name"].startswith("gemm"))
    batch = ScheduleBatch.of([Schedule.from_json(entry["schedule"])])
    for fidelity, seconds in enumerate(entry["seconds"]):
        again = cost_model_for(H100, fidelity).predict(gemm(), H100, batch, entry["sizes"]).seconds[0]
        assert seconds == pytest.approx(again, rel=1e-6)


def test_no_fidelity_beats_the_roofline_and_terms_sum(document: dict[str, Any]) -> None:
    for entry in document["kernels"]:
        floor, _, fine = entry["seconds"]
        assert fine >= floor
        for terms, seconds in zip(entry["terms"], entry["seconds"], strict=True):
            assert sum(terms.values()) == pytest.approx(seconds)
        assert entry["regret"] >= 0.0
        assert -1.0 <= entry["tau"] <= 1.0
        assert entry["disagreement"] == pytest.approx(fine / entry["seconds"][1] - 1.0)


def test_the_quick_fidelities_are_quick(document: dict[str, Any]) -> None:
    speeds = [entry["schedules_per_second"] for entry in document["fidelities"]]
    assert speeds[0] > speeds[1] > speeds[2] > 0
    assert speeds[0] > 100_000
    assert speeds[1] > 20_000


def test_disagreements_are_listed_largest_first(document: dict[str, Any]) -> None:
    listed = [abs(entry["disagreement"]) for entry in document["disagree_most"]]
    assert len(listed) == 3
    assert max(abs(entry["disagreement"]) for entry in document["kernels"]) == pytest.approx(listed[0], rel=0.3)


def test_the_table_for_people_names_kernels_and_disagreements(tmp_path: Path) -> None:
    result = run("-k", "rms_norm.64", "--sample", "3", "-o", str(tmp_path), "--trace")
    assert result.exit_code == 0, result.output
    assert "rms_norm.64" in result.stdout
    assert "event simulation" in result.stdout
    assert "disagree most" in result.stdout
    document = json.loads((tmp_path / "ladder.json").read_text())
    trace = json.loads((tmp_path / "rms_norm.64.trace.json").read_text())
    assert trace["otherData"]["seconds"] == pytest.approx(document["kernels"][0]["seconds"][2])
    end = max(event["ts"] + event["dur"] for event in trace["traceEvents"] if event["ph"] == "X")
    assert end * 1e-6 == pytest.approx(document["kernels"][0]["seconds"][2], abs=0.5e-9), "ends are rounded to ns"


def test_errors_against_a_table_are_relative_to_what_was_measured(tmp_path: Path) -> None:
    """A table whose times are the tile model's own, half and double: its error is known in advance."""
    rows = [{"m": 512, "n": 4096, "k": 4096}, {"m": 4096, "n": 4096, "k": 512}]
    table = pd.DataFrame([{"machine": "h100_sxm", "dtype": "bf16", **row, "seconds": 1.0} for row in rows])
    path = tmp_path / "table.parquet"
    table.to_parquet(path)
    own = [entry[1] for entry in _predictions(path)]
    table["seconds"] = [own[0] * 2.0, own[1] / 2.0]
    table.to_parquet(path)
    (found,) = ladder.against(path, H100, 10)
    assert (found.op, found.rows) == ("gemm", 2)
    assert found.mape[1] == pytest.approx((0.5 + 1.0) / 2.0, rel=1e-6)
    assert found.bias[1] == pytest.approx((-0.5 + 1.0) / 2.0, rel=1e-6)
    assert found.mape[2] == pytest.approx(found.mape[1], abs=0.5)


def _predictions(path: Path) -> list[tuple[float, ...]]:
    """Seconds at every fidelity of each row of a table, through the errors of one-row tables whose times are one second."""
    found = []
    for position in range(2):
        table = pd.read_parquet(path).iloc[[position]]
        one = path.with_name(f"{position}.parquet")
        table.to_parquet(one)
        found.append(tuple(ladder.against(one, H100, 1)[0].worst["predicted"]))
    return found


def test_measured_times_beside_the_checkout(shared_dir: Path) -> None:
    """With few rows: the simulation is far nearer to measured GEMMs than the roofline is, and not worlds from the tile model."""
    (found,) = ladder.against(shared_dir / "measured" / "gpu_gemm.parquet", H100, 12)
    assert found.rows == 12
    assert found.mape[2] < 0.7 * found.mape[0]
    assert found.mape[2] < found.mape[1] + 0.1


def test_bad_input_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CodesignError, match="matches no kernel"):
        ladder.select(ladder.suite(), ["nothing*"])
    table = pd.DataFrame([{"machine": "a100_sxm", "dtype": "bf16", "m": 1, "n": 1, "k": 1, "seconds": 1.0}])
    table.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(CodesignError, match="no rows of h100_sxm"):
        ladder.against(tmp_path / "table.parquet", H100, 10)
    assert isinstance(run("-m", "maia100").exception, CodesignError)
    assert isinstance(run("--trace").exception, CodesignError)
