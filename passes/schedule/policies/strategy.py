"""Strategies of Kernel Tuner as policies: a function `tune(searchspace, runner, tuning_options)`, what has such a method, or an `OptAlg` (extra
`kernel-tuner`)."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from kernel_tuner import util
from kernel_tuner.runners.runner import Runner
from kernel_tuner.runners.simulation import SimulationDevice
from kernel_tuner.searchspace import Searchspace
from kernel_tuner.strategies.wrapper import OptAlgWrapper

from codesign.costmodel.protocol import CostBatch
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policy import Tracking, is_strategy
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context

MOST_LISTED = 1 << 20
"""Points of a space whose schedules are listed, as a strategy gets them."""

PATIENCE = 20
"""Times the budget that a strategy may ask for what it knows."""

MOST_THREADS = 1_000_000_000
"""Threads of a block that a strategy may think there can be, as where Kernel Tuner simulates: what does not fit has no time."""

Config = tuple[int, ...]


class _Ended(BaseException):
    """Nobody waits for a strategy any longer."""


class _Talk:
    """Between a strategy, which asks for seconds, and a policy, which is told them; one of the two waits at a time."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[list[int] | BaseException | None] = SimpleQueue()
        self.told: SimpleQueue[list[float] | None] = SimpleQueue()

    def seconds(self, rows: list[int]) -> list[float]:
        """Of schedules by their rows, asked by the strategy."""
        self.asked.put(rows)
        answer = self.told.get()
        if answer is None:
            raise _Ended
        return answer


class _Prices(Runner):  # type: ignore[misc]
    """What a strategy takes for the measuring of kernels."""

    def __init__(self, talk: _Talk, names: Sequence[str], rows: Mapping[Config, int]) -> None:
        super().__init__()
        self._talk, self._names, self._rows = talk, names, rows
        self._known: dict[Config, float] = {}
        self._repeats = 0
        self.dev = SimulationDevice(MOST_THREADS, {"device_name": "model"}, True)

    @property
    def asked(self) -> bool:
        """Whether it was asked for any configuration yet."""
        return bool(self._known) or self._repeats > 0

    def get_device_info(self) -> Any:
        return self.dev

    def get_environment(self, tuning_options: Any) -> dict[str, Any]:
        return {}

    def run(self, parameter_space: Any, tuning_options: Any) -> list[dict[str, Any] | None]:
        """Results of configurations; None of those beyond the budget."""
        configs = [tuple(config) for config in parameter_space]
        new = [config for config in dict.fromkeys(configs) if config in self._rows and config not in self._known]
        self._repeats += len(configs) - len(new)
        if self._repeats > PATIENCE * tuning_options.max_fevals + 1000:
            raise util.StopCriterionReached("it asks for what it knows, again and again")
        new = new[: tuning_options.budget.get_evaluations_remaining()]
        if new:
            self._known.update(zip(new, self._talk.seconds([self._rows[config] for config in new]), strict=True))
            tuning_options.budget.add_evaluations(len(new))
        return [self._result(config) for config in configs]

    def _result(self, config: Config) -> dict[str, Any] | None:
        if config not in self._known and config in self._rows:
            return None
        found: dict[str, Any] = dict(zip(self._names, config, strict=True))
        seconds = self._known.get(config, np.inf)
        if np.isfinite(seconds):
            return found | {"time": 1e3 * seconds}
        fault = util.RuntimeFailedConfig()
        return found | {"time": fault, "__error__": fault}


class _Options(dict[str, Any]):
    """Options as Kernel Tuner has them: entries that are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class StrategyPolicy(Tracking):
    """A strategy in a thread of its own, which ends with the policy. It is seeded through `random` and `numpy.random`, as those of Kernel Tuner are.

    `adapts`: what it is made of. `options`: the strategy's own.
    """

    def __init__(self, tune: Callable[[Any, Any, Any], Any], options: Mapping[str, Any], adapts: Any) -> None:
        super().__init__()
        self._tune, self._options, self.adapts = tune, dict(options), adapts

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        if space.points > MOST_LISTED:
            raise CodesignError(
                f"a strategy of Kernel Tuner's needs all schedules listed, and the space has {space.points:.3g} points",
                hint=f"search spaces of up to {MOST_LISTED:,} with it",
            )
        self._codes: Ints = np.concatenate([*space.enumerate(), np.zeros((0, len(space.knobs)), np.int64)])
        values = {knob.name: list(knob.values) for knob in space.knobs}
        columns = [np.array(held)[self._codes[:, at]].tolist() for at, held in enumerate(values.values())]
        configs = list(zip(*columns, strict=True))
        listed = {str(row): dict(zip(values, config, strict=True)) for row, config in enumerate(configs)}
        searchspace = Searchspace(None, None, None, from_cache={"tune_params": values, "cache": listed})
        most, seed = min(context.remaining, len(configs)), int(context.rng.integers(1 << 31))
        options = _Options(
            strategy_options=_Options(self._options | {"max_fevals": most}),
            max_fevals=most,
            budget=util.TuningBudget(max_fevals=most),
            objective=["time"],
            objective_higher_is_better=[False],
            tune_params=values,
            restrictions=[],
            restrictions_unmodified=[],
            simulation_mode=True,
            verbose=False,
            cache={},
            seed=seed,
        )
        self._talk = talk = _Talk()
        self._asked: list[int] = []
        self._answers: list[float] = []
        runner = _Prices(talk, list(values), {config: row for row, config in enumerate(configs)})
        arguments = (self._tune, (searchspace, runner, options), talk, seed)
        threading.Thread(target=_searched, args=arguments, daemon=True).start()
        weakref.finalize(self, talk.told.put, None)

    def propose(self, count: int) -> ScheduleBatch | None:
        if not self._asked:
            asked = self._talk.asked.get()
            if isinstance(asked, BaseException):
                raise asked
            if asked is None:
                self._talk.asked.put(None)
                return None
            self._asked, self._answers = asked, []
        return self.space.batch(self._codes[self._asked[:count]])

    def observe(self, batch: ScheduleBatch, cost: CostBatch) -> None:
        super().observe(batch, cost)
        self._answers += cost.seconds.tolist()
        self._asked = self._asked[len(cost) :]
        if not self._asked:
            self._talk.told.put(self._answers)


def _tuned(tune: Callable[[Any, Any, Any], Any], searchspace: Any, runner: _Prices, options: _Options) -> None:
    """All that a strategy does; one that takes no limit to what it asks for, as an exhaustive one does, goes on without until the budget ends it."""
    try:
        tune(searchspace, runner, options)
    except ValueError as error:
        if runner.asked or "max_fevals" not in str(error):
            raise
        own = {name: value for name, value in options.strategy_options.items() if name != "max_fevals"}
        tune(searchspace, runner, _Options(options | {"strategy_options": _Options(own)}))


def _searched(tune: Callable[[Any, Any, Any], Any], arguments: tuple[Any, ...], talk: _Talk, seed: int) -> None:
    """All of a strategy, until it is done or nobody waits for it."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        _tuned(tune, *arguments)
    except (_Ended, util.StopCriterionReached):
        talk.asked.put(None)
    except BaseException as error:  # what is wrong with it is said where it is asked
        talk.asked.put(error)
    else:
        talk.asked.put(None)


def adapted(strategy: Any, options: Mapping[str, Any]) -> StrategyPolicy:
    """A strategy as a policy."""
    if is_strategy(strategy):
        return StrategyPolicy(strategy, options, strategy)
    own = strategy if is_strategy(getattr(strategy, "tune", None)) else OptAlgWrapper(strategy)
    return StrategyPolicy(own.tune, options, strategy)
