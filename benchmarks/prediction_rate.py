"""Schedules priced per CPU second of one core, by kernel and fidelity: `OMP_NUM_THREADS=1 python benchmarks/prediction_rate.py`.

`whole`: every schedule of the kernel's space, each once. `drawn`: schedules drawn evenly from it, at most an eighth, of which few have
anything in common (fewer still for the event simulation). The best of several runs.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date

import numpy as np

RUNS = 5
SIMULATED = 64
KERNELS = ("gemm.4096x4096x4096", "attention.4x8x4x2048x2048")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="h100_sxm")
    parser.add_argument("--kernels", nargs="+", default=KERNELS)
    arguments = parser.parse_args()

    from codesign.costmodel.machine import load_machine
    from codesign.costmodel.models import cost_model_for
    from codesign.lab.kernels import problems
    from codesign.lab.laboratory import make_plan

    machine = load_machine(arguments.machine)
    plan = make_plan({"policies": ["exhaustive"], "kernels": list(arguments.kernels), "machines": [arguments.machine]})
    rows = []
    for problem in problems(plan):
        assert problem.summary is not None
        codes = np.concatenate(list(problem.space.enumerate()))
        some = codes[np.random.default_rng(0).permutation(len(codes))[: len(codes) // 8]]
        batches = {"whole": problem.space.batch(codes), "drawn": problem.space.batch(some)}
        for fidelity in (0, 1, 2) if machine.kind == "gpu" else (0, 1):
            model = cost_model_for(machine, fidelity)
            for kind, batch in batches.items():
                if fidelity == 2:
                    if kind == "whole":
                        continue
                    batch = batch.take(np.arange(min(SIMULATED, len(batch))))
                best = float("inf")
                for _ in range(RUNS):
                    started = time.process_time()
                    model.predict(problem.summary, machine, batch, problem.sizes)
                    best = min(best, time.process_time() - started)
                rate = {"schedules": len(batch), "schedules_per_second": round(len(batch) / best)}
                rows.append({"kernel": problem.name, "fidelity": fidelity, "batch": kind, **rate})
    report = {"benchmark": "prediction_rate", "machine": machine.name, "date": date.today().isoformat(), "rows": rows}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
