"""From the scores of a study to its leaderboard."""

from __future__ import annotations

import math
from typing import Any

from codesign.lab.board import Leaderboard, Row
from codesign.lab.scoring import Scores, Standing, compare


def leaderboard(scores: Scores, command: str = "") -> Leaderboard:
    """The outcome of a study."""
    rows: list[Row] = []
    leaders: dict[str, str] = {}
    for standing in scores.standings():
        row = _row(standing)
        leader = leaders.setdefault(standing.budget, standing.policy)
        if leader != standing.policy and row.score is not None:
            row.versus_best = compare(scores, leader, standing.policy, standing.budget).probability
        rows.append(row)
    names = [f"{problem['name']} on {problem['machine']}" for problem in scores.problems.values()]
    return Leaderboard(study=scores.study, problems=sorted(names), rows=rows, unfinished=scores.left, command=command)


def _row(standing: Standing) -> Row:
    return Row(
        policy=standing.policy,
        budget=standing.budget,
        score=_known(standing.score),
        low=_known(standing.low),
        high=_known(standing.high),
        regret=_known(standing.regret),
        solved=standing.solved,
        evaluations=standing.evaluations,
        policy_seconds=standing.policy_seconds,
        runs=standing.runs,
        performance=[_known(value) for value in standing.curve],
        band=[(_known(low), _known(high)) for low, high in zip(*standing.band, strict=True)],
        regrets=[_known(value) for value in standing.regrets],
    )


def _known(value: Any) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
