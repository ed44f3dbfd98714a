"""Every policy that ships keeps to its budget and to the space, repeats by its seed, and finds more than chance does."""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.ir.errors import CodesignError, ScheduleError
from codesign.lab.arena import Arena, compete
from codesign.lab.contest import identity
from codesign.lab.laboratory import make_plan
from codesign.lab.prices import price_all
from codesign.lab.problem import Floats
from codesign.lab.random_search import expected_best
from codesign.passes.schedule.policy import POLICIES, make_policy
from codesign.passes.schedule.space import Ints
from tests.codesign.lab.studies import bowl

EXTRA = {"tpe": "optuna", "cma_es": "cmaes", "nsga_ii": "optuna", "gaussian": "sklearn"}
PROBLEM = bowl()
TABLE = price_all(PROBLEM)


def arena(budget: int, seed: int = 0) -> Arena:
    unknown: Any = dict.fromkeys(("summary", "machine", "model"))
    rng = np.random.default_rng(seed)
    place = Arena(**unknown, problem=PROBLEM, table=TABLE, budget=budget, rng=rng)
    place.recorded = []  # type: ignore[attr-defined]
    place.record = place.recorded.extend  # type: ignore[attr-defined]
    return place


def recorded(place: Arena) -> tuple[Ints, Floats]:
    """Numbers and seconds of all that was evaluated."""
    stretches = [*place.recorded, *place.taken()]  # type: ignore[attr-defined]
    assert [s.start for s in stretches] == np.cumsum([0, *(len(s.numbers) for s in stretches[:-1])]).tolist()
    return np.concatenate([s.numbers for s in stretches]), np.concatenate([s.seconds for s in stretches])


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_policy_keeps_to_its_budget_and_repeats(name: str) -> None:
    pytest.importorskip(EXTRA.get(name, "numpy"))
    found = []
    for _ in range(2):
        place = arena(40)
        result = compete(make_policy(name), place)
        numbers, seconds = recorded(place)
        assert 1 <= result["evaluations"] <= 40
        assert len(np.unique(numbers)) == len(numbers) == result["evaluations"]
        assert PROBLEM.space.legal(PROBLEM.codes(numbers)).all()
        assert result["best"] == seconds.min()
        assert np.array_equal(seconds, TABLE.answer(numbers).seconds)
        found.append(numbers.tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "name", ["default", "beam", "evolutionary", "annealing", "tpe", "cma_es", "gaussian", "gradient"]
)
def test_a_policy_that_learns_is_better_than_random_search(name: str) -> None:
    pytest.importorskip(EXTRA.get(name, "numpy"))
    bests = [compete(make_policy(name), arena(50, seed))["best"] for seed in range(2)]
    assert np.mean(bests) < expected_best(TABLE.seconds, [50])[0]


def test_a_policy_that_only_walks_uses_the_whole_space_up() -> None:
    for name in ("exhaustive", "quasi_random", "evolutionary", "beam", "annealing"):
        result = compete(make_policy(name), arena(10_000))
        assert result["best"] == TABLE.best, name
        assert result["evaluations"] <= len(TABLE.numbers)


def test_options_reach_a_policy_and_wrong_ones_are_refused() -> None:
    assert make_policy("beam", {"width": 7}).width == 7  # type: ignore[attr-defined]
    with pytest.raises(CodesignError, match="unexpected keyword"):
        make_policy("beam", {"depth": 7})


def test_a_sampler_of_optuna_is_a_policy() -> None:
    optuna = pytest.importorskip("optuna")
    assert compete(make_policy("optuna.samplers:RandomSampler"), arena(20))["evaluations"] == 20
    assert optuna.samplers.RandomSampler is not None


SAMPLERS = """
import random

import numpy as np
import optuna

class Own(optuna.samplers.BaseSampler):
    def __init__(self, generator="state"):
        kinds = {"state": np.random.RandomState, "generator": np.random.default_rng, "plain": random.Random}
        self.parts = [{"all": kinds[generator]()}]
        self.within = optuna.samplers.RandomSampler()

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        drawn = self.parts[0]["all"]
        if drawn.random() < 0.5:
            return self.within.sample_independent(study, trial, name, distribution)
        return int(distribution.low + drawn.random() * (distribution.high - distribution.low))
"""


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((f"optuna.samplers:{name}Sampler", {}) for name in ("Random", "TPE", "CmaEs", "NSGAII", "QMC")),
        *(("own_samplers:Own", {"generator": kind}) for kind in ("state", "generator", "plain")),
    ],
)
def test_a_sampler_without_a_seed_draws_by_that_of_the_run(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that was stopped goes on with the rows that it would have had, and each seed has its own."""
    pytest.importorskip("optuna")
    (tmp_path / "own_samplers.py").write_text(SAMPLERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for seed in (3, 3, 4):
        place = arena(12, seed)
        compete(make_policy(name, options), place)
        found.append(recorded(place)[0].tolist())
    assert found[0] == found[1] != found[2]
    again = make_policy(name, options)
    for _ in range(2):  # one that searches for two kernels searches for each as it would for it alone
        place = arena(12, 3)
        compete(again, place)
        assert recorded(place)[0].tolist() == found[0]


def test_a_sampler_keeps_the_seed_that_its_options_give() -> None:
    pytest.importorskip("optuna")
    found = []
    for seed in (3, 4):
        place = arena(12, seed)
        compete(make_policy("optuna.samplers:TPESampler", {"seed": 5, "n_startup_trials": 40}), place)
        found.append(recorded(place)[0].tolist())
    assert found[0][:8] == found[1][:8]


def test_a_policy_of_a_package_that_is_not_there_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kernel_tuner", None)
    with pytest.raises(CodesignError, match=r"kernel_tuner.*codesign\[kernel-tuner\]"):
        make_policy("kernel_tuner.strategies.genetic_algorithm:tune")


def test_an_arena_refuses_what_is_over_the_budget_and_answers_repeats_without_charge() -> None:
    place = arena(5)
    codes = next(PROBLEM.space.enumerate())
    with pytest.raises(ScheduleError, match="only 5 of the budget"):
        place.evaluate(PROBLEM.space.batch(codes[:6]))
    twice = PROBLEM.space.batch(codes[[0, 1, 0]])
    cost = place.evaluate(twice)
    assert cost.seconds[0] == cost.seconds[2]
    assert place.evaluated == 2
    place.evaluate(twice)
    assert place.evaluated == 2
    (stretch,) = place.taken()
    assert stretch.numbers.tolist() == PROBLEM.numbers(PROBLEM.space.batch(codes[:2])).tolist()


def test_each_schedule_counts_once_in_whatever_order_it_comes() -> None:
    place = arena(100)
    codes = next(PROBLEM.space.enumerate())
    counted = []
    for rows in ([0, 1, 2, 3], [2, 3, 4, 5], [7, 6, 5, 7], [6, 7, 8], [3, 3], [3]):
        before = place.evaluated
        place.evaluate(PROBLEM.space.batch(codes[rows]))
        counted.append(place.evaluated - before)
    assert counted == [4, 2, 2, 1, 0, 0]
    (stretch,) = place.taken()
    order = [0, 1, 2, 3, 4, 5, 7, 6, 8]
    assert stretch.numbers.tolist() == PROBLEM.numbers(PROBLEM.space.batch(codes[order])).tolist()


def test_schedules_are_found_by_their_knobs_too() -> None:
    codes = next(PROBLEM.space.enumerate())[5:9]
    batch = PROBLEM.space.batch(codes)
    plain = batch.take(np.arange(4))
    assert PROBLEM.space.codes_of(plain).tolist() == codes.tolist()
    assert PROBLEM.numbers(plain).tolist() == PROBLEM.numbers(batch).tolist()


@pytest.mark.parametrize("chunk", [1, 7, 54, 100, 1 << 16])
def test_the_space_is_the_same_in_chunks_of_any_size(chunk: int) -> None:
    whole = np.concatenate(list(PROBLEM.space.enumerate()))
    parts = list(PROBLEM.space.enumerate(chunk))
    assert np.array_equal(np.concatenate(parts), whole)
    assert max(map(len, parts)) <= chunk
    assert np.array_equal(whole @ PROBLEM.strides, np.sort(whole @ PROBLEM.strides))


STRATEGIES = """
import random

def tune(searchspace, runner, tuning_options):
    return runner.run(searchspace.list, tuning_options)

class Odd:
    def tune(self, searchspace, runner, tuning_options):
        return runner.run(searchspace.list[::2] + searchspace.list[:4], tuning_options)

def broken(searchspace, runner, tuning_options):
    runner.run(searchspace.list[:3], tuning_options)
    raise KeyError("nothing there")
"""
WALK = """
import random
from kernel_tuner.strategies.wrapper import OptAlg

class Walk(OptAlg):
    def __call__(self, func, searchspace):
        (here,) = searchspace.get_random_sample(1)
        while True:
            there = random.choice(searchspace.get_neighbors(here, neighbor_method="Hamming"))
            here = min(here, there, key=func)
"""


@pytest.mark.others
@pytest.mark.parametrize(
    "name",
    [
        "theirs:tune",
        "theirs:Odd",
        "walk:Walk",
        "kernel_tuner.strategies.genetic_algorithm:tune",
        "kernel_tuner.strategies.brute_force:tune",
    ],
)
def test_a_strategy_of_kernel_tuner_is_a_policy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package; at 40 evaluations it is stopped where it waits, at ten times all schedules it comes to its end."""
    pytest.importorskip("kernel_tuner", reason="the extra kernel-tuner is not installed")
    (tmp_path / "theirs.py").write_text(STRATEGIES)
    (tmp_path / "walk.py").write_text(WALK)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = threading.active_count()
    found = []
    for budget in (40, 40, 10 * len(TABLE.numbers)):
        place = arena(budget)
        result = compete(make_policy(name), place)
        numbers, seconds = recorded(place)
        assert len(np.unique(numbers)) == len(numbers) == result["evaluations"] <= min(budget, len(TABLE.numbers))
        assert np.array_equal(seconds, TABLE.answer(numbers).seconds)
        found.append(numbers.tolist())
    assert found[0] == found[1]
    assert len(found[0]) == 40 < len(found[2])
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.others
def test_what_is_wrong_with_a_strategy_is_blamed_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kernel_tuner", reason="the extra kernel-tuner is not installed")
    (tmp_path / "failing.py").write_text(STRATEGIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CodesignError, match=r"policy broken failed: .*nothing there"):
        compete(make_policy("failing:broken"), arena(40))


def test_what_is_wrong_with_a_sampler_is_blamed_on_it() -> None:
    optuna = pytest.importorskip("optuna")

    class Failing(optuna.samplers.RandomSampler):  # type: ignore[name-defined, misc]
        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            raise KeyError("nothing there")

    from codesign.passes.schedule.policies.optuna_sampler import adapted

    with pytest.raises(CodesignError, match=r"policy Failing failed: .*nothing there"):
        compete(adapted(Failing()), arena(40))


def test_a_strategy_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kernel_tuner", None)
    monkeypatch.delitem(sys.modules, "codesign.passes.schedule.policies.strategy", raising=False)

    class Theirs:
        def tune(self, searchspace: Any, runner: Any, tuning_options: Any) -> None: ...

    monkeypatch.setattr("codesign.passes.schedule.policy._factory", lambda name: Theirs)
    with pytest.raises(CodesignError, match=r"needs kernel_tuner.*codesign\[kernel-tuner\]"):
        make_policy("theirs:Theirs")


def test_what_an_adapted_sampler_chooses_follows_from_its_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    text = 'import optuna\n\nclass Own(optuna.samplers.RandomSampler):\n    """One."""\n'
    (tmp_path / "own_sampler.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    (policy,) = make_plan({"policies": ["own_sampler:Own"], "kernels": ["add.8x8"]}).policies
    first = identity(policy)
    assert identity(policy) == first
    (tmp_path / "own_sampler.py").write_text(text.replace("One", "Two"))
    assert identity(policy) != first
