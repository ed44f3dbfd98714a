"""Kernel launches and bytes beside TorchInductor's, without a GPU: `python benchmarks/launches.py [NAME ...]`: of examples/real, or of
benchmarks/models.

Inductor makes Triton code for a named target of compute capability 9.0 through a driver that owns no device, and stops before anything runs;
calls of libraries count as launches. Its bytes are those that it counts itself: what each kernel reads and writes, once. Ours are counted alike
(`bytes`: the distinct elements that each kernel touches), beside what the cost model has DRAM move, and the least possible: inputs, weights and
results. Attention is traced as products and a softmax (`--library-attention`: left to Inductor as a call).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("mlp", "llama_block", "gpt2", "bert", "resnet")
LAUNCH = re.compile(r"^\s+triton_\w+?\.run\(", re.MULTILINE)
CALL = re.compile(r"extern_kernels\.\w+\(|torch\.ops\.aten\.[\w.]+\(")


class Stopped(Exception):
    """Code was made; nothing is to be run."""


class NoDevice:
    """What Inductor asks of a Triton driver, answered for a GPU that is not there."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_device_interface(self) -> Any:
        import torch

        return torch.cuda

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")


def inductor(path: Path, library_attention: bool) -> dict[str, float]:
    """What Inductor makes of a model, in this process, which is of no other use afterwards."""
    import torch
    from torch._inductor import async_compile, config
    from torch._inductor.graph import GraphLowering
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from triton.runtime import driver

    from codesign.frontend import load_model

    driver.set_active(NoDevice())
    async_compile.AsyncCompile.triton = lambda self, *args, **more: lambda *inputs, **others: None  # type: ignore[method-assign]
    config.cpu_backend, config.compile_threads, config.fx_graph_cache = "triton", 1, False
    generate: Callable[..., Any] = GraphLowering.codegen
    launches, moved = 0, 0.0

    def made(self: Any) -> Any:
        nonlocal launches, moved
        code = generate(self)[0]
        text = code.value if hasattr(code, "value") else str(code)
        launches += len(LAUNCH.findall(text)) + len(CALL.findall(text))
        moved += float(self.count_bytes()[0])
        raise Stopped

    GraphLowering.codegen = made  # type: ignore[method-assign]
    source = load_model(path)
    model, inputs = here(source.model), [here(each) for each in source.inputs]
    scope = nullcontext() if library_attention else sdpa_kernel(SDPBackend.MATH)
    compiled: Callable[..., Any] = torch.compile(model)
    with torch.no_grad(), scope:
        try:
            compiled(*inputs, **{name: here(value) for name, value in source.kwargs.items()})
        except Exception:
            if not launches:
                raise
    return {"launches": launches, "bytes": moved}


def here(value: Any) -> Any:
    """A model or a tensor of the meta device with memory of its own, whatever is in it."""
    import torch

    if isinstance(value, torch.nn.Module):
        on_meta = any(tensor.is_meta for tensor in (*value.parameters(), *value.buffers()))
        return value.to_empty(device="cpu") if on_meta else value
    if isinstance(value, torch.Tensor) and value.is_meta:
        return torch.zeros(value.shape, dtype=value.dtype)
    return value


def ours(path: Path, target: str, fusion: str) -> dict[str, float]:
    """What this compiler makes of it."""
    from codesign import pipeline
    from codesign.command import Steps
    from codesign.costmodel.machine import load_machine
    from codesign.report import launch_count

    options, steps = pipeline.Options(fusion=fusion, verify=False, kernels=False), Steps(None)
    document = pipeline.compile_for(
        pipeline.capture(path, options, steps), load_machine(target), options, steps
    ).document
    calls = sum(call.count for call in document.external_calls)
    return {
        "launches": launch_count(document) + calls,
        "bytes": sum(kernel.min_dram_bytes * kernel.count for kernel in document.kernels),
        "dram_bytes": sum(kernel.dram_bytes * kernel.count for kernel in document.kernels),
        "least_bytes": document.input_bytes + document.constant_bytes + document.output_bytes,
        "seconds": document.seconds,
    }


def compared(name: str, target: str, fusion: str, library_attention: bool) -> dict[str, Any]:
    """Both for one model; Inductor in a process of its own."""
    places = [folder / f"{name}.py" for folder in (ROOT / "examples" / "real", ROOT / "benchmarks" / "models")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise SystemExit(f"no model {name!r} in examples/real or benchmarks/models")
    argv = [sys.executable, __file__, "--inductor", str(path), *(["--library-attention"] if library_attention else [])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: Inductor failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    theirs, mine = json.loads(done.stdout.splitlines()[-1]), ours(path, target, fusion)
    ratios = {figure: mine[figure] / theirs[figure] for figure in ("launches", "bytes")}
    return {"model": name, "inductor": theirs, "codesign": mine, "ratio": ratios}


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Geometric means of the ratios."""
    return {
        figure: round(math.exp(sum(math.log(row["ratio"][figure]) for row in rows) / len(rows)), 3)
        for figure in ("launches", "bytes")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--target", default="h100_sxm")
    parser.add_argument("--fusion", default="greedy")
    parser.add_argument("--library-attention", action="store_true")
    parser.add_argument("--inductor", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inductor is not None:
        print(json.dumps(inductor(given.inductor, given.library_attention)))
        return
    rows = []
    for name in given.names:
        rows.append(compared(name, given.target, given.fusion, given.library_attention))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "launches", "rows": rows, "geometric_mean": means(rows)}, indent=1))


if __name__ == "__main__":
    main()
