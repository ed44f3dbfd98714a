"""Scores against closed forms: what random search finds, performance of the best and of random itself, and the test of significance."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from codesign.lab.random_search import evaluations_until, expected_best

pytest.importorskip("sqlalchemy")
from codesign.lab.contest import open_study
from codesign.lab.laboratory import Database, Scores, compare, leaderboard, make_plan
from tests.codesign.lab.studies import bowl


def test_random_search_is_the_mean_over_all_draws() -> None:
    seconds = np.array([5.0, 1.0, 4.0, 2.0, 2.0, 9.0])
    for draws in range(1, 7):
        exact = np.mean([min(chosen) for chosen in combinations(seconds, draws)])
        assert expected_best(seconds, [draws])[0] == pytest.approx(exact)


def test_what_does_not_fit_counts_as_the_worst_that_does() -> None:
    some, all_known = np.array([3.0, 1.0, np.inf, 2.0]), np.array([3.0, 1.0, 3.0, 2.0])
    assert expected_best(some, [1, 2, 3]).tolist() == expected_best(all_known, [1, 2, 3]).tolist()


def test_draws_until_a_share_of_the_way() -> None:
    seconds = np.linspace(1.0, 3.0, 201)
    draws = evaluations_until(seconds, 0.95)
    assert expected_best(seconds, [draws])[0] <= 2.0 - 0.95 < expected_best(seconds, [draws - 1])[0]


class Best:
    """Proposes the best schedule first, and no other."""

    def start(self, space: object, context: object) -> None:
        self.space, self.done = space, False

    def propose(self, count: int) -> object:
        if self.done:
            return None
        self.done = True
        return self.space.batch(np.array([[4, 4, 3]]))  # type: ignore[attr-defined]

    def observe(self, batch: object, cost: object) -> None: ...

    def best(self) -> None: ...


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    policies = ["random", "evolutionary", {"policy": f"{__name__}:Best", "name": "best"}]
    plan = make_plan({"policies": policies, "kernels": ["add.8x8"], "seeds": 12, "budget": 60})
    database = Database(tmp_path_factory.mktemp("scores") / "s.db")
    open_study(plan, database, made=[bowl()]).work()
    return Scores(database, plan.name)


def test_the_optimum_at_once_scores_one_and_random_search_about_nothing(scores: Scores) -> None:
    found = {standing.policy: standing for standing in scores.standings()}
    assert found["best"].score == pytest.approx(1.0)
    assert found["best"].regret == pytest.approx(0.0)
    assert found["best"].solved == 1.0
    assert abs(found["random"].score) < 0.35
    assert found["random"].low < 0.0 < found["random"].high
    assert found["evolutionary"].score > 0.2


def test_a_difference_is_told_from_chance(scores: Scores) -> None:
    (budget,) = {budget for _, budget in scores.groups}
    sure = compare(scores, "best", "random", budget)
    assert sure.difference > 0.5
    assert sure.probability < 0.01
    assert compare(scores, "random", "random", budget).probability == 1.0
    back = compare(scores, "random", "best", budget)
    assert back.difference == pytest.approx(-sure.difference)
    assert back.probability == pytest.approx(sure.probability, abs=0.01)


def test_a_leaderboard_keeps_what_was_scored(scores: Scores, tmp_path: Path) -> None:
    from codesign.lab.board import read_leaderboard
    from codesign.lab.study_page import study_page

    board = leaderboard(scores)
    assert board.rows[0].policy == "best"
    assert board.rows[0].versus_best is None
    path = tmp_path / "board.json"
    path.write_text(board.model_dump_json())
    assert read_leaderboard(path) == board
    text = study_page(board)
    assert text.count("<svg") == 2
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "<script" not in text
