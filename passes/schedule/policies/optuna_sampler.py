"""Optuna's samplers as policies: TPE, CMA-ES, NSGA-II, and any other that is given (extra `lab`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh
from codesign.passes.schedule.policy import Floats
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context

ASKED = 8
"""Trials that a sampler is asked for at most before a schedule is drawn at random in its stead."""


class OptunaPolicy(Fresh):
    """A sampler over the positions of the knobs, told logarithms of seconds.

    Trials that break a constraint or were proposed before are answered at once (the former as worse than all that is known) and cost no
    evaluation; after `ASKED` of them the next schedule is drawn evenly.
    """

    adapts: Any = None
    """What it is made of, where that is someone's own."""

    def __init__(self, sampler: Callable[[int], optuna.samplers.BaseSampler]) -> None:
        super().__init__()
        self._sampler = sampler

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=self._sampler(int(context.rng.integers(1 << 31))))
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            knob.name: optuna.distributions.IntDistribution(0, len(knob.values) - 1) for knob in space.knobs
        }
        self._known: dict[bytes, float] = {}
        self._worst = 0.0
        self._trial: optuna.trial.Trial | None = None

    def propose(self, count: int) -> ScheduleBatch | None:
        for _ in range(ASKED):
            trial = self._study.ask(self._distributions)
            code = np.array([[trial.params[knob.name] for knob in self.space.knobs]], dtype=np.int64)
            key = code[0].tobytes()
            if key in self._known:
                self._study.tell(trial, self._known[key])
            elif not self.space.legal(code)[0]:
                self._study.tell(trial, self._worst + 1.0)
            else:
                self._trial = trial
                return self.ask(code, 1)
        self._trial = None
        return self.ask(self.draw(1), 1)

    def learn(self, codes: Ints, seconds: Floats) -> None:
        for code, cost in zip(codes, seconds, strict=True):
            value = float(np.log(max(cost, 1e-30))) if np.isfinite(cost) else self._worst + 1.0
            if np.isfinite(cost):
                self._worst = value if len(self._known) == 0 else max(self._worst, value)
            self._known[code.tobytes()] = value
            if self._trial is not None:
                self._study.tell(self._trial, value)
            else:
                params = {knob.name: int(at) for knob, at in zip(self.space.knobs, code, strict=True)}
                trial = optuna.trial.create_trial(params=params, distributions=self._distributions, value=value)
                self._study.add_trial(trial)


def tpe(startup: int = 10) -> OptunaPolicy:
    """Tree-structured Parzen estimators (Bergstra et al. 2011)."""
    return OptunaPolicy(lambda seed: optuna.samplers.TPESampler(n_startup_trials=startup, multivariate=True, seed=seed))


def cma_es() -> OptunaPolicy:
    """Covariance matrix adaptation (Hansen 2016), over the positions as real numbers."""
    return OptunaPolicy(lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False))


def nsga_ii(population: int = 16) -> OptunaPolicy:
    """The non-dominated sorting genetic algorithm (Deb et al. 2002), of one objective here."""
    return OptunaPolicy(lambda seed: optuna.samplers.NSGAIISampler(population_size=population, seed=seed))


def adapted(sampler: Any) -> OptunaPolicy:
    """A sampler of someone's own as a policy; it brings its own seed."""
    policy = OptunaPolicy(lambda seed: sampler)
    policy.adapts = sampler
    return policy
