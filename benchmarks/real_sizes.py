"""Models at the sizes that people run, captured on `meta` and costed: `python benchmarks/real_sizes.py [NAME ...]`.

A row says how many seconds of the CPU that took, in torch (`torch.export` and its decompositions) and after it, the most memory that the
process held, what is predicted, and what stays an external call. Each model has a process of its own; nothing is kept from earlier
runs. The rows of what was run replace those of results/real_sizes.json; `--print` shows what that holds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "real_sizes.json"


def row_of(name: str, target: str) -> dict[str, Any]:
    """One model, captured and costed in this process."""
    import torch

    from benchmarks.architectures.real import on_meta
    from benchmarks.zoo import impossible, shares, versions
    from codesign.command import Steps
    from codesign.costmodel.machine import load_machine
    from codesign.frontend import ModelSource, capture
    from codesign.pipeline import Model, Options, compile_for
    from codesign.report import launch_count

    torch.set_num_threads(1)
    model, inputs = on_meta(name)
    marks = [time.process_time()]
    source = ModelSource(model, (), inputs, name=name)
    captured = capture(source)
    marks.append(time.process_time())
    options = Options(kernels=False, verify=False, reuse=False)
    document = compile_for(
        Model(source, captured, captured.seconds), load_machine(target), options, Steps(None)
    ).document
    marks.append(time.process_time())
    elapsed = captured.seconds
    torchs = (marks[1] - marks[0]) * (1 - elapsed["lower"] / sum(elapsed.values()))
    return {
        "name": name,
        "target": target,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "torch_cpu_seconds": round(torchs, 1),
        "own_cpu_seconds": round(marks[2] - marks[0] - torchs, 1),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "kernels": len(document.kernels),
        "launches": launch_count(document),
        "milliseconds": round(document.seconds * 1e3, 3),
        "calls": shares(document),
        "impossible": impossible(document),
        "versions": versions(),
    }


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    calls = ", ".join(f"{op} {share:.1%}" for op, share in row["calls"].items()) or "no calls"
    return (
        f"{row['name']:18s}{row['target']:10s}{row['parameters'] / 1e9:7.2f}e9 parameters  torch {row['torch_cpu_seconds']:6.1f} + "
        f"own {row['own_cpu_seconds']:6.1f} CPU s  {row['peak_gigabytes']:5.2f} GB  {row['kernels']:4d} kernels "
        f"{row['launches']:6.0f} launches {row['milliseconds']:10.3f} ms  {calls}  {'; '.join(row['impossible'])}".rstrip()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="all by default, smallest first")
    parser.add_argument("--target", default="h100_sxm")
    parser.add_argument("--here", action="store_true", help="in this process, the row as JSON")
    parser.add_argument("--print", action="store_true", help="only show the rows of results/real_sizes.json")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if given.print:
        print("\n".join(map(line, json.loads(RESULTS.read_text()))))
        return 0
    if given.here:
        print(json.dumps(row_of(given.names[0], given.target)))
        return 0
    from benchmarks.architectures.real import REAL
    from benchmarks.zoo import keep

    failed = False
    for name in given.names or list(REAL):
        command = [sys.executable, __file__, name, "--target", given.target, "--here"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            failed = True
            reason = " ".join(done.stderr.strip().splitlines()[-2:])  # the last may be a note to the error
            print(f"{name:18s}{given.target:10s}{reason[:300]}", flush=True)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        keep(row, RESULTS, ("parameters", "name", "target"))
        print(line(row), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
