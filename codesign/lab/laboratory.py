"""The API of studies in one place; importing it needs the extra `lab`."""

from codesign.lab.contest import open_study, run_study
from codesign.lab.database import Database
from codesign.lab.engine import Study
from codesign.lab.leaderboard import leaderboard
from codesign.lab.plan import Budget, KernelPlan, PolicyPlan, StudyPlan, make_plan, read_plan
from codesign.lab.scoring import Scores, compare

__all__ = [
    "Budget",
    "Database",
    "KernelPlan",
    "PolicyPlan",
    "Scores",
    "Study",
    "StudyPlan",
    "compare",
    "leaderboard",
    "make_plan",
    "open_study",
    "read_plan",
    "run_study",
]
