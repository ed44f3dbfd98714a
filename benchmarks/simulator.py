"""The accelerator's simulator and analytic model: `OMP_NUM_THREADS=1 python benchmarks/simulator.py`.

Simulated instructions a second of a matmul on all cores (times alone, best of three, CPU time of one core), schedules
priced a second, and how far the analytic model is from the simulator on schedules drawn from the whole space of each
kernel.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date

import numpy as np
from scipy.stats import spearmanr

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.core import Module
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower as tile

KERNELS = """
func @matmul(%x: bf16[1024, 512], %w: bf16[1024, 512], %bias: bf16[1024]) {
  %o = fusion {
    %h = compute bf16[i: 1024, j: 1024] sum(k: 512) in f32 { f32(%x[i, k]) * f32(%w[j, k]) }
    %r = compute bf16[i: 1024, j: 1024] { max(%h[i, j] + %bias[j], 0.0:bf16) }
    yield %r
  }
  return %o
}

func @f32_matmul(%x: f32[512, 512], %w: f32[384, 512]) {
  %o = fusion {
    %h = compute f32[i: 512, j: 384] sum(k: 512) { %x[i, k] * %w[j, k] }
    yield %h
  }
  return %o
}

func @softmax(%x: f32[2048, 500]) {
  %o = fusion {
    %top = compute f32[i: 2048] max(j: 500) { %x[i, j] }
    %power = compute f32[i: 2048, j: 500] { exp(%x[i, j] - %top[i]) }
    %total = compute f32[i: 2048] sum(j: 500) { %power[i, j] }
    %share = compute f32[i: 2048, j: 500] { %power[i, j] / %total[i] }
    yield %share
  }
  return %o
}

func @row_norm(%x: f16[4096, 1024], %gain: f16[1024]) {
  %o = fusion {
    %squares = compute f32[i: 4096] sum(j: 1024) { f32(%x[i, j]) * f32(%x[i, j]) }
    %scale = compute f32[i: 4096] { rsqrt(%squares[i] / 1024.0 + 1e-05) }
    %normed = compute f16[i: 4096, j: 1024] { f16(f32(%x[i, j]) * %scale[i] * f32(%gain[j])) }
    yield %normed
  }
  return %o
}

func @row_sums(%x: f32[3000, 2000]) {
  %o = fusion {
    %s = compute f32[i: 3000] sum(j: 2000) { %x[i, j] }
    yield %s
  }
  return %o
}

func @add_transposed(%x: f32[1024, 1024], %y: f32[1024, 1024]) {
  %o = fusion {
    %s = compute f32[i: 1024, j: 1024] { %x[i, j] + %y[j, i] }
    yield %s
  }
  return %o
}

func @attention(%q: f16[8, 256, 64], %k: f16[8, 256, 64], %v: f16[8, 256, 64]) {
  %o = fusion {
    %scores = compute f32[h: 8, i: 256, j: 256] sum(d: 64) { f32(%q[h, i, d]) * f32(%k[h, j, d]) }
    %top = compute f32[h: 8, i: 256] max(j: 256) { %scores[h, i, j] }
    %power = compute f32[h: 8, i: 256, j: 256] { exp(%scores[h, i, j] - %top[h, i]) }
    %total = compute f32[h: 8, i: 256] sum(j: 256) { %power[h, i, j] }
    %share = compute f16[h: 8, i: 256, j: 256] { f16(%power[h, i, j] / %total[h, i]) }
    %out = compute f16[h: 8, i: 256, e: 64] sum(j: 256) in f32 { f32(%share[h, i, j]) * f32(%v[h, j, e]) }
    yield %out
  }
  return %o
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="maia100")
    parser.add_argument("--schedules", type=int, default=30, help="simulated per kernel")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    machine = load_machine(arguments.machine)
    rng = np.random.default_rng(arguments.seed)
    module = parse(KERNELS)
    rows = []
    everything: list[tuple[float, float]] = []
    for function in module.functions.values():
        (fusion,) = (op for op in function.body.ops if isinstance(op, Fusion))
        form = normalize(fusion)
        kernel = summarize(form.fusion)
        knobs = space(kernel, machine)
        batch = knobs.batch(knobs.sample(20 * arguments.schedules, rng))
        cost = DataflowModel().predict(kernel, machine, batch)
        pairs: list[tuple[float, float]] = []
        for i in np.flatnonzero(cost.reason == ""):
            schedule = batch.row(int(i))
            extents = {dim: extent.constant for dim, extent in kernel.extents.items()}
            steps = np.prod([-(-extent // schedule.tiles.get(dim, 1)) for dim, extent in extents.items()])
            if steps <= 5000 and len(pairs) < arguments.schedules:
                program = lower(tile(form.fusion, schedule, outputs=form.outputs), machine)
                pairs.append((cost.seconds[i], simulate(program, None, machine, values=False).seconds))
        rows.append({"kernel": function.name, **_errors(pairs)})
        everything += pairs
    predicted, simulated = zip(*everything, strict=True)
    report = {
        "benchmark": "simulator",
        "machine": machine.name,
        "date": date.today().isoformat(),
        "instructions_per_second": _speed(machine, module),
        "schedules_priced_per_second": _rate(machine, module),
        "all": {**_errors(everything), "rank_correlation": round(float(spearmanr(predicted, simulated).statistic), 4)},
        "kernels": rows,
    }
    print(json.dumps(report, indent=1))


def _errors(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Relative errors of predicted against simulated seconds, launch included."""
    errors = np.abs(np.array([predicted / simulated - 1.0 for predicted, simulated in pairs]))
    quantiles = {"median_error": 0.5, "p90_error": 0.9, "p95_error": 0.95, "max_error": 1.0}
    return {"schedules": len(pairs), **{name: round(float(np.quantile(errors, q)), 4) for name, q in quantiles.items()}}


def _speed(machine: Machine, module: Module) -> int:
    (fusion,) = (op for op in module.functions["matmul"].body.ops if isinstance(op, Fusion))
    schedule = Schedule({"i": 16, "j": 16, "k": 16}, reduce={"k": "looped"}, pipeline=3)
    program = lower(tile(fusion, schedule), machine)
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        result = simulate(program, None, machine, values=False)
        best = min(best, time.process_time() - started)
    return round(result.instructions / best)


def _rate(machine: Machine, module: Module) -> int:
    (fusion,) = (op for op in module.functions["matmul"].body.ops if isinstance(op, Fusion))
    kernel = summarize(normalize(fusion).fusion)
    knobs = space(kernel, machine)
    codes = knobs.sample(1 << 16, np.random.default_rng(0))
    batch = knobs.batch(codes[np.arange(1 << 16) % len(codes)])
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        DataflowModel().predict(kernel, machine, batch)
        best = min(best, time.process_time() - started)
    return round(len(batch) / best)


if __name__ == "__main__":
    main()
