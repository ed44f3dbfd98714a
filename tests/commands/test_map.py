"""`python -m codesign.map`: the best mapping, a given one, and one beside AccelForge's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from codesign import map as mapping
from codesign.command import run
from codesign.costmodel.mapping import gemm


def mapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["codesign.map", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run(mapping.application, name="python -m codesign.map")
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, " ".join(captured.err.split())


def test_what_it_finds_is_priced_the_same_when_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--machine", "accelforge_nvdla", "--gemm", "64,96,64")
    code, out, _ = mapped(monkeypatch, capsys, *where, "--json")
    found = json.loads(out)
    assert code == 0
    assert (
        found["dram"]["bytes"]
        >= found["dram"]["least_bytes"]
        >= found["dram"]["compulsory_bytes"]
        == 64 * 96 * 2 + 64 * 64
    )
    given = tmp_path / "given.json"
    given.write_text(json.dumps(found["schedule"]))
    code, out, _ = mapped(monkeypatch, capsys, *where, "--mapping", given, "--json")
    again = json.loads(out)
    assert code == 0
    assert {key: again[key] for key in ("seconds", "joules", "levels")} == {
        key: found[key] for key in ("seconds", "joules", "levels")
    }


def test_a_prime_size_costs_little_more_than_the_size_above_it_and_its_mapping_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--machine", "accelforge_nvdla", "--json", "--gemm")
    _, out, _ = mapped(monkeypatch, capsys, *where, "127,251,127")
    prime = json.loads(out)
    _, out, _ = mapped(monkeypatch, capsys, *where, "128,256,128")
    above = json.loads(out)
    assert prime["filled"] == {"m": 128, "n": 256, "k": 128}
    assert (prime["seconds"], prime["levels"]) == (above["seconds"], above["levels"])
    assert prime["utilisation"] < above["utilisation"]
    assert prime["dram"]["compulsory_bytes"] == 127 * 127 + 127 * 251 * 2
    given = tmp_path / "given.json"
    given.write_text(json.dumps(prime["schedule"]))
    code, out, _ = mapped(monkeypatch, capsys, *where, "128,256,128", "--mapping", given)
    assert (code, json.loads(out)["seconds"]) == (0, prime["seconds"])


@pytest.mark.parametrize(("size", "filled"), [(1, 1), (7, 7), (17, 18), (31, 32), (1009, 1024), (1024, 1024)])
def test_a_size_is_filled_up_by_a_sixteenth_at_the_most(size: int, filled: int) -> None:
    assert gemm(size, 3, 4, "i8", 1.0).filled().extents == {"m": filled, "k": 4, "n": 3}


def test_a_result_of_accelforge_is_set_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {
        "arch": "nvdla",
        "jinja": {"N_EINSUMS": 1, "M": 1024, "KN": 1024},
        "metric": "M.ENERGY",
        "energy_J": 0.0010062470533369848,
        "latency_s": 0.0003549866669345647,
        "wall_s": 8.4,
        "actions": {"('MAC', 'compute')": 1073741824.0},
        "actions_tensor": {"('Register', 'W0', 'read')": 8589934592.0, "('GlobalBuffer', 'T0', 'read')": 268435456.0},
    }
    path = tmp_path / "nvdla.json"
    path.write_text(json.dumps(result))
    code, out, _ = mapped(monkeypatch, capsys, "--against", path, "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["objective"] == "energy"
    assert row["joules_ratio"] == pytest.approx(1.0, abs=1e-6)
    assert row["seconds_ratio"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which machine?"),
        (("--machine", "accelforge_nvdla"), "which product?"),
        (("--machine", "accelforge_nvdla", "--gemm", "64,64"), "needs three sizes"),
        (
            ("--machine", "accelforge_nvdla", "--gemm", "8,8,8", "--objective", "area"),
            "no 'area'; known: energy, latency, edp",
        ),
        (("--machine", "h100_sxm", "--gemm", "8,8,8", "--dtype", "bf16"), "h100_sxm is a gpu"),
        (("--machine", "accelforge_nvdla", "--gemm", f"{10**20},8,8"), "m: needs a size from 1 to"),
        (("--against", "nowhere.json"), "no AccelForge result"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = mapped(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
