"""Schedules priced per CPU second of one core, by fidelity: `OMP_NUM_THREADS=1 python benchmarks/prediction_rate.py`.

A bf16 GEMM of 4096 x 4096 x 4096 on h100_sxm; a batch of schedules drawn from its whole space (a few for the event simulation); the best
of five runs.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date

import numpy as np

SIMULATED = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="h100_sxm")
    parser.add_argument("--schedules", type=int, default=1 << 18)
    arguments = parser.parse_args()

    from codesign.costmodel.machine import load_machine
    from codesign.costmodel.models import cost_model_for
    from codesign.costmodel.workloads import gemm
    from codesign.passes.schedule.build import space

    machine, kernel = load_machine(arguments.machine), gemm("bf16")
    sizes = {"M": 4096, "N": 4096, "K": 4096}
    knobs = space(kernel, machine, sizes)
    codes = knobs.sample(arguments.schedules, np.random.default_rng(0))
    codes = codes[np.arange(arguments.schedules) % len(codes)]  # a space smaller than the batch is walked again
    batch = knobs.batch(codes)
    rows = []
    for fidelity in (0, 1, 2) if machine.kind == "gpu" else (0, 1):
        model = cost_model_for(machine, fidelity)
        if fidelity == 2:
            batch = batch.take(np.arange(min(SIMULATED, len(batch))))
        best = float("inf")
        for _ in range(5):
            started = time.process_time()
            cost = model.predict(kernel, machine, batch, sizes)
            best = min(best, time.process_time() - started)
        fits = int(np.isfinite(cost.seconds).sum())
        rows.append(
            {"fidelity": fidelity, "schedules_per_second": round(len(batch) / best), "fit": fits, "batch": len(batch)}
        )
    report = {"benchmark": "prediction_rate", "machine": machine.name, "date": date.today().isoformat(), "rows": rows}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
