"""Exported programs as files: the same IR as from the module, and nothing in the file is run."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from codesign.frontend import capture, load_model
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate


class Counting(torch.nn.Module):
    """A weight, a buffer that is no state, a buffer that is written, and an input by keyword."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 4)
        self.register_buffer("shift", torch.arange(4.0), persistent=False)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return torch.softmax(self.linear(x) * scale + self.shift, -1).reshape(-1, 2)[::3]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {"x": {0: batch}, "scale": None}
    program = torch.export.export(
        Counting(), (torch.randn(3, 6),), {"scale": torch.full((4,), 0.5)}, dynamic_shapes=shapes
    )
    path = tmp_path_factory.mktemp("archive") / "counting.pt2"
    torch.export.save(program, path)
    return path


def test_the_program_of_an_archive_gives_torch_s_numbers_at_any_batch(archive: Path) -> None:
    source = load_model(archive)
    captured = capture(source)
    assert (source.name, captured.method) == ("counting", "an exported program")
    assert [m.kind for m in captured.mutations] == ["buffer"]
    assert [(s.low, s.high) for s in captured.module.symbols.values()] == [(2, 64)]
    for rows in (3, 7):
        x, scale = torch.randn(rows, 6), source.kwargs["scale"]
        results = evaluate(captured.module, captured.flatten_inputs((x,), {"scale": scale}))
        expected = source.model(x, scale=scale).detach()
        np.testing.assert_allclose(captured.unflatten_outputs(results), expected, rtol=1e-5, atol=1e-6)


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with some of its entries changed."""
    other = path.with_name("other.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return other


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_with_code_is_not_run(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = io.BytesIO()
    torch.save(Bomb(), bomb)
    path = rewritten(archive, lambda name, data: bomb.getvalue() if "sample_inputs" in name else data)
    with pytest.raises(CodesignError):
        load_model(path)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("size", ["exec('1')", "open(x)", "s77.__class__", "().__class__", "[s77]"])
def test_sizes_that_are_not_arithmetic_are_refused(archive: Path, size: str) -> None:
    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        text = json.dumps(json.loads(data))
        found = re.search(r'"expr_str": "([^"]*)"', text)
        assert found is not None
        return text.replace(found[1], size).encode()

    with pytest.raises(CodesignError, match="not arithmetic"):
        load_model(rewritten(archive, change))


def test_a_program_that_calls_what_is_no_operator_is_refused(archive: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(b"torch.ops.aten.softmax.int", b"torch.hub.load")

    with pytest.raises(CodesignError):
        load_model(rewritten(archive, change))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04"])
def test_what_is_no_archive_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt2"
    path.write_bytes(content)
    with pytest.raises(CodesignError, match="not an archive") as failure:
        load_model(path)
    assert "torch.export.save" in (failure.value.hint or "")


def test_weights_alone_are_no_program(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt2"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(CodesignError, match="can't read this archive"):
        load_model(path)


def test_an_archive_without_inputs_says_so(archive: Path) -> None:
    program = load_model(archive).program
    assert program is not None
    program.example_inputs = None
    path = archive.with_name("without.pt2")
    torch.export.save(program, path)
    with pytest.raises(CodesignError, match="no example inputs"):
        load_model(path)
