"""The accelerator's simulator and analytic model: `OMP_NUM_THREADS=1 python benchmarks/simulator.py`.

Simulated instructions a second of a matmul on all cores (times alone, best of three, CPU time of one core), schedules
priced a second, and how far the analytic model is from the simulator: random groups of ten kinds (`random_groups.py`), each under
schedules drawn from the whole of its space.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.stats import spearmanr

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.dataflow.model import BAND
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower as tile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.random_groups import KINDS, group_of

PRODUCT = """
func @product(%x: bf16[1024, 512], %w: bf16[1024, 512], %bias: bf16[1024]) {
  %o = fusion {
    %h = compute bf16[i: 1024, j: 1024] sum(k: 512) in f32 { f32(%x[i, k]) * f32(%w[j, k]) }
    %r = compute bf16[i: 1024, j: 1024] { max(%h[i, j] + %bias[j], 0.0:bf16) }
    yield %r
  }
  return %o
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="maia100")
    parser.add_argument("--groups", type=int, default=8, help="random groups of each kind")
    parser.add_argument("--schedules", type=int, default=5, help="simulated per group")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    machine = load_machine(arguments.machine)
    rng = np.random.default_rng(arguments.seed)
    rows = []
    everything: list[tuple[float, float]] = []
    for kind in KINDS:
        pairs: list[tuple[float, float]] = []
        for _ in range(arguments.groups):
            pairs += _pairs(group_of(kind, rng), machine, arguments.schedules, rng)
        rows.append({"kind": kind, **_errors(pairs)})
        everything += pairs
    predicted, simulated = zip(*everything, strict=True)
    report = {
        "benchmark": "simulator",
        "machine": machine.name,
        "date": date.today().isoformat(),
        "instructions_per_second": _speed(machine),
        "schedules_priced_per_second": _rate(machine),
        "all": {**_errors(everything), "rank_correlation": round(float(spearmanr(predicted, simulated).statistic), 4)},
        "interval": _interval(everything),
        "kinds": rows,
    }
    print(json.dumps(report, indent=1))


def _pairs(fusion: Fusion, machine: Machine, count: int, rng: Generator) -> list[tuple[float, float]]:
    """Predicted and simulated seconds of random schedules of a group."""
    form = normalize(fusion)
    kernel = summarize(form.fusion)
    knobs = space(kernel, machine)
    batch = knobs.batch(knobs.sample(20 * count, rng))
    cost = DataflowModel().predict(kernel, machine, batch)
    extents = {dim: extent.constant for dim, extent in kernel.extents.items()}
    pairs: list[tuple[float, float]] = []
    for i in np.flatnonzero(cost.reason == ""):
        schedule = batch.row(int(i))
        steps = np.prod([-(-extent // schedule.tiles.get(dim, 1)) for dim, extent in extents.items()])
        if steps <= 3000 and len(pairs) < count:
            program = lower(tile(form.fusion, schedule, outputs=form.outputs), machine)
            pairs.append((cost.seconds[i], simulate(program, None, machine, values=False).seconds))
    return pairs


def _product() -> Fusion:
    (function,) = parse(PRODUCT).functions.values()
    return next(op for op in function.body.ops if isinstance(op, Fusion))


def _errors(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Relative errors of predicted against simulated seconds, launch included."""
    errors = np.abs(np.array([predicted / simulated - 1.0 for predicted, simulated in pairs]))
    quantiles = {"median_error": 0.5, "p90_error": 0.9, "p95_error": 0.95, "max_error": 1.0}
    return {"schedules": len(pairs), **{name: round(float(np.quantile(errors, q)), 4) for name, q in quantiles.items()}}


def _interval(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """What 90 % of simulated over predicted seconds lie between, and how many the model's own interval holds."""
    ratios = np.array([simulated / predicted for predicted, simulated in pairs])
    low, high = np.quantile(ratios, (0.05, 0.95))
    held = np.mean((ratios > BAND[0]) & (ratios < BAND[1]))
    return {"low": round(float(low), 4), "high": round(float(high), 4), "held_by_model": round(float(held), 3)}


def _speed(machine: Machine) -> int:
    fusion = _product()
    schedule = Schedule({"i": 16, "j": 16, "k": 16}, reduce={"k": "looped"}, pipeline=3)
    program = lower(tile(fusion, schedule), machine)
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        result = simulate(program, None, machine, values=False)
        best = min(best, time.process_time() - started)
    return round(result.instructions / best)


def _rate(machine: Machine) -> int:
    kernel = summarize(normalize(_product()).fusion)
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
