"""Every example: captured, every kernel verified in Triton's interpreter, the whole model equal to torch, every kernel compiled."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from codesign import execution, pipeline
from codesign.command import Steps
from codesign.costmodel.machine import load_machine
from codesign.document import ModelDocument
from codesign.ir.dtypes import F32
from codesign.ir.scalar import Read, apply, literal
from codesign.ir.tile import Map, Store

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ["mlp", "naive_attention", "llama_block", "gpt2", "bert", "resnet", "moe", "dynamic_mlp"]
ON_ACCELERATOR = ["mlp", "naive_attention", pytest.param("llama_block", marks=pytest.mark.slow)]


@cache
def captured(name: str) -> pipeline.Model:
    """Once for all targets, as the command does it."""
    return pipeline.capture(ROOT / "examples" / f"{name}.py", pipeline.Options(), Steps(None))


def compiled(name: str, target: str, options: pipeline.Options) -> pipeline.Compilation:
    return pipeline.compile_for(captured(name), load_machine(target), options, Steps(None))


def check_predictions(document: ModelDocument) -> None:
    assert document.seconds_low <= document.seconds <= document.seconds_high
    for kernel in document.kernels:
        assert sum(kernel.terms.values()) == pytest.approx(kernel.seconds, rel=1e-6)
        assert kernel.seconds >= kernel.roofline_seconds * (1 - 1e-9)
        assert kernel.dram_bytes > 0
        assert kernel.ops
        assert kernel.source


LONG = [pytest.param(name, marks=pytest.mark.slow) if name in ("resnet", "bert", "gpt2") else name for name in EXAMPLES]


@pytest.mark.parametrize("name", LONG)
def test_on_gpu(name: str) -> None:
    document = compiled(name, "h100_sxm", pipeline.Options(seed=3)).document
    for kernel in document.kernels:
        assert kernel.verified is not None
        assert kernel.verified.ok, f"{kernel.name}: {kernel.verified}"
        assert kernel.compiled is not None
        assert kernel.compiled.error is None, f"{kernel.name}: {kernel.compiled.error}"
        assert kernel.compiled.arch == "sm_90"
        assert (kernel.compiled.registers or 0) > 0
    assert document.verified is not None
    assert document.verified.against == "torch"
    assert document.verified.ok, document.verified
    check_predictions(document)


@pytest.mark.parametrize("name", ON_ACCELERATOR)
def test_on_simulated_accelerator(name: str) -> None:
    document = compiled(name, "maia100", pipeline.Options(seed=4)).document
    for kernel in document.kernels:
        assert kernel.verified is not None
        assert kernel.verified.ok, f"{kernel.name}: {kernel.verified}"
        assert kernel.compiled is not None
        assert kernel.compiled.error is None, f"{kernel.name}: {kernel.compiled.error}"
    assert document.verified is not None
    assert document.verified.ok, document.verified
    check_predictions(document)


@pytest.mark.slow
def test_identical_layers_share_kernels() -> None:
    document = compiled(
        "real/gpt2", "h100_sxm", pipeline.Options(verify=False, kernels=False, policy="random", budget=16)
    ).document
    launches = sum(kernel.count for kernel in document.kernels)
    assert len(document.kernels) < 16
    assert launches > 4 * len(document.kernels)
    assert any(kernel.count >= 12 for kernel in document.kernels)


def test_many_reductions_of_one_tensor(tmp_path: Path) -> None:
    """Siblings of several dtypes and chains, which greedy fusion merges in an order of its own."""
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        half = x.half()\n"
        "        return x.abs().max(), (x > 0).sum(), x.double().std(), x.argmax(), half @ half.t()\n"
        "def get_init_inputs(): return []\n"
        "def get_inputs(): return [torch.randn(37, 53)]\n"
    )
    options, steps = pipeline.Options(kernels=False), Steps(None)
    model = pipeline.capture(tmp_path / "model.py", options, steps)
    document = pipeline.compile_for(model, load_machine("h100_sxm"), options, steps).document
    assert document.verified is not None
    assert document.verified.ok, document.verified


def test_a_wrong_kernel_is_caught() -> None:
    """Verification can fail: a kernel that adds one to what it stores makes the whole model disagree."""
    model = captured("mlp")
    made = compiled("mlp", "h100_sxm", pipeline.Options(verify=False, kernels=False))

    def check() -> bool:
        found = execution.verify(model.source, model.captured, made.tiled, made.kernels, made.backend, {}, 0)
        return found is not None and found.ok

    assert check()
    body = next(iter(made.kernels.values())).kernel.body
    store = next(op for op in body.ops if isinstance(op, Store))
    wrong = apply("add", Read(store.value, [axis.name for axis in store.axes]), literal(1.0, F32))
    tampered = Map(store.axes, wrong, name="tampered")
    body.ops.insert(body.ops.index(store), tampered)
    store.value = tampered.result
    assert not check()
