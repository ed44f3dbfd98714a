"""A what-if sweep against one compile: `OMP_NUM_THREADS=1 python benchmarks/whatif_rate.py [MODEL.py]`, a Llama layer of real size by default.

CPU seconds: one compile without kernels or verification (of which `capture_cpu_seconds` are torch's export and its lowering), with nothing kept
from before and torch imported already; then every machine of a sweep over two figures, each with its schedules held and chosen again, as
`codesign.whatif --sweep` asks for them, in a new database. What the compile has left in the process's memory is what the sweep begins with, as in
that command. `times_compile` is to stay below 15 for 100 machines of a Llama layer.
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
FIGURES = ("levels.dram.bandwidth", "levels.l2.bandwidth")


def measure(path: Path, target: str, machines: int) -> dict[str, Any]:
    """One model compiled, and its sweep: `machines` machines, a square number."""
    import torch  # noqa: F401

    import codesign.frontend  # noqa: F401
    from codesign.costmodel.machine import load_machine
    from codesign.lab.machines.ask import Questions, answer
    from codesign.lab.machines.recorded import recorded
    from codesign.lab.machines.workload import workload
    from codesign.lab.models import captured

    side = round(machines**0.5)
    machine = load_machine(target)
    ranges = Questions.ranges([f"{figure}=x0.5:x2:{side}" for figure in FIGURES], machine)
    started = _cpu_seconds()
    captured(path)
    had = _cpu_seconds()
    model = workload(path, machine)
    compiled = _cpu_seconds()
    with tempfile.TemporaryDirectory() as folder, recorded(model, Path(folder) / "sweep.db", "sweep") as kept:
        points = answer(kept, Questions(slopes=False, swept=ranges, crossed=[])).sweep
        done = _cpu_seconds()
    changed = {name for point in points for name in point.changed}
    return {
        "model": str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path),
        "target": target,
        "kernels": len(model.parts),
        "machines": len(points),
        "capture_cpu_seconds": round(had - started, 2),
        "compile_cpu_seconds": round(compiled - started, 2),
        "sweep_cpu_seconds": round(done - compiled, 2),
        "times_compile": round((done - compiled) / (compiled - started), 2),
        "kernels_scheduled_otherwise": len(changed),
    }


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "examples" / "real" / "llama_block.py")
    parser.add_argument("--target", default="h100_sxm")
    parser.add_argument("--machines", type=int, default=100, help="A square number.")
    arguments = parser.parse_args()
    if round(arguments.machines**0.5) ** 2 != arguments.machines:
        parser.error(f"--machines {arguments.machines} is no square number")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CODESIGN_CACHE"] = cache
        rows = [measure(arguments.model.resolve(), arguments.target, arguments.machines)]
    host = {"cores": os.cpu_count(), "machine": platform.machine(), "date": date.today().isoformat()}
    print(json.dumps({"benchmark": "whatif_rate", "host": host, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
