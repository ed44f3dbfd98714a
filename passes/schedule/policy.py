"""Policies: who decides which schedules to look at. Ask/tell, batch first, and blind to anything but `context.evaluate`.

A third party registers one as an entry point of the group `codesign.policies`, or names it `package.module:Class`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from codesign.costmodel.protocol import CostBatch
from codesign.ir.errors import CodesignError, ScheduleError, blamed
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.passes.schedule.context import CLOSE, Context
from codesign.passes.schedule.space import RESIDENT, Ints, Space, unique_rows

Floats = npt.NDArray[np.float64]


MOST_EXHAUSTED = 1 << 24
"""Points of a space of which all schedules are priced without a budget: some twenty seconds, and gigabytes of prices."""

MOST_WALKED = 1 << 40
"""Points that are walked through for the schedules of a budget, which may be the last of them."""


class Policy(Protocol):
    """Proposes batches of schedules and learns their cost."""

    def start(self, space: Space, context: Context) -> None:
        """Begin on a kernel."""

    def propose(self, count: int) -> ScheduleBatch | None:
        """Up to `count` schedules to evaluate, or None when done."""

    def observe(self, batch: ScheduleBatch, cost: CostBatch) -> None:
        """The cost of what was proposed."""

    def best(self) -> Schedule | None:
        """The best schedule seen that fits, if any."""


def asked(policy: Policy) -> AbstractContextManager[None]:
    """While a policy is asked: what one of the user's, or what it adapts, does wrong is blamed on it."""
    own: Any = getattr(policy, "adapts", None) or policy
    return blamed(f"policy {getattr(own, '__name__', type(own).__name__)}", own)


def proposal(policy: Policy, count: int) -> ScheduleBatch | None:
    """What a policy proposes next, None when it is done; CodesignError when that is no batch."""
    with asked(policy):
        batch: Any = policy.propose(count)
    if batch is None or isinstance(batch, ScheduleBatch):
        return batch
    raise CodesignError(
        f"policy {type(policy).__name__}: it proposed a {type(batch).__name__}, not a batch of schedules",
        hint="space.batch(codes) makes one",
    )


class Tracking:
    """Base of the policies here: keeps the best schedule."""

    wants = 0
    """How many of the best schedules so far it wants the price of (0: of all); others may have what they take at the least."""
    resumes = False
    """Whether it can go on where it ended near the best schedule."""

    def __init__(self) -> None:
        self._best: Schedule | None = None
        self._seconds = np.inf

    def start(self, space: Space, context: Context) -> None:
        self.space = space
        self.context = context
        self._best, self._seconds = None, np.inf

    def observe(self, batch: ScheduleBatch, cost: CostBatch) -> None:
        if len(cost):
            row = int(np.argmin(cost.seconds))
            if cost.seconds[row] < self._seconds:
                self._seconds = float(cost.seconds[row])
                self._best = batch.row(row)

    def best(self) -> Schedule | None:
        return self._best


RUNNERS_UP = 16
"""Schedules that are priced beside the best one, for who asks what else there was."""


def leading(
    count: int, held: tuple[Ints, Floats], more: tuple[Ints, Floats]
) -> tuple[tuple[Ints, Floats], npt.NDArray[np.bool_]]:
    """The fastest `count` codes of two lots with their seconds, fastest first, and which of them are of the second lot."""
    codes, seconds = (np.concatenate(pair) for pair in zip(held, more, strict=True))
    order = np.argsort(seconds, kind="stable")[:count]
    return (codes[order], seconds[order]), order >= len(held[0])


class Exhaustive(Tracking):
    """Every schedule of the space, in order, as far as the budget goes; ScheduleError where none ends what has no end."""

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        if space.points > (MOST_WALKED if context.limited else MOST_EXHAUSTED):
            raise ScheduleError(
                f"exhaustive: its space has {space.points:.3g} points, of which about a million are priced a second, and all prices kept",
                place="" if context.summary is None else context.summary.name,
                hint="take another policy"
                if context.limited
                else "give it a budget (--budget), or take another policy",
            )
        self._chunks: Iterator[Ints] = space.enumerate(1 << 18)
        self._left = np.zeros((0, len(space.knobs)), np.int64)

    def propose(self, count: int) -> ScheduleBatch | None:
        if not len(self._left):
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._left = chunk
        codes, self._left = self._left[:count], self._left[count:]
        return self.space.batch(codes)


class Random(Tracking):
    """Schedules drawn evenly from the space; `schedules` of them when the budget allows."""

    def __init__(self, schedules: int = 2000) -> None:
        super().__init__()
        self.schedules = schedules

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._codes: Ints | None = None

    def propose(self, count: int) -> ScheduleBatch | None:
        if self._codes is not None:
            return None
        self._codes = self.space.sample(min(self.schedules, count), self.context.rng)
        return self.space.batch(self._codes) if len(self._codes) else None


FAR, FAR_OF_PRODUCTS = 10.0, 1.15
"""How many times what is asked for the first batch's best may take: steps made it up to 7.6 times as fast in 260 searches of two
models (Llama's layer and BERT); that of products which do not need each other no more than 1.07 times, in 80 searches of four."""

MARGIN = 1.02
"""How much more than what three more steps as good as the last would do a search is given."""


class Descent(Tracking):
    """The fast default: a coarse grid over tiles and warps, then steps from the best few until the best of them stay.

    A space of at most `whole` points is looked at in one batch, which takes less time than a second one would. `coarse`:
    schedules of the first grid at most; `keep`: how many are refined side by side; `settled`: how many of these stay where it
    ends. A budget that the first batch would use up is spent to a third on schedules spread evenly over it, and the rest on steps.
    It gives up where the best is so far from what is asked for that three more steps as good as the last would not do. Where a price is asked
    for, it ends when the best is near what none beats: of a kernel without products, what holds its reduced dims whole is looked at first,
    which often is; and, of products, after steps that bring next to nothing. From there it can go on to the best schedule.
    """

    resumes = True

    def __init__(self, coarse: int = 1024, keep: int = 8, whole: int = 8192, settled: int = 4) -> None:
        super().__init__()
        self.coarse = coarse
        self.keep = keep
        self.settled = settled
        self.whole = whole
        self.wants = max(keep, RUNNERS_UP)

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._pending: Ints | None = None
        self._later = np.zeros((0, len(space.knobs)), np.int64)
        self._front = np.zeros((0, len(space.knobs)), np.int64)
        self._front_seconds = np.zeros(0)
        self._seen: set[int] = set()
        self._places = space.places()
        self._stepped = False
        self._improved = True
        self._narrow = False
        self._partial = True
        self._before = np.inf
        self._begun = False

    def propose(self, count: int) -> ScheduleBatch | None:
        if self.context.arrived:
            return None
        if len(self._later):
            self._pending, self._later = self._later[:count], self._later[:0]
            return self.space.batch(self._pending)
        if self._hopeless():
            self.context.gave_up = True
            return None
        if self._content():
            self.context.settled = True
            return None
        if not self._seen:
            codes = self._first()
            self._partial = self.space.points > self.whole or len(codes) > count
            if len(codes) > count:
                codes = codes[np.linspace(0, len(codes) - 1, max(count // 3, 1)).astype(np.int64)]
            codes, self._later = self._parted(self._fresh(codes, count))
        elif (self._improved or self._narrow) and len(self._front) and self._partial:
            codes = self._steps(count)
        else:
            return None
        if not len(codes):
            return None
        self._pending = codes
        return self.space.batch(codes)

    @property
    def _products(self) -> int:
        """Products of the kernel, one after another; 0 of a space that others measured, which has no kernel."""
        return 0 if self.context.summary is None else self.context.summary.chained

    def _hopeless(self) -> bool:
        """Whether steps can't be expected to come below what is asked for."""
        if not np.isfinite(self._seconds):
            return False
        if self.context.floor >= self.context.below:
            return True
        if not np.isfinite(self._before):  # one batch, of which the best is far from the best there is
            far = FAR_OF_PRODUCTS if self._products == 1 else FAR
            return bool(self._seconds > far * self.context.below)
        return bool(self._seconds > MARGIN * self.context.below * (self._before / self._seconds) ** 3)

    def _content(self) -> bool:
        """Whether a price of products is asked for, to which the last steps brought next to nothing: of 60 searches in Llama's layer that
        went on from there none found more than 0.25 %, where that of a long softmax found 3 %."""
        if self.context.closely or not self._products or not np.isfinite(self._before):
            return False
        return bool(self._seconds >= (1.0 - CLOSE) * self._before)

    def observe(self, batch: ScheduleBatch, cost: CostBatch) -> None:
        opening = not self._begun
        if opening:
            self._begun = not len(self._later)
        else:
            self._before = self._seconds
        super().observe(batch, cost)
        assert self._pending is not None
        held, pending = (self._front, self._front_seconds), (self._pending, cost.seconds)
        (codes, seconds), new = leading(self.keep, held, pending)
        fits = np.isfinite(seconds)
        self._improved = opening or bool((new & fits)[: self.settled].any())
        self._front, self._front_seconds = codes[fits], seconds[fits]

    def _parted(self, codes: Ints) -> tuple[Ints, Ints]:
        """The codes to look at at once, and those to look at only if none of these is as good as any can be."""
        if self.context.closely or self._products:
            return codes, codes[:0]
        held = np.ones(len(codes), dtype=np.bool_)
        for name, column in self.space.batch(codes).columns.items():
            if name.startswith("reduce."):
                held &= np.equal(column, RESIDENT)
        return (codes[held], codes[~held]) if held.any() else (codes, codes[:0])

    def _fresh(self, codes: Ints, count: int) -> Ints:
        """The first `count` codes that were not proposed before, which now they are."""
        numbers = (codes @ self._places).tolist()
        fresh = [row for row, number in enumerate(numbers) if number not in self._seen][:count]
        self._seen.update(numbers[row] for row in fresh)
        return codes[fresh]

    def _steps(self, count: int) -> Ints:
        """New steps from the best few. Those that would use up what is left of a budget are of one knob, and from the best alone, until these
        find nothing."""
        around = self.space.neighbours(self._front)
        self._narrow = self._improved and len(around) > count // 2
        if self._narrow:
            few = max(count // (6 * len(self.space.knobs)), 1)  # so that there are three rounds of steps
            codes = self._fresh(self._in_shared_ways(self.space.neighbours(self._front[:few], pairs=False)), count)
            if len(codes):
                return codes
            self._narrow = False
        return self._fresh(self._in_shared_ways(around), count)

    def _in_shared_ways(self, codes: Ints) -> Ints:
        """The steps that leave no way to reduce which all of the best few share; the first time all."""
        if self._stepped:
            for place, knob in enumerate(self.space.knobs):
                shared = self._front[0, place]
                if knob.name.startswith("reduce.") and (self._front[:, place] == shared).all():
                    codes = codes[codes[:, place] == shared]
        self._stepped = True
        return self._mostly_whole(codes, int(self._stepped_dims(self._front[:1])[0]) + 1)

    def _first(self) -> Ints:
        """Every value, every other or every third of the tile and warp knobs, as finely as `coarse` allows; plus a random handful."""
        if self.space.points <= self.whole:
            return self._mostly_whole(np.concatenate([*self.space.enumerate(), self.space.start()[:0]]))
        tiles = [knob for knob in self.space.knobs if knob.name.startswith("tile.") or knob.name == "warps"]
        codes = self.space.start()
        codes = codes[self.space.legal(codes)]
        for step in (1, 2, 3, 4):
            points = {knob.name: knob.values[(len(knob.values) - 1) % step :: step] for knob in tiles}
            total = 1
            for values in points.values():
                total *= len(values)
            if total <= 4 * self.coarse:
                grid = self.space.grid(points)
                if len(grid) <= self.coarse:
                    codes = np.concatenate([codes, grid])
                    break
        return self._mostly_whole(unique_rows(np.concatenate([codes, self._handful(codes)])))

    def _handful(self, codes: Ints) -> Ints:
        """Schedules drawn evenly, but what they do with reduced dims one of the given does, too: anything else is a text of its own, which takes
        as long to make and to read as thousands of schedules to price."""
        drawn = self.space.sample(64, np.random.default_rng(0))
        names = [knob.name for knob in self.space.knobs]
        reduced = [
            place
            for place, name in enumerate(names)
            if name.startswith("reduce.") or f"reduce.{name.removeprefix('tile.')}" in names
        ]
        if not len(codes) or not reduced:
            return drawn
        drawn = drawn.copy()
        drawn[:, reduced] = codes[np.arange(len(drawn)) % len(codes)][:, reduced]
        return drawn[self.space.legal(drawn)]

    def _mostly_whole(self, codes: Ints, most: int = 1) -> Ints:
        """The codes in which no more than so many of the short reduced dims are gone over in steps, or no more than in any of them: with each of
        several dims in each of its ways the texts would be the product of all."""
        stepped = self._stepped_dims(codes)
        return codes[stepped <= max(int(stepped.min()), most)] if len(codes) else codes

    def _stepped_dims(self, codes: Ints) -> Ints:
        """How many of the short reduced dims each code goes over in steps."""
        found, columns = np.zeros(len(codes), dtype=np.int64), self.space.batch(codes).columns
        for dim in self.context.short:
            if f"reduce.{dim}" in columns:
                found += np.not_equal(columns[f"reduce.{dim}"], RESIDENT)
        return found


EXTRAS = {"kernel_tuner": "kernel-tuner", "optuna": "lab", "cmaes": "lab", "sklearn": "lab"}
"""Packages that policies are made of, and the extra that brings each."""


def _to_install(package: str | None) -> str:
    """What to do about a module that is not there."""
    extra = EXTRAS.get((package or "").partition(".")[0])
    return "give package.module:Class" if extra is None else f"pip install 'codesign[{extra}]'"


def _later(module: str, factory: str) -> Callable[..., Policy]:
    """A policy of `codesign.passes.schedule.policies`, imported when it is made; CodesignError when what it needs is not installed."""

    def make(**options: Any) -> Policy:
        try:
            found = importlib.import_module(f"codesign.passes.schedule.policies.{module}")
        except ModuleNotFoundError as error:
            hint = _to_install(error.name)
            raise CodesignError(f"this policy needs {error.name}, which is not installed", hint=hint) from error
        policy: Policy = getattr(found, factory)(**options)
        return policy

    return make


POLICIES: dict[str, Callable[..., Policy]] = {
    "default": Descent,
    "exhaustive": Exhaustive,
    "random": Random,
    "quasi_random": _later("quasi_random", "QuasiRandom"),
    "beam": _later("beam", "Beam"),
    "evolutionary": _later("evolution", "Evolutionary"),
    "annealing": _later("annealing", "Annealing"),
    "tpe": _later("optuna_sampler", "tpe"),
    "cma_es": _later("optuna_sampler", "cma_es"),
    "nsga_ii": _later("optuna_sampler", "nsga_ii"),
    "gaussian": _later("gaussian", "Gaussian"),
    "climb": _later("climb", "Climb"),
    "gradient": _later("gradient", "Gradient"),
}
"""Policies that ship with codesign, by name."""

ENTRY_POINTS = "codesign.policies"


def policy_names() -> list[str]:
    """Names that `--policy` takes, third parties' entry points included."""
    return sorted({*POLICIES, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def make_policy(policy: str | Policy, options: Mapping[str, Any] | None = None) -> Policy:
    """A policy from its name, from `package.module:Class`, or itself; CodesignError names what is near.

    `options` go to what makes it. What is a sampler of Optuna or a strategy of Kernel Tuner is adapted.
    """
    if not isinstance(policy, str):
        return policy
    return _instance(_factory(policy), policy, options or {})


def _factory(policy: str) -> Any:
    if policy in POLICIES:
        return POLICIES[policy]
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == policy:
            return point.load()
    if ":" in policy:
        module, _, name = policy.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise CodesignError(f"policy {policy!r}: {error}", hint=_to_install(error.name)) from error
        except Exception as error:  # a file of the user's may fail in any way
            raise CodesignError(f"policy {policy!r}: {error}", hint="give package.module:Class") from error
    near = difflib.get_close_matches(policy, policy_names(), n=3, cutoff=0.3) or policy_names()
    raise CodesignError(f"unknown policy {policy!r}", hint=f"nearest: {', '.join(near)}; or package.module:Class")


def is_strategy(thing: Any) -> bool:
    """Whether something can be called as Kernel Tuner calls a strategy: with `searchspace`, `runner` and `tuning_options`."""
    try:
        names = tuple(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return False
    return names == ("searchspace", "runner", "tuning_options")


def _instance(factory: Any, name: str, options: Mapping[str, Any]) -> Policy:
    if is_strategy(factory):
        return _later("strategy", "adapted")(strategy=factory, options=options)
    with blamed(f"policy {name!r}", factory):
        try:
            made: Any = factory(**options)
        except TypeError as error:
            raise CodesignError(f"policy {name!r}: {error}", hint="options are arguments of its class") from error
    if callable(getattr(made, "sample_relative", None)):  # as all samplers of Optuna have
        return _later("optuna_sampler", "adapted")(sampler=made, factory=factory, options=options)
    if is_strategy(getattr(made, "tune", None)) or any(
        base.__module__ == "kernel_tuner.strategies.wrapper" for base in type(made).__mro__
    ):
        return _later("strategy", "adapted")(strategy=made, options={})
    for method in ("start", "propose", "observe", "best"):
        if not callable(getattr(made, method, None)):
            raise CodesignError(
                f"policy {name!r} has no method {method}", hint="see codesign.passes.schedule.policy.Policy"
            )
    result: Policy = made
    return result
