"""Optuna's samplers as policies: TPE, CMA-ES, NSGA-II, and any other that is given (extra `lab`)."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from types import ModuleType
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


def adapted(
    sampler: Any, factory: Callable[..., Any] | None = None, options: Mapping[str, Any] | None = None
) -> OptunaPolicy:
    """A sampler of someone's own as a policy, made anew by its `factory` for each search, where there is one.

    It draws by the seed of the search, so that one repeats, unless its `options` give it a seed of its own.
    """
    given = dict(options or {})

    def made(seed: int) -> Any:
        if "seed" in given and factory is not None:
            return factory(**given)
        if factory is None:
            return _seeded(sampler, seed)
        return _seeded(factory(**given, **({"seed": seed} if _takes_seed(factory) else {})), seed)

    policy = OptunaPolicy(made)
    policy.adapts = sampler
    return policy


def _takes_seed(factory: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def _seeded(sampler: Any, seed: int) -> Any:
    """The sampler, of which each generator of random numbers, and of what it is made of, starts from the seed."""
    seen: set[int] = set()
    around = [sampler]
    while around:
        part = around.pop()
        if id(part) in seen or isinstance(part, type | ModuleType):
            continue
        seen.add(id(part))
        if isinstance(part, np.random.RandomState | random.Random):
            part.seed(seed)
        elif isinstance(part, np.random.Generator):
            part.bit_generator.state = type(part.bit_generator)(seed).state
        elif isinstance(part, Mapping):
            around += part.values()
        elif isinstance(part, list | tuple):
            around += part
        elif hasattr(part, "__dict__"):
            around += [
                *vars(part).values(),
                getattr(part, "rng", None),
            ]  # Optuna's own make theirs when they are asked for it
    return sampler
