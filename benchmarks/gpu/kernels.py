"""Measures compiled models on a CUDA device against torch eager and torch.compile; needs the device, and writes what it found.

    python benchmarks/gpu/kernels.py                 # all cases, results in benchmarks/results/gpu_kernels_<device>_<date>.json

Each entry is the median over repetitions of one call, by CUDA events, after warm-up, with L2 flushed between calls; `predicted_seconds` is
what the cost model said for the same launches. Nothing here has an expected value: it exists to compare prediction with measurement.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codesign.backends.triton import worker as protocol
from codesign.backends.triton.dynamo import machine_at_hand
from codesign.backends.triton.runner import write_runner
from codesign.backends.verification import difference
from codesign.frontend import capture
from codesign.passes.context import Context
from codesign.passes.lowering import tile_module
from codesign.passes.pipeline import optimize
from codesign.passes.schedule.tuner import Tuner

RESULTS = Path(__file__).resolve().parent.parent / "results"
FLUSH_BYTES = 256 << 20


class Linear(nn.Module):
    """A matrix product with bias and GELU."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.layer = nn.Linear(k, n)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.layer(x))


class Softmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.weight


def cases() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Name -> model and inputs, in bfloat16 on the device."""
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
    for m, n, k in ((4096, 4096, 4096), (8192, 8192, 8192), (4096, 14336, 4096), (512, 4096, 4096), (16, 4096, 4096)):
        found[f"linear_gelu_{m}x{n}x{k}"] = (Linear(k, n), (m, k))
    found["softmax_16384x4096"] = (Softmax(), (16384, 4096))
    found["rms_norm_16384x4096"] = (RmsNorm(4096), (16384, 4096))
    return {
        name: (model.to("cuda", torch.bfloat16).eval(), (torch.randn(*shape, device="cuda", dtype=torch.bfloat16),))
        for name, (model, shape) in found.items()
    }


def seconds(call: Callable[[], Any], repetitions: int) -> float:
    """Median seconds of a call on the device, with the caches flushed before each."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(3):
        call()
    times = []
    for _ in range(repetitions):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(statistics.median(times))


def measure(model: nn.Module, inputs: tuple[Tensor, ...], repetitions: int) -> dict[str, Any]:
    """One case: ours, torch eager, torch.compile, and what was predicted."""
    machine = machine_at_hand()
    captured = capture(model, inputs)
    tuner = Tuner(machine)
    module = optimize(captured.module, Context(machine=machine, pricer=tuner.price))
    infos = tile_module(module, tuner)
    with tempfile.TemporaryDirectory() as folder:
        written = write_runner(module, None, folder, target=machine.name)
        runner = protocol.load_file(str(written.path)).Runner(dict(model.state_dict()), device="cuda")
        with torch.no_grad():
            expected = model(*inputs)
            (actual,) = runner(*inputs)
            error, _ = difference(expected.double().cpu().numpy(), actual.double().cpu().numpy())
            compiled = torch.compile(model, mode="max-autotune-no-cudagraphs")
            return {
                "machine": machine.name,
                "seconds": seconds(lambda: runner(*inputs), repetitions),
                "eager_seconds": seconds(lambda: model(*inputs), repetitions),
                "inductor_seconds": seconds(lambda: compiled(*inputs), repetitions),
                "predicted_seconds": sum(info.tuned.seconds * info.count for info in infos.values()),
                "max_error": error,
                "kernels": {
                    name: {
                        "count": info.count,
                        "schedule": info.tuned.schedule.to_json(),
                        "predicted": info.tuned.seconds,
                    }
                    for name, info in infos.items()
                },
            }


def main() -> int:
    """Measure, print a line per case, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--json", action="store_true", help="print the document too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured", file=sys.stderr)
        return 2
    results = {}
    for name, (model, inputs) in cases().items():
        if options.only in name:
            results[name] = found = measure(model, inputs, options.repetitions)
            print(
                f"{name:32} {found['seconds'] * 1e6:9.1f} us   eager {found['eager_seconds'] * 1e6:9.1f}   "
                f"inductor {found['inductor_seconds'] * 1e6:9.1f}   predicted {found['predicted_seconds'] * 1e6:9.1f}",
                file=sys.stderr,
            )
    import triton

    device, today = torch.cuda.get_device_name(), datetime.date.today().isoformat()
    document = {
        "date": today,
        "device": device,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "repetitions": options.repetitions,
        "cases": results,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"gpu_kernels_{re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')}_{today}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)
    if options.json:
        print(json.dumps(document))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
