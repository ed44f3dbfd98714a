"""Scores as the field gives them: performance over the budget relative to random search (Willemsen et al. 2024), and regret.

Performance after a share x of the budget is (B(x) - F(x)) / (B(x) - optimum): 0 for as good as random search is expected to be, 1 for the
optimum, negative for worse than random. It is averaged over seeds, then over problems; the score of a policy is its mean over x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from codesign.ir.errors import CodesignError
from codesign.lab.board import POINTS
from codesign.lab.database import Database, Run, Stretch
from codesign.lab.prices import Prices
from codesign.lab.problem import Floats
from codesign.lab.random_search import expected_best

RESAMPLES = 1000
CLOSE = 0.01
"""A run solved its problem when it came within this share of the optimum."""


@dataclass(frozen=True)
class Trace:
    """What a run had found, over the evaluations it made: `best` [n] so far, and `elapsed` [n] seconds of the policy's own time."""

    run: Run
    best: Floats
    elapsed: Floats

    @staticmethod
    def of(run: Run, stretches: Sequence[Stretch]) -> Trace:
        """From what was recorded."""
        seconds = np.concatenate([np.zeros(0), *(stretch.seconds for stretch in stretches)])
        elapsed = np.zeros(len(seconds))
        for stretch in stretches:
            at, before = stretch.start, elapsed[stretch.start - 1] if stretch.start else 0.0
            for count, spent in stretch.marks:
                elapsed[at : at + count] = before = max(spent, before)
                at += count
            elapsed[at : stretch.start + len(stretch.seconds)] = before
        return Trace(run, np.minimum.accumulate(seconds) if len(seconds) else seconds, elapsed)

    def after(self, evaluations: npt.NDArray[np.int64]) -> Floats:
        """Best time after so many evaluations; infinite before the first."""
        held = np.concatenate([[np.inf], self.best])
        return held[np.minimum(evaluations, len(self.best))]

    def made(self, seconds: Floats) -> npt.NDArray[np.int64]:
        """Evaluations made within so many seconds of the policy's own time."""
        return np.searchsorted(self.elapsed, seconds, side="right").astype(np.int64)


@dataclass(frozen=True)
class Standing:
    """A policy under a budget: `score` with its 95 % interval over seeds, `curve` [POINTS] with its band, `regret`: how far the best found is
    from the optimum (mean over problems of the median over seeds), `solved`: share of runs within 1 %."""

    policy: str
    budget: str
    score: float
    low: float
    high: float
    regret: float
    solved: float
    evaluations: float
    policy_seconds: float
    curve: Floats
    band: tuple[Floats, Floats]
    regrets: Floats
    runs: int


class Scores:
    """All runs of a study that are done, scored; CodesignError when there are none."""

    def __init__(self, database: Database, study: str) -> None:
        self.study = study
        runs = database.runs(study)
        self.problems = database.problems(study)  # after its runs, which another process may add to
        done = [run for run in runs if run.state == "done" and run.result is not None]
        if not done:
            raise CodesignError(f"no run of study {study!r} is done", hint="python -m codesign.study run STUDY.toml")
        self.traces = [Trace.of(run, database.stretches(run.key)) for run in done]
        self.tables = {key: database.prices(key) for key in self.problems}
        self.left = len(runs) - len(done)
        for run in done:
            if (run.result or {}).get("allowed") is None and not _is_seconds(run.budget):
                raise database.wrong(f"a budget of seconds is called {run.budget[:40]!r}, which is none as in '2.5 s'")

    @cached_property
    def optima(self) -> dict[str, float]:
        """The best time of each problem: of all its schedules where they were priced, else the best that any run found."""
        found = {}
        for key in self.problems:
            table = self.tables[key]
            known = [trace.best[-1] for trace in self.traces if trace.run.problem == key and len(trace.best)]
            found[key] = table.best if table is not None else float(min(known, default=np.inf))
        return found

    @cached_property
    def groups(self) -> dict[tuple[str, str], dict[str, list[Trace]]]:
        """Traces by policy and budget, then by problem."""
        found: dict[tuple[str, str], dict[str, list[Trace]]] = {}
        for trace in self.traces:
            by_problem = found.setdefault((trace.run.policy, trace.run.budget), {})
            by_problem.setdefault(trace.run.problem, []).append(trace)
        return found

    def performance(self, policy: str, budget: str) -> dict[str, Floats]:
        """Performance [seeds, POINTS] on each problem; NaN where random search can't be bettered any more."""
        return {
            problem: np.stack([self._relative(trace, problem, budget) for trace in traces])
            for problem, traces in self.groups[policy, budget].items()
        }

    def regrets(self, policy: str, budget: str) -> dict[str, Floats]:
        """How far the best is from the optimum [seeds, POINTS] on each problem, as a share of it."""
        found = {}
        for problem, traces in self.groups[policy, budget].items():
            bests = np.stack([trace.after(self._positions(trace, budget)) for trace in traces])
            found[problem] = bests / self.optima[problem] - 1.0
        return found

    def standings(self) -> list[Standing]:
        """All policies, the best first, budget by budget."""
        found = [self._standing(policy, budget) for policy, budget in self.groups]
        return sorted(found, key=lambda s: (s.budget, -s.score if np.isfinite(s.score) else np.inf, s.regret))

    def _standing(self, policy: str, budget: str) -> Standing:
        performance = self.performance(policy, budget)
        regrets = self.regrets(policy, budget)
        final = {problem: values[:, -1] for problem, values in regrets.items()}
        draws = resampled(list(performance.values()))
        curve = averaged([values.mean(axis=0) for values in performance.values()])
        traces = [trace for group in self.groups[policy, budget].values() for trace in group]
        scores = mean_known(draws, axis=1)
        return Standing(
            policy=policy,
            budget=budget,
            score=float(mean_known(curve[None], axis=1)[0]),
            low=float(np.nanquantile(scores, 0.025)) if np.isfinite(scores).any() else np.nan,
            high=float(np.nanquantile(scores, 0.975)) if np.isfinite(scores).any() else np.nan,
            regret=float(np.mean([np.median(values) for values in final.values()])),
            solved=float(np.mean(np.concatenate(list(final.values())) <= CLOSE)),
            evaluations=float(np.mean([len(trace.best) for trace in traces])),
            policy_seconds=float(np.mean([trace.run.result["policy_seconds"] for trace in traces if trace.run.result])),
            curve=curve,
            band=(np.quantile(draws, 0.025, axis=0), np.quantile(draws, 0.975, axis=0)),
            regrets=np.mean([np.median(values, axis=0) for values in regrets.values()], axis=0),
            runs=len(traces),
        )

    def _positions(self, trace: Trace, budget: str) -> npt.NDArray[np.int64]:
        """Evaluations made after each share of the budget."""
        shares = np.arange(1, POINTS + 1) / POINTS
        allowed = (trace.run.result or {}).get("allowed")
        if allowed is None:  # seconds
            return trace.made(shares * float(budget.split()[0]))
        positions: npt.NDArray[np.int64] = np.maximum(np.round(shares * allowed), 1).astype(np.int64)
        return positions

    def _relative(self, trace: Trace, problem: str, budget: str) -> Floats:
        positions = self._positions(trace, budget)
        found, best = trace.after(positions), self.optima[problem]
        baseline = self._baseline(problem, budget, positions)
        room = baseline - best
        known = (room > 1e-9 * best) & np.isfinite(room)
        worst = self._worst(problem)
        gained = baseline - np.minimum(found, worst)
        return np.where(known, gained / np.where(known, room, 1.0), np.nan)

    def _worst(self, problem: str) -> float:
        table = self.tables[problem]
        if table is None:
            firsts = [t.best[0] for t in self.traces if t.run.problem == problem and len(t.best)]
            return float(max((value for value in firsts if np.isfinite(value)), default=np.inf))
        return float(np.max(table.seconds, where=np.isfinite(table.seconds), initial=0.0)) or np.inf

    def _baseline(self, problem: str, budget: str, positions: npt.NDArray[np.int64]) -> Floats:
        """What random search is expected to have found: in closed form where all prices are known, else the mean of its runs; under a budget
        of seconds the mean of its runs where there are some."""
        table: Prices | None = self.tables[problem]
        runs = self.groups.get(("random", budget), {}).get(problem, [])
        timed = any((trace.run.result or {}).get("allowed") is None for trace in runs)
        if table is None or timed:
            if not runs:
                return np.full(POINTS, np.nan)
            worst = self._worst(problem)
            mean: Floats = np.mean([np.minimum(t.after(self._positions(t, budget)), worst) for t in runs], axis=0)
            return mean
        key = (problem, positions.tobytes())
        if key not in self._expected:
            self._expected[key] = expected_best(table.seconds, positions)
        return self._expected[key]

    @cached_property
    def _expected(self) -> dict[tuple[str, bytes], Floats]:
        return {}


def _is_seconds(budget: str) -> bool:
    """Whether a budget's label says seconds."""
    try:
        return float(budget.split()[0]) > 0
    except (ValueError, IndexError):
        return False


def mean_known(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def averaged(curves: Sequence[Floats]) -> Floats:
    """The mean of curves over those that are known at each point; where none is, as at the point before."""
    mean: Floats = filled(mean_known(np.stack(list(curves)), axis=0)[None])[0]
    return mean


def filled(curves: Floats) -> Floats:
    """Curves [n, POINTS], what is not known as at the point before."""
    for at in range(1, curves.shape[1]):
        curves[:, at] = np.where(np.isnan(curves[:, at]), curves[:, at - 1], curves[:, at])
    return curves


def resampled(performance: Sequence[Floats], count: int = RESAMPLES) -> Floats:
    """Mean curves [count, POINTS] over problems, seeds drawn anew within each (bootstrap)."""
    rng = np.random.default_rng(0)
    drawn = [values[rng.integers(len(values), size=(count, len(values)))].mean(axis=1) for values in performance]
    return filled(mean_known(np.stack(drawn), axis=0))


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same problems: the difference of their scores, and the probability of one as large if there were none."""

    first: str
    second: str
    budget: str
    difference: float
    probability: float
    problems: Mapping[str, float]


def compare(scores: Scores, first: str, second: str, budget: str, permutations: int = 10_000) -> Comparison:
    """A permutation test of equal scores: within each problem, seeds are dealt to the two policies at random."""
    sides = [scores.performance(policy, budget) for policy in (first, second)]
    shared = [problem for problem in sides[0] if problem in sides[1]]
    pairs = [[mean_known(side[problem], axis=1) for side in sides] for problem in shared]
    known = [
        (problem, pair) for problem, pair in zip(shared, pairs, strict=True) if not np.isnan(np.concatenate(pair)).all()
    ]
    if not known:
        raise CodesignError(f"{first} and {second} have no problem in common", hint="compare policies of one study")
    rng = np.random.default_rng(0)
    differences, dealt = {}, np.zeros(permutations)
    for problem, (one, other) in known:
        both = np.nan_to_num(np.concatenate([one, other]))
        differences[problem] = float(both[: len(one)].mean() - both[len(one) :].mean())
        mixed = rng.permuted(np.broadcast_to(both, (permutations, len(both))), axis=1)
        dealt += mixed[:, : len(one)].mean(axis=1) - mixed[:, len(one) :].mean(axis=1)
    total = sum(differences.values())
    beyond = int(np.count_nonzero(np.abs(dealt) >= abs(total) - 1e-12))
    return Comparison(
        first, second, budget, total / len(known), (beyond + 1) / (permutations + 1), differences
    )  # fmt: skip
