"""Several figures at once: Pareto fronts by Optuna's NSGA-II, and what assumed figures are to blame for (Sobol indices)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.costmodel.machine import Machine, figures_of
from codesign.ir.errors import CodesignError
from codesign.lab.machines.sweep import Range
from codesign.lab.machines.variants import changer
from codesign.lab.machines.workload import Ask, Workload


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
    generation = min(max(trials // 5, 8), 50)
    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=generation)
    study = optuna.create_study(directions=["minimize"] * goals, sampler=sampler)
    designs: dict[int, Design] = {}
    for start in range(0, trials, generation):  # whose variants do not hang on each other
        asked = [study.ask() for _ in range(min(generation, trials - start))]
        machines = [{r.figure: t.suggest_float(r.figure, r.low, r.high, log=True) for r in ranges} for t in asked]
        outcomes = workload.outcomes([Ask(values, choose=True) for values in machines], tick)
        for trial, values, outcome in zip(asked, machines, outcomes, strict=True):
            seconds, joules = outcome.known().seconds, outcome.joules if energy else None
            price = None
            if weights:
                price = sum(weight * values.get(f, changer(workload.machine, f)[0]) for f, weight in weights.items())
            designs[trial.number] = Design(values, seconds, joules, price)
            study.tell(trial, [value for value in (seconds, joules, price) if value is not None])
    best = (designs[trial.number] for trial in study.best_trials)
    apart = {tuple(sorted(design.figures.items())): design for design in best}  # a generation may breed one again
    return sorted(apart.values(), key=lambda design: design.seconds)


@dataclass(frozen=True)
class Blame:
    """An assumed figure's share of the variance of the time over its range: by itself (`first`) and with all others (`total`)."""

    figure: str
    low: float
    high: float
    first: float
    total: float


def assumed(machine: Machine) -> list[tuple[str, tuple[float, float]]]:
    """Figures that are assumed within a range, with it."""
    ranges = [(path, figure.range) for path, figure in figures_of(machine) if figure.value and ".peak." not in path]
    return [(path, span) for path, span in ranges if span and 0 < span[0] < span[1]]


def blame(
    workload: Workload, samples: int, *, choose: bool, seed: int, tick: Callable[[], None] = lambda: None
) -> tuple[list[Blame], float, float]:
    """Sobol indices of every figure that is assumed within a range (Saltelli's scheme, scipy.stats.sobol_indices), and the least and most time.

    Each figure is drawn evenly over the logarithms of its range. `samples`: a power of two.
    """
    from scipy.stats import sobol_indices, uniform

    figures = assumed(workload.machine)
    if not figures:
        raise CodesignError(
            f"{workload.machine.name} has no assumed figure with a range", hint="give one a range in its file"
        )
    times: list[float] = []

    def seconds(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        machines = [
            {path: float(np.exp(value)) for (path, _), value in zip(figures, column, strict=True)}
            for column in points.T
        ]
        outcomes = workload.outcomes([Ask(values, choose) for values in machines], tick)
        found = [outcome.known().seconds for outcome in outcomes]
        times.extend(found)
        return np.array(found)

    spans = [np.log(span) for _, span in figures]
    dists = [uniform(loc=low, scale=high - low) for low, high in spans]
    indices = sobol_indices(func=seconds, n=samples, dists=dists, rng=np.random.default_rng(seed))
    found = [
        Blame(path, low, high, _share(float(first)), _share(float(total)))
        for (path, (low, high)), first, total in zip(figures, indices.first_order, indices.total_order, strict=True)
    ]
    return sorted(found, key=lambda entry: -entry.total), min(times), max(times)


def _share(value: float) -> float:
    """An index, which is not a number where nothing varies."""
    return float(value) if math.isfinite(value) else 0.0
