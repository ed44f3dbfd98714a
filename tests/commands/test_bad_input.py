"""Bad input gets one clear line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from codesign.command import run as run_application
from codesign.costmodel.machine import MACHINE_FOLDER
from tests.commands.invoke import ROOT, in_a_process, run

GOOD_MODEL = """
import torch
model = torch.nn.Linear(8, 4).eval()
example_inputs = (torch.randn(2, 8),)
"""


def one_line_of_cause(result: subprocess.CompletedProcess[str], *fragments: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for fragment in fragments:
        assert fragment in result.stderr, result.stderr


def test_no_such_file(tmp_path: Path) -> None:
    one_line_of_cause(in_a_process("compile", "nowhere.py", cwd=tmp_path), "nowhere.py", "no such file")


def test_two_machines_of_one_name(tmp_path: Path) -> None:
    """Both would be `h100_sxm` in every report, and the folder of one would hold the other's files."""
    (tmp_path / "model.py").write_text(GOOD_MODEL)
    copied = (MACHINE_FOLDER / "h100_sxm.toml").read_text()
    (tmp_path / "mine.toml").write_text(copied)
    both = ("--target", "h100_sxm", "--target", "mine.toml")
    one_line_of_cause(run("compile", "model.py", *both, cwd=tmp_path), "mine.toml and h100_sxm are both named")
    experiment = run("experiment", "default", "canonicalize", "-m", "model.py", *both, cwd=tmp_path)
    one_line_of_cause(experiment, "mine.toml and h100_sxm are both named")
    again = run("compile", "model.py", "--target", "h100_sxm", "--target", "h100_sxm", cwd=tmp_path)
    one_line_of_cause(again, "h100_sxm is given twice")


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--policy", "rndom"), "unknown policy 'rndom'; nearest: random"),
        (("--fusion", "gredy"), "unknown fusion policy 'gredy'; nearest: greedy"),
        (("--frontend", "torch-mlir"), "torch_mlir is not installed"),
    ],
)
def test_what_is_chosen_is_looked_for_before_the_model_is_loaded(
    arguments: tuple[str, str], cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_mlir", None)
    (tmp_path / "model.py").write_text("raise RuntimeError('loaded')\n")
    one_line_of_cause(run("compile", "model.py", *arguments, cwd=tmp_path), cause)


@pytest.mark.parametrize("chosen", ['policies = ["rndom"]', 'fusions = ["gredy"]'])
def test_a_study_looks_for_its_policies_before_models_are_loaded(chosen: str, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    (tmp_path / "model.py").write_text("raise RuntimeError('loaded')\n")
    (tmp_path / "s.toml").write_text(f'models = ["model.py"]\n{chosen}\n')
    one_line_of_cause(run("study", "run", "s.toml", cwd=tmp_path), "policy 'rndom'" if "rndom" in chosen else "'gredy'")


def test_error_inside_model_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch\n\nmodel = torch.nn.Linear(8, 1 / 0)\n")
    one_line_of_cause(in_a_process("compile", "model.py", cwd=tmp_path), "model.py:3", "ZeroDivisionError")


def test_syntax_error_inside_model(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch\nmodel = (\n")
    one_line_of_cause(run("compile", "model.py", cwd=tmp_path), "model.py:2", "SyntaxError")


def test_no_model_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("x = 1\n")
    one_line_of_cause(run("compile", "model.py", cwd=tmp_path), "model.py", "get_model")


def test_model_that_export_cannot_capture(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class M(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        if x.sum().item() > 0:\n"
        "            return x + 1\n"
        "        return x - 1\n"
        "model = M()\n"
        "example_inputs = (torch.randn(4),)\n"
    )
    one_line_of_cause(run("compile", "model.py", cwd=tmp_path), "torch.export")


def test_unknown_target_lists_nearest(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(GOOD_MODEL)
    one_line_of_cause(run("compile", "model.py", "--target", "h100_smx", cwd=tmp_path), "h100_smx", "h100_sxm")


def test_malformed_machine_file_names_the_field(tmp_path: Path) -> None:
    text = (ROOT / "costmodel" / "machines" / "h100_sxm.toml").read_text()
    (tmp_path / "model.py").write_text(GOOD_MODEL)
    (tmp_path / "mine.toml").write_text(text.replace('kind = "gpu"', 'kind = "toaster"', 1))
    one_line_of_cause(run("compile", "model.py", "--target", "mine.toml", cwd=tmp_path), "mine.toml", "kind")


def test_malformed_tile_file_shows_line_column_and_caret(tmp_path: Path) -> None:
    (tmp_path / "bad.tile").write_text("module @m\nfunc @main( {\n}\n")
    result = run("opt", "bad.tile", "--passes", "canonicalize", cwd=tmp_path)
    one_line_of_cause(result, "bad.tile:2:")
    assert any(line.strip() == "^" for line in result.stderr.splitlines())


def test_unwritable_output_directory(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(GOOD_MODEL)
    (tmp_path / "taken").write_text("a file")
    one_line_of_cause(run("compile", "model.py", "-o", "taken", cwd=tmp_path), "taken", "output directory")
    assert (tmp_path / "taken").read_text() == "a file"


@pytest.mark.parametrize("arguments", [["--budget", "0"], ["--no-such-option"], ["--bind", "batch"], []])
def test_bad_usage(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "model.py").write_text(GOOD_MODEL)
    one_line_of_cause(run("compile", *(["model.py", *arguments] if arguments else []), cwd=tmp_path))


@pytest.mark.parametrize("name", ["compile", "opt", "reduce", "simulate", "whatif"])
@pytest.mark.parametrize("seed", [-1, 1 << 70])
def test_a_seed_that_is_none(tmp_path: Path, name: str, seed: int) -> None:
    one_line_of_cause(run(name, "model.py", "--seed", str(seed), cwd=tmp_path), "--seed", "than or equal to")


@pytest.mark.parametrize("name", ["compile", "opt", "simulate", "validate", "calibrate", "ladder"])
def test_usage_names_the_command_as_the_readme_does(tmp_path: Path, name: str) -> None:
    one_line_of_cause(in_a_process(name, "--no-such-option", cwd=tmp_path), f"see `python -m codesign.{name} --help`")


def test_a_size_bound_where_all_are_fixed_says_how_to_make_some(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(GOOD_MODEL)
    one_line_of_cause(
        run("compile", "model.py", "--bind", "batch=3", cwd=tmp_path), "no dynamic size 'batch'", "--dynamic"
    )


def test_unknown_policy(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(GOOD_MODEL)
    one_line_of_cause(run("compile", "model.py", "--policy", "exhaustiv", cwd=tmp_path), "exhaustiv", "exhaustive")


def test_schedule_that_does_not_fit_says_by_how_much(tmp_path: Path) -> None:
    example = str(ROOT / "examples" / "naive_attention.py")
    quick = ("--no-verify", "--no-kernels")
    made = run("compile", example, *quick, "-o", "out", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    schedules = json.loads((tmp_path / "out" / "schedules.json").read_text())
    replayed = run("compile", example, *quick, "--schedules", "out/schedules.json", "--json", cwd=tmp_path)
    kernels = {k["name"]: k["schedule"] for k in json.loads(replayed.stdout)["kernels"]}
    assert kernels == {n: {k: v for k, v in s.items() if k != "structure"} for n, s in schedules.items()}
    for schedule in schedules.values():
        schedule["tiles"] = dict.fromkeys(schedule["tiles"], 8192)
    (tmp_path / "large.json").write_text(json.dumps(schedules))
    result = run("compile", example, *quick, "--schedules", "large.json", cwd=tmp_path)
    one_line_of_cause(result, "h100_sxm", "needs", "limit")


@pytest.mark.parametrize("rows", ["128,128,128,1e-6,bf16", "128,128,128,1e-6,bf16\n256,128,128,3e-6,bf16"])
def test_a_table_of_one_site_is_too_little_for_a_fit(tmp_path: Path, rows: str) -> None:
    (tmp_path / "table.csv").write_text(f"m,n,k,seconds,dtype\n{rows}\n")
    found = run("calibrate", "--machine", "h100_sxm", "--table", "table.csv", cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    assert "all rows of gemm are of one site" in found.stderr
    assert "--suggest" in found.stderr


def test_what_memory_does_not_hold_is_no_failure_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    application = typer.Typer()

    @application.command()
    def _too_much() -> None:
        np.zeros(1 << 60, np.uint8)

    monkeypatch.setattr(sys, "argv", ["much"])
    with pytest.raises(SystemExit) as stop:
        run_application(application, name="much")
    assert stop.value.code == 2
    assert "this computer's memory does not hold it: Unable to allocate" in " ".join(capsys.readouterr().err.split())
