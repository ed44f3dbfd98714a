"""`python -m codesign.simulate` as a user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.commands import invoke

PROGRAM = invoke.ROOT / "tests" / "backends" / "accelerator" / "matmul.casm"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return invoke.run("simulate", *arguments, cwd=cwd)


def test_one_document_with_values_and_a_trace(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.integers(-4, 5, (256, 512)) / 4).astype(np.float32)
    w = (rng.integers(-4, 5, (512, 256)) / 4).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x, w=w)
    options = ["--inputs", "in.npz", "--outputs", "out.npz", "--trace", "t.json", "--json"]
    found = invoke.in_a_process("simulate", str(PROGRAM), *options, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["machine"] == "maia100"
    assert document["instructions"] == 416
    running = document["cycles"] / document["clock_hz"]
    assert document["seconds"] == pytest.approx(running + document["launch_seconds"], rel=1e-12)
    assert document["energy_joules"] == pytest.approx(sum(document["energy_by"].values()))
    assert 0 < document["engines"]["tensor"]["utilisation"] < 1
    assert np.array_equal(np.load(tmp_path / "out.npz")["y"], x @ w), "exact: all sums fit f32"
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_what_if_of_a_figure_and_a_report_for_people(tmp_path: Path) -> None:
    base = run(str(PROGRAM), "--no-values", "--json", cwd=tmp_path)
    slow = run(str(PROGRAM), "--no-values", "--json", "--set", "levels.dram.bandwidth=2e10", cwd=tmp_path)
    assert json.loads(slow.stdout)["cycles"] > 2 * json.loads(base.stdout)["cycles"]
    report = run(str(PROGRAM), "--no-values", "-o", "out", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    for words in ("@matmul on maia100", "tensor", "of its bandwidth", "energy", "matmul.trace.json"):
        assert words in report.stdout
    assert (tmp_path / "out" / "matmul.trace.json").stat().st_size > 1000


def test_a_damaged_archive_of_inputs_is_one_line(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "in.npz", x=np.arange(10_000))
    whole = (tmp_path / "in.npz").read_bytes()
    np.save(tmp_path / "one.npy", np.arange(3))
    damaged = {
        "deflated": whole[: len(whole) // 3] + b"\xff" * 64 + whole[len(whole) // 3 + 64 :],
        "cut": whole[: len(whole) // 2],
        "unpacked": whole.replace(b"PK\x01\x02", b"PK\x01\x02\x14\x00\x14\x00\x01\x00", 1),  # said to be encrypted
        "array": (tmp_path / "one.npy").read_bytes(),
        "empty": b"",
    }
    for name, data in damaged.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        found = run(str(PROGRAM), "--inputs", str(path), cwd=tmp_path)
        assert found.returncode == 2, (name, found.stderr)
        assert found.stderr.startswith(f"error: {path}: not an .npz of arrays: "), found.stderr
        assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["nowhere.casm"], ["nowhere.casm", "no such file"]),
        (["{}", "-m", "maia10"], ["unknown machine 'maia10'", "maia100"]),
        (["{}", "-m", "h100_sxm"], ["h100_sxm is not a dataflow machine", "maia100"]),
        (["{}", "--set", "levels.dram.bandwith=1"], ["is not a figure", "levels.dram.bandwidth"]),
        (["{}", "--set", "bandwidth"], ["needs FIGURE=NUMBER"]),
        (["{}", "--program", "other"], ["no program @other", "it has matmul"]),
        (["{}", "--trace", "no/such/folder.json"], ["the trace can't be written"]),
        (["huge.casm"], ["@matmul: dram memory: its inputs and results need", "of maia100"]),
        (["wide.casm"], ["wide.casm:2:", f"{10**20} does not fit into 64 bits"]),
        (["lanes.casm"], ["vector out: its 64 lanes along 'm' write one place of out"]),
        (["bad.casm"], ["bad.casm:1:9", "unexpected"]),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: list[str], fragments: list[str]) -> None:
    (tmp_path / "bad.casm").write_text("program matmul")
    (tmp_path / "lanes.casm").write_text(PROGRAM.read_text().replace("vector out[m, n]", "vector out[0, n]"))
    (tmp_path / "wide.casm").write_text(PROGRAM.read_text().replace("[256, 512]", f"[{10**20}, 512]"))
    (tmp_path / "huge.casm").write_text(PROGRAM.read_text().replace("f32[256, 256]", f"f32[256, {10**15}]"))
    found = run(*(argument.format(PROGRAM) for argument in arguments), cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    for fragment in fragments:
        assert fragment in found.stderr


def test_a_deadlock_is_an_answer_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "stuck.casm").write_text(PROGRAM.read_text().replace("signal multiplied", ""))
    found = run("stuck.casm", "--no-values", "--json", cwd=tmp_path)
    assert found.returncode == 2
    assert "waits for multiplied >= 1, which is 0" in found.stderr
