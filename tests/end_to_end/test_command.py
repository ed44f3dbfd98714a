"""The compile command as a user runs it: JSON contract, files, dynamic sizes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.commands import invoke
from tests.commands.invoke import ROOT

CONTRACT = {"model", "target", "seconds", "seconds_low", "seconds_high", "energy_joules", "peak_memory_bytes"}
CONTRACT |= {"compile_seconds", "kernels", "external_calls"}
KERNEL = {"name", "count", "ops", "source", "seconds", "bound", "flops", "dram_bytes", "min_dram_bytes", "terms"}
KERNEL |= {"schedule", "files", "verified", "compiled"}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return invoke.run("compile", *arguments, cwd=cwd)


def documents(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_json_contract_and_files(tmp_path: Path) -> None:
    mlp = str(ROOT / "examples" / "mlp.py")
    result = invoke.in_a_process("compile", mlp, "-t", "h100_sxm", "--json", "-o", "out", cwd=tmp_path)
    document = documents(result)
    assert set(document) >= CONTRACT
    for kernel in document["kernels"]:
        assert set(kernel) >= KERNEL
        assert kernel["verified"]["ok"] is True
        assert kernel["compiled"]["registers"] > 0
        for path in kernel["files"].values():
            assert (tmp_path / path).stat().st_size > 0
    assert {"triton", "cubin", "ptx"} <= set(document["kernels"][0]["files"])
    assert json.loads((tmp_path / "out" / "report.json").read_text())["model"] == "mlp"


def test_several_targets_give_a_list(tmp_path: Path) -> None:
    result = run(
        str(ROOT / "examples" / "mlp.py"),
        "-t",
        "a100_sxm",
        "-t",
        "mi300x",
        "--no-verify",
        "--no-kernels",
        "--json",
        cwd=tmp_path,
    )
    assert [document["target"] for document in documents(result)] == ["a100_sxm", "mi300x"]


@pytest.mark.parametrize("form", ["tensor", "tile"])
def test_emitted_text_parses_back(tmp_path: Path, form: str) -> None:
    from codesign.ir.text import parse

    result = run(str(ROOT / "examples" / "llama_block.py"), "--emit", form, "--no-verify", "--no-kernels", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    module = parse(result.stdout)
    assert bool(module.kernels) == (form == "tile")


def test_dynamic_sizes_are_bound(tmp_path: Path) -> None:
    result = run(
        str(ROOT / "examples" / "dynamic_mlp.py"),
        "--bind",
        "batch=512",
        "--no-verify",
        "--no-kernels",
        "--json",
        cwd=tmp_path,
    )
    large = documents(result)
    result = run(str(ROOT / "examples" / "dynamic_mlp.py"), "--no-verify", "--no-kernels", "--json", cwd=tmp_path)
    small = documents(result)
    assert large["symbols"] == {"batch": 512}
    assert large["kernels"][0]["flops"] > small["kernels"][0]["flops"]
    wrong = run(str(ROOT / "examples" / "dynamic_mlp.py"), "--bind", "rows=2", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "batch" in wrong.stderr


def test_fused_matrix_product_uses_tensor_cores(tmp_path: Path) -> None:
    """bf16 GEMM with bias and activation: wgmma in the sm_90 text, and loads that run ahead of it."""
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class M(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.f = torch.nn.Linear(2048, 2048, dtype=torch.bfloat16, device='meta')\n"
        "    def forward(self, x):\n"
        "        return torch.relu(self.f(x))\n"
        "model = M()\n"
        "example_inputs = (torch.empty(4096, 2048, dtype=torch.bfloat16, device='meta'),)\n"
    )
    document = documents(run("model.py", "--no-verify", "--json", "-o", "out", cwd=tmp_path))
    (kernel,) = document["kernels"]
    assert kernel["flops"] == 2 * 4096 * 2048 * 2048
    text = (tmp_path / kernel["files"]["ptx"]).read_text()
    assert "wgmma.mma_async" in text
    assert "cp.async" in text
