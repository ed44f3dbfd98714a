"""`python -m codesign.validate` on an accelerator: each product of a table against the model at its own best schedule."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from codesign import validate
from codesign.command import run
from codesign.costmodel.machine import load_machine
from codesign.costmodel.workloads import product_group
from codesign.passes.schedule.tuner import Tuner


def validated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["codesign.validate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run(validate.application, name="python -m codesign.validate")
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, " ".join(captured.err.split())


def test_errors_are_those_of_the_machines_own_prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times that are the model's own but for known factors: the report gives those factors back."""
    machine = load_machine("maia100")
    shapes, factors = [(64, 128, 256), (512, 64, 128), (64, 128, 256)], [1.0, 2.0, 0.5]
    tuner, rows = Tuner(machine), []
    for (m, n, k), factor in zip(shapes, factors, strict=True):
        rows.append(f"maia100,gemm,bf16,{m},{n},{k},{tuner.tune(product_group('bf16', m, n, k)).seconds / factor!r}")
    text = "\n".join(
        ["machine,op,dtype,m,n,k,seconds", *rows, "maia100,softmax,bf16,64,64,0,1e-6", "other,gemm,bf16,8,8,8,1"]
    )
    (tmp_path / "t.csv").write_text(text)
    code, out, _ = validated(monkeypatch, capsys, tmp_path / "t.csv", "--machine", "maia100", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["remarks"] == ["kind gemm does not price 1 of 4 rows: softmax (1)"]
    (op,) = document["ops"]
    assert (op["op"], op["rows"]) == ("gemm", 3)
    assert op["mape"] == pytest.approx((0 + 1 + 0.5) / 3, abs=1e-3)
    assert op["bias"] == pytest.approx((0 + 1 - 0.5) / 3, abs=1e-3)
    assert op["coverage"] == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m,n,k,seconds\n8,0,8,1e-6\n", "t.csv: row 1, column 'n': needs a number from 1"),
        ("machine,m,n,k,seconds\nother,8,8,8,1e-6\n", "no rows of maia100 in the table"),
        (
            "num_tokens,n_embd,seconds\n8,8,1e-6\n",
            "t.csv: taken for a table of kind transformer, which needs the columns",
        ),
        ("m,n,k,dtype,seconds\n8,8,8,f17,1e-6\n", "dtype 'f17' is not known"),
    ],
)
def test_what_is_wrong_is_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    code, _, err = validated(monkeypatch, capsys, tmp_path / "t.csv", "--machine", "maia100")
    assert code == 2
    assert message in err
    assert "Traceback" not in err
