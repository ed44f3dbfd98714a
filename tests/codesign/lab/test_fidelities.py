"""A policy that climbs through fidelities: what it glances at is paid, recorded and repeated, and is worth it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import PRICE_OF_A_PRICE
from codesign.costmodel.protocol import CostBatch
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import ScheduleBatch
from codesign.lab.arena import Arena, compete
from codesign.lab.contest import ProblemPrices, open_study
from codesign.lab.database import GLANCE, Database, Stretch
from codesign.lab.export import rows, spaces
from codesign.lab.kernels import kernel_problem
from codesign.lab.plan import make_plan
from codesign.lab.prices import plain
from codesign.lab.problem import Problem
from codesign.passes.schedule.policy import make_policy

PLAN: dict[str, Any] = {
    "policies": ["climb"],
    "kernels": ["softmax.512x1000"],
    "machines": ["h100_sxm"],
    "budget": 40,
    "seeds": 1,
}


def problem(fidelity: int) -> Problem:
    """A kernel whose fastest schedule is not the first that chance comes upon."""
    sizes = {"T": 512, "N": 1000}
    return kernel_problem("softmax", workloads.softmax(), load_machine("h100_sxm"), sizes, fidelity)


def arena(asked: Problem, budget: int, seed: int = 0) -> Arena:
    assert asked.summary is not None
    assert asked.target is not None
    return Arena(
        summary=asked.summary,
        machine=asked.target,
        model=ProblemPrices(asked),
        sizes=asked.sizes,
        budget=budget,
        rng=np.random.default_rng(seed),
        problem=asked,
    )


def test_glances_are_paid_by_what_they_take() -> None:
    place = arena(problem(1), 40)
    assert place.quicker == 0
    assert place.glances(0.5) == 20 * PRICE_OF_A_PRICE[1] / PRICE_OF_A_PRICE[0]
    codes = place.problem.space.sample(int(PRICE_OF_A_PRICE[1]) * 3, place.rng)
    assert np.isfinite(place.glance(place.problem.space.batch(codes)).seconds).any()
    assert place.glanced == pytest.approx(len(codes) / PRICE_OF_A_PRICE[1])
    assert place.remaining == 40 - np.ceil(place.glanced)
    with pytest.raises(ScheduleError, match="can't be glanced at"):
        replace(place, budget=1).glance(place.problem.space.batch(codes))


def test_a_roofline_has_nothing_quicker() -> None:
    assert arena(problem(0), 40).quicker is None
    assert arena(problem(0), 40).glances(1.0) == 0


def test_the_tile_model_shows_the_event_simulation_where_to_look() -> None:
    asked = problem(2)
    climbed = compete(make_policy("climb"), arena(asked, 12))
    drawn = [compete(make_policy("random"), arena(asked, 12, seed))["best"] for seed in range(3)]
    assert climbed["best"] < np.median(drawn)
    assert climbed["evaluations"] <= 11  # one was paid for glances


def test_where_the_quicker_model_says_nothing_of_the_order_only_the_first_round_is_glanced_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = arena(problem(1), 60)
    told = Arena.glance

    def wrong(self: Arena, batch: ScheduleBatch) -> CostBatch:
        told(self, batch)
        return plain(np.arange(1.0, len(batch) + 1) % 3)

    monkeypatch.setattr(Arena, "glance", wrong)
    result = compete(make_policy("climb"), place)
    assert 0 < place.glanced < 1
    assert result["evaluations"] == 59
    assert result["best"] <= 1.01 * compete(make_policy("random"), arena(problem(1), 60))["best"]


@pytest.mark.parametrize("budget", range(1, 12))
def test_a_budget_is_kept_to_the_last(budget: int) -> None:
    place = arena(problem(1), budget)
    result = compete(make_policy("climb"), place)
    assert result["best"] is not None
    assert place.done <= budget
    assert place.done == result["evaluations"] + np.ceil(place.glanced)


def test_what_was_paid_is_a_row_of_the_record_and_no_schedule_of_the_table(tmp_path: Path) -> None:
    base = Database(tmp_path / "a.db")
    study = open_study(make_plan(PLAN), base)
    study.work()
    (run,) = study.database.runs("study")
    stretches = base.stretches(run.key)
    numbers = np.concatenate([stretch.numbers for stretch in stretches])
    paid = int(np.count_nonzero(numbers == GLANCE))
    assert 1 <= paid <= len(numbers) == 40
    table = rows(base, "study")
    assert len(table) == 40 - paid
    assert sorted(table.position) == np.flatnonzero(numbers != GLANCE).tolist()
    (measured,) = spaces(base, "study")
    assert len(measured.rows) >= len(table)


@pytest.mark.parametrize("reached", [1, 7, 40])
def test_a_run_that_goes_on_records_what_an_undisturbed_one_does(reached: int, tmp_path: Path) -> None:
    whole, halved = Database(tmp_path / "whole.db"), Database(tmp_path / "halved.db")
    study = open_study(make_plan(PLAN), whole)
    study.work()
    (run,) = study.database.runs("study")
    stretches = whole.stretches(run.key)
    again = open_study(make_plan(PLAN), halved)
    claimed = halved.claim("study")
    assert claimed is not None
    (stretch,) = stretches
    halved.add(run.key, [Stretch(0, stretch.numbers[:reached], stretch.seconds[:reached], [])])
    halved.release(run.key)
    again.work()
    for column in ("numbers", "seconds"):
        one, other = (np.concatenate([getattr(s, column) for s in base.stretches(run.key)]) for base in (whole, halved))
        assert np.array_equal(one, other)
