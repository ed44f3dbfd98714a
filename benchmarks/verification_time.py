"""CPU seconds that verification of the examples costs: `python benchmarks/verification_time.py [NAME ...] [--against CHECKOUT]`.

Each example is captured and compiled for both targets in a process of its own; what counts is the user and system time of the phase `verify`
there and of its children (the interpreter's process, its start included). Ahead-of-time compilation is left out. With `--against`,
another checkout of this repository takes turns with this one, and the least of each is compared, since whatever else runs only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("mlp", "naive_attention", "llama_block", "gpt2", "moe", "bert", "resnet")
TARGETS = ("h100_sxm", "maia100")

_RUN = """
import json, resource, sys, time
from contextlib import contextmanager
from pathlib import Path
import triton  # ahead-of-time compilation has imported it before verification begins
from codesign import pipeline
from codesign.backends.triton.interpret import worker
from codesign.command import Steps
from codesign.costmodel.machine import load_machine

spent, phase = [], pipeline.Clock.phase

@contextmanager
def counted(clock, name):
    start = time.process_time()
    with phase(clock, name):
        yield
    if name == "verify":
        spent.append(time.process_time() - start)

pipeline.Clock.phase = counted
options, steps = pipeline.Options(kernels=False), Steps(None)
model = pipeline.capture(Path(sys.argv[1]), options, steps)
before = resource.getrusage(resource.RUSAGE_CHILDREN)
documents = [pipeline.compile_for(model, load_machine(name), options, steps).document for name in sys.argv[2:]]
worker().close()
after = resource.getrusage(resource.RUSAGE_CHILDREN)
children = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
checks = [check for document in documents for check in (document.verified, *(k.verified for k in document.kernels))]
print(json.dumps({"own": sum(spent), "children": children, "ok": all(c is None or c.ok for c in checks), "checks": len(checks)}))
"""


def measure(root: Path, name: str, targets: tuple[str, ...]) -> dict[str, Any]:
    """One example, compiled and verified by the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _RUN, str(ROOT / "examples" / f"{name}.py"), *targets]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} in {root}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "seconds": found["own"] + found["children"]}


def compare(name: str, roots: list[Path], repeats: int) -> dict[str, Any]:
    """The least seconds of each checkout, which take turns; the first is this one."""
    runs = [[measure(root, name, TARGETS) for root in roots] for _ in range(repeats)]
    best = [min((turn[k] for turn in runs), key=lambda run: float(run["seconds"])) for k in range(len(roots))]
    row = {"example": name, **{key: _short(value) for key, value in best[0].items()}}
    if len(best) > 1:
        other = {f"other_{key}": _short(value) for key, value in best[1].items()}
        row |= {**other, "ratio": _short(best[0]["seconds"] / best[1]["seconds"])}
    return row


def _short(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=EXAMPLES)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    roots = [ROOT, *([arguments.against.resolve()] if arguments.against else [])]
    rows = []
    for name in arguments.names:
        rows.append(compare(name, roots, arguments.repeats))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    host = {"cores": os.cpu_count(), "machine": platform.machine(), "date": date.today().isoformat()}
    print(json.dumps({"benchmark": "verification_time", "host": host, "targets": TARGETS, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
