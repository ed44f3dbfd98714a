"""The page of a study: leaderboard, performance and regret over the budget, and what was searched."""

from __future__ import annotations

from codesign.lab import figures
from codesign.lab.board import HEADS, Leaderboard, cells
from codesign.lab.page import Section, page, picture, table
from codesign.report import counted


def study_page(board: Leaderboard) -> str:
    """The page of a leaderboard."""
    explained = (
        "The score is the mean over the budget of (B - F) / (B - optimum), where F is the best time found so far and B what random search "
        "is expected to have found by then (Willemsen et al. 2024): 0 is as good as random search, 1 the optimum at once. Intervals are "
        "bootstrapped over seeds; p is of a permutation test of seeds within each problem."
    )
    first = Section("Leaderboard", [explained], [table("Leaderboard", HEADS, [cells(row) for row in board.rows])])
    sections = [first]
    for budget in dict.fromkeys(row.budget for row in board.rows):
        rows = [row for row in board.rows if row.budget == budget]
        picked = [max(board.points // 10 * tenth, 1) - 1 for tenth in (1, 2, 4, 6, 8, 10)]
        heads = ["policy", *(f"{(at + 1) / board.points:.0%}" for at in picked)]
        parts = [
            picture(f"Performance over {budget} from -1 on, mean over problems, with 95 % bands over seeds", figures.performance(board, budget)),
            table(f"Performance after a share of {budget}", heads, [[row.policy, *(row.performance[at] for at in picked)] for row in rows]),
            picture(f"Regret over {budget}: median over seeds, mean over problems", figures.regret(board, budget)),
            table(f"Regret after a share of {budget}", heads, [[row.policy, *(_share(row.regrets[at]) for at in picked)] for row in rows]),
        ]  # fmt: skip
        sections.append(Section(f"Over {budget}", [], parts))
    sections.append(
        Section("Problems", [], [table("Problems", ["kernel and machine"], [[name] for name in board.problems])])
    )
    lead = [f"{counted(len(board.problems), 'problem', 'problems')}, {len(board.rows)} policies and budgets."]
    if board.unfinished:
        lead.append(f"{board.unfinished} runs are not done yet and not counted.")
    if board.command:
        lead.append(f"Made by: {board.command}")
    return page(f"Study {board.study}", lead, sections)


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"
