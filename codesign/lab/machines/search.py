"""Several figures at once: Pareto fronts by Optuna's NSGA-II, and what assumed figures are to blame for (Sobol indices)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.costmodel.machine import figures_of
from codesign.ir.errors import CodesignError
from codesign.lab.machines.sensitivity import changer
from codesign.lab.machines.sweep import Range, variant
from codesign.lab.machines.workload import Workload


@dataclass(frozen=True)
class Design:
    """A variant of the machine and what it comes to; `price` in the user's unit, None without one."""

    figures: Mapping[str, float]
    seconds: float
    joules: float | None
    price: float | None


def front(
    workload: Workload,
    ranges: Sequence[Range],
    weights: Mapping[str, float],
    trials: int,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> list[Design]:
    """Variants of which none is better in time, energy and price together, schedules chosen again on each; by time.

    `weights`: price of one unit of each figure. A goal that is not known for this machine is left out.
    """
    import optuna

    for figure in weights:
        changer(workload.machine, figure)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    energy = math.isfinite(workload.base.joules)
    goals = 1 + energy + bool(weights)
    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=min(max(trials // 5, 8), 50))
    study = optuna.create_study(directions=["minimize"] * goals, sampler=sampler)
    designs: dict[int, Design] = {}
    for _ in range(trials):
        trial = study.ask()
        values = {r.figure: trial.suggest_float(r.figure, r.low, r.high, log=True) for r in ranges}
        machine = variant(workload.machine, values)
        outcome = workload.price(machine, choose=True)
        price = None
        if weights:
            price = sum(weight * values.get(f, changer(machine, f)[0]) for f, weight in weights.items())
        designs[trial.number] = Design(values, outcome.seconds, outcome.joules if energy else None, price)
        goal_values = [outcome.seconds, outcome.joules if energy else None, price]
        study.tell(trial, [value for value in goal_values if value is not None])
        tick()
    return sorted((designs[trial.number] for trial in study.best_trials), key=lambda design: design.seconds)


@dataclass(frozen=True)
class Blame:
    """An assumed figure's share of the variance of the time over its range: by itself (`first`) and with all others (`total`)."""

    figure: str
    low: float
    high: float
    first: float
    total: float


def blame(
    workload: Workload, samples: int, *, choose: bool, seed: int, tick: Callable[[], None] = lambda: None
) -> tuple[list[Blame], float, float]:
    """Sobol indices of every figure that is assumed within a range (Saltelli's scheme, scipy.stats.sobol_indices), and the least and most time.

    Each figure is drawn evenly over the logarithms of its range. `samples`: a power of two.
    """
    from scipy.stats import sobol_indices, uniform

    assumed = [
        (p, f.range) for p, f in figures_of(workload.machine) if f.range and f.range[0] > 0 and f.range[1] > f.range[0]
    ]
    assumed = [(path, span) for path, span in assumed if ".peak." not in path]
    if not assumed:
        raise CodesignError(
            f"{workload.machine.name} has no assumed figure with a range", hint="give one a range in its file"
        )
    times: list[float] = []

    def seconds(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = []
        for column in points.T:
            values = {path: float(np.exp(value)) for (path, _), value in zip(assumed, column, strict=True)}
            found.append(workload.price(workload.machine.with_figures(values), choose=choose).seconds)
            tick()
        times.extend(found)
        return np.array(found)

    spans = [np.log(span) for _, span in assumed]
    dists = [uniform(loc=low, scale=high - low) for low, high in spans]
    indices = sobol_indices(func=seconds, n=samples, dists=dists, rng=np.random.default_rng(seed))
    found = [
        Blame(path, low, high, _share(float(first)), _share(float(total)))
        for (path, (low, high)), first, total in zip(assumed, indices.first_order, indices.total_order, strict=True)
    ]
    return sorted(found, key=lambda entry: -entry.total), min(times), max(times)


def _share(value: float) -> float:
    """An index, which is not a number where nothing varies."""
    return float(value) if math.isfinite(value) else 0.0
