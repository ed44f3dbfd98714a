"""The outcome of a study as one JSON document: what is committed and rendered."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codesign.costmodel.faults import fault
from codesign.ir.errors import CodesignError

POINTS = 40
"""Shares of the budget at which performance is taken."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Row(_Document):
    """A policy under a budget; see `Standing`. `versus_best`: probability that it is as good as the first of its budget."""

    policy: str
    budget: str
    score: float | None
    low: float | None
    high: float | None
    regret: float | None
    solved: float
    evaluations: float
    policy_seconds: float
    runs: int
    versus_best: float | None = None
    performance: list[float | None] = Field(default_factory=list)
    band: list[tuple[float | None, float | None]] = Field(default_factory=list)
    regrets: list[float | None] = Field(default_factory=list)


class Leaderboard(_Document):
    """Standings of a study, and on what."""

    study: str
    problems: list[str]
    rows: list[Row]
    unfinished: int = 0
    command: str = ""
    points: int = POINTS


def read_leaderboard(path: Path) -> Leaderboard:
    """One from its file; CodesignError names the field that is wrong."""
    try:
        return Leaderboard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CodesignError(f"no leaderboard: {fault(error, Leaderboard)}", place=str(path)) from None
    except OSError as error:
        raise CodesignError(f"can't be read: {error.strerror}", place=str(path)) from None


HEADS = (
    "policy",
    "budget",
    "score",
    "95 % interval",
    "regret",
    "within 1 %",
    "evaluations",
    "own time",
    "runs",
    "p against the first",
)


def cells(row: Row) -> list[str]:
    """A row of the leaderboard as text."""
    interval = "–" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
    return [
        row.policy,
        row.budget,
        "–" if row.score is None else f"{row.score:.3f}",
        interval,
        "–" if row.regret is None else f"{row.regret:.2%}",
        f"{row.solved:.0%}",
        f"{row.evaluations:,.0f}",
        f"{row.policy_seconds:.3g} s",
        str(row.runs),
        "–" if row.versus_best is None else f"{row.versus_best:.4f}",
    ]
