"""Seconds to compile real models, by phase: `python benchmarks/compile_time.py [NAME ...]` (from examples/real; GPT-2 small by default).

"own" is everything after `torch.export` and torch's decompositions return: lowering, passes, scheduling, tiling, kernel compilation.
"cpu_seconds" are those of all processes, which other work on the machine changes less than seconds of the clock, and "own_cpu_seconds" those of
them after capture.
Kernels come from empty caches, ours and Triton's; nothing is verified.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TORCH_PHASES = ("load", "export", "decompose")


def measure(name: str, target: str) -> dict[str, Any]:
    """One model compiled once for one machine."""
    from codesign import pipeline
    from codesign.command import Steps
    from codesign.costmodel.machine import load_machine
    from codesign.report import launch_count

    options, steps, before = pipeline.Options(verify=False), Steps(None), _cpu_seconds()
    model = pipeline.capture(ROOT / "examples" / "real" / f"{name}.py", options, steps)
    captured = _cpu_seconds()
    document = pipeline.compile_for(model, load_machine(target), options, steps).document
    done = _cpu_seconds()
    own = {phase: seconds for phase, seconds in document.phases.items() if phase not in TORCH_PHASES}
    return {
        "model": name,
        "target": target,
        "seconds": round(document.compile_seconds, 2),
        "cpu_seconds": round(done - before, 2),
        "own_cpu_seconds": round(done - captured, 2),
        "own_seconds": round(sum(own.values()), 2),
        "own_without_triton_seconds": round(sum(s for p, s in own.items() if p != "kernels"), 2),
        "phases": {phase: round(seconds, 2) for phase, seconds in document.phases.items()},
        "kernels": len(document.kernels),
        "launches": launch_count(document),
    }


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["gpt2"])
    parser.add_argument("--target", default="h100_sxm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CODESIGN_CACHE"] = cache
        os.environ["TRITON_CACHE_DIR"] = str(Path(cache) / "triton-own")
        rows = [measure(name, arguments.target) for name in arguments.names]
    host = {"cores": os.cpu_count(), "machine": platform.machine(), "date": date.today().isoformat()}
    print(json.dumps({"benchmark": "compile_time", "host": host, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
