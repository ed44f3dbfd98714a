"""Every example in examples/, captured and run by the interpreter, against eager torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codesign.frontend import capture, load_model
from codesign.ir.dtypes import BF16
from codesign.ir.tensor import Call
from codesign.ir.types import TensorType
from tests.frontend.checks import assert_close, assert_wellformed, run

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = sorted(p for p in (ROOT / "examples").glob("*.py") if not p.name.startswith("_"))
REAL = sorted(p for p in (ROOT / "examples" / "real").glob("*.py") if not p.name.startswith("_"))


def test_there_are_examples() -> None:
    assert {"mlp", "naive_attention", "llama_block", "gpt2", "bert", "resnet", "moe"} <= {p.stem for p in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_values(path: Path) -> None:
    text = path.read_text()
    if "example_inputs" not in text and "get_inputs" not in text:
        pytest.skip("not a model file")
    if "transformers" in text:
        pytest.importorskip("transformers")
    source = load_model(path)
    captured = capture(source)
    assert not any(isinstance(op, Call) for op in captured.module.main.body.walk()), captured.warnings
    assert_wellformed(captured.module)
    with torch.no_grad():
        expected = source.model(*source.inputs, **source.kwargs)
    assert_close(run(captured, source.inputs, source.kwargs), expected, rtol=1e-4, atol=1e-5)


QUICK = ("gpt2", "llama_block", "moe")
REAL_SIZES = [path if path.stem in QUICK else pytest.param(path, marks=pytest.mark.slow) for path in REAL]


@pytest.mark.parametrize("path", REAL_SIZES, ids=lambda p: p.stem)
def test_real_sizes_without_data_and_in_time(path: Path) -> None:
    """Meta models capture without data, and our own part after torch is a small share of it."""
    if "gpt2" in path.stem:
        pytest.importorskip("transformers")
    captured = capture(load_model(path))
    assert captured.module.constants == {}
    assert captured.warnings == []
    results = [result.type for result in captured.module.main.results]
    assert all(isinstance(kind, TensorType) and kind.dtype is BF16 for kind in results)
    ops = len(captured.module.main.body.ops)
    assert captured.seconds["lower"] < 0.01 * ops, f"{captured.seconds['lower']:.1f} s for {ops} ops"


def test_lines_of_the_llama_block() -> None:
    """Kernels are explained by the model's own lines: the SwiGLU product names the line that writes it."""
    path = ROOT / "examples" / "llama_block.py"
    captured = capture(load_model(path))
    lines = path.read_text().splitlines()
    silu = [
        op for op in captured.module.main.body.ops if "silu" in op.location.origin or "sigmoid" in op.location.origin
    ]
    assert silu
    for op in silu:
        assert op.location.file.endswith("llama_block.py")
        assert "silu" in lines[op.location.line - 1]
