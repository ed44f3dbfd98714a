"""`python -m codesign.opt`: output that parses back, one-line errors with exit code 2, JSON, bisection, printing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from codesign import opt
from codesign.ir import equal
from codesign.ir.text import parse, print_module
from codesign.passes import PASSES, optimize
from tests.passes import models
from tests.passes.test_manager import _Spoil


@pytest.fixture
def softmax_file(tmp_path: Path) -> Path:
    path = tmp_path / "softmax.tile"
    path.write_text(print_module(models.softmax()), encoding="utf-8")
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["codesign.opt", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        opt.main()
    code = stop.value.code
    assert isinstance(code, int)
    return code


def test_the_printed_module_is_what_the_passes_make(
    softmax_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = "canonicalize,fold-views,cse,dce,fuse{prices=roofline}"
    assert run(monkeypatch, softmax_file, "--passes", pipeline, "--verify-each", "--timings") == 0
    captured = capsys.readouterr()
    assert equal(parse(captured.out), optimize(models.softmax(), pipeline=pipeline))
    assert "fuse{prices=roofline}" in captured.err  # the table of timings


def test_json_has_the_module_and_nothing_else(
    softmax_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, softmax_file, "--passes", "cse,dce", "--verify-each", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in document["passes"]] == ["cse", "dce"]
    assert [entry["largest"] for entry in document["differences"]] == [0.0, 0.0]
    assert "func @main" in document["module"]
    assert run(monkeypatch, softmax_file, "--passes", "", "--json", "-o", tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["module"] is None
    assert Path(document["output"]).read_text(encoding="utf-8").startswith("module")


def test_tiling_prints_kernels(
    softmax_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = "canonicalize,fuse,plan-memory,tile"
    assert run(monkeypatch, softmax_file, "--passes", pipeline, "--verify-each", "--target", "a100_sxm") == 0
    captured = capsys.readouterr()
    assert "kernel @" in captured.out
    assert "0 intermediates" in captured.err  # of one kernel from input to result


def test_a_model_is_sent_to_the_command_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.py").write_text("model = None\n")
    assert run(monkeypatch, tmp_path / "m.py", "--passes", "dce") == 2
    assert "a model, and not a .tile file; python -m codesign.compile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--passes", "canonicalise"], ["--passes column 1: unknown pass 'canonicalise'", "nearest: canonicalize"]),
        (["--passes", "dce,fuse{policy=greedier}"], ["unknown fusion policy 'greedier'", "greedy"]),
        (["--target", "h100"], ["unknown machine 'h100'", "h100_sxm"]),
        (["--print-after", "fold"], ["--print-after: unknown pass 'fold'", "fold-views"]),
        (["--stop-after", "x"], ["--stop-after"]),
    ],
)
def test_bad_usage(
    softmax_file: Path,
    arguments: list[str],
    fragments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, softmax_file, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len([line for line in captured.err.splitlines() if line.startswith("error:")]) == 1
    for fragment in fragments:
        assert fragment in captured.err


def test_a_malformed_file_shows_line_column_and_caret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.tile"
    path.write_text("module @m\n\nfunc @main(%x: f32[4]) {\n  %y = compute f32[i: 4 { %x[i] }\n  return %y\n}\n")
    assert run(monkeypatch, path) == 2
    error = capsys.readouterr().err
    assert f"{path}:4:25" in error
    assert error.splitlines()[-1] == " " * 24 + "^"
    assert run(monkeypatch, tmp_path / "none.tile") == 2
    assert "no such file" in capsys.readouterr().err


def test_a_file_that_breaks_a_rule_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "outside.tile"
    path.write_text("module @m\n\nfunc @main(%x: f32[4]) {\n  %y = compute f32[i: 4] { %x[i + 1] }\n  return %y\n}\n")
    assert run(monkeypatch, path, "--passes", "") == 2
    assert "%y" in capsys.readouterr().err


def test_printing_around_passes_and_stopping(
    softmax_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--passes", "cse,dce,canonicalize", "--print-before", "dce", "--print-after", "*", "--stop-after", "2")
    assert run(monkeypatch, softmax_file, *arguments) == 0
    error = capsys.readouterr().err
    assert [line for line in error.splitlines() if line.startswith("//")] == [
        "// after pass 1: cse",
        "// before pass 2: dce",
        "// after pass 2: dce",
    ]


def test_bisection_names_the_first_wrong_pass(
    softmax_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PASSES, "spoil", _Spoil)
    assert run(monkeypatch, softmax_file, "--bisect", "--passes", "canonicalize,cse,spoil,dce") == 1
    assert capsys.readouterr().out == "pass 3 (spoil) is the first to change the results\n"
    assert run(monkeypatch, softmax_file, "--bisect", "--passes", "canonicalize,cse,dce") == 0
    assert "all 3 passes keep the results" in capsys.readouterr().out


def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in document["passes"]} == set(PASSES)
    assert run(monkeypatch, "--list") == 0
    assert "fold-views" in capsys.readouterr().out
