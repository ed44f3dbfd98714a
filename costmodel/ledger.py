"""The ledger of a prediction: where the time goes and out of which numbers, what would change it, and what nearly won.

It asks only what a CostModel answers, so it works for every machine and fidelity; GPUs add the values of the tile
model's formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.tree import Tree

from codesign.costmodel.assumptions import Assumption, assumptions, spread
from codesign.costmodel.gpu.formulas import Formula, formulas
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch, CostModel
from codesign.costmodel.roofline import TERM_NAMES, roofline_bounds
from codesign.costmodel.summary import KernelSummary
from codesign.costmodel.sums import Part
from codesign.costmodel.whatif import changes
from codesign.ir.errors import CodesignError, ScheduleError
from codesign.ir.schedule import Schedule, ScheduleBatch

RIVALS = 512
"""Other schedules that a what-if question is asked of, the best ones first."""
RIVALS_SIMULATED = 4
"""The same for event simulations, which take milliseconds each."""


@dataclass(frozen=True)
class Term:
    """One term of the sum: its seconds, its share of the total, what it is made of, and how long its resource takes if
    nothing else did (None when it has none).
    """

    name: str
    seconds: float
    share: float
    values: dict[str, float] = field(default_factory=dict)
    alone: float | None = None


@dataclass(frozen=True)
class Counterfactual:
    """Another machine: seconds of the same schedule there, and of the schedule that is best there, as fractions of
    change.
    """

    label: str
    factor: float
    seconds: float | None
    change: float | None
    best_change: float | None


@dataclass(frozen=True)
class RunnerUp:
    """The best other schedule: how much longer it takes as a fraction, which knobs differ (chosen, other), and by term
    what it loses (seconds, where negative it gains).
    """

    schedule: dict[str, Any]
    seconds: float
    loses: float
    knobs: dict[str, tuple[Any, Any]]
    terms: dict[str, float]


@dataclass(frozen=True)
class Ledger:
    """A prediction explained; `to_tree` for people, `to_json` for programs."""

    kernel: str
    machine: str
    fidelity: int
    schedule: dict[str, Any]
    seconds: float
    low: float
    high: float
    bound: str
    rank: int
    """How many of the schedules are faster than this one, plus one."""
    schedules: int
    """Schedules that were considered and fit."""
    refused: int
    """Schedules that do not fit."""
    in_domain: bool
    remarks: tuple[str, ...]
    roofline: dict[str, float]
    facts: dict[str, float]
    terms: tuple[Term, ...]
    counterfactuals: tuple[Counterfactual, ...]
    runner_up: RunnerUp | None
    assumptions: tuple[Assumption, ...] = ()
    """Assumed figures of the machine that move the time, those that move it most first."""
    interval: Mapping[str, Part] = field(default_factory=dict)
    """What the interval is made of: the residual of the model's fit and what widened it, the widest first."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; terms sum to seconds, and what is unbounded or unknown is None."""
        return _plain(asdict(self))  # type: ignore[no-any-return]

    def to_tree(self) -> Tree:
        """The ledger as a tree for the terminal."""
        from codesign.costmodel.ledger_tree import tree_of

        return tree_of(self)


def explain(
    kernel: KernelSummary,
    machine: Machine,
    schedules: ScheduleBatch,
    row: int,
    model: CostModel,
    sizes: Mapping[str, int] | None = None,
) -> Ledger:
    """Explain the predicted time of one row of a batch of schedules; the others are its rivals.

    Raises ScheduleError when that row does not fit on the machine, or is not in the batch.
    """
    values = dict(sizes or {})
    if not 0 <= row < len(schedules):
        raise ScheduleError(f"{kernel.name}: there is no schedule {row}; the batch has {len(schedules)}")
    costs = model.predict(kernel, machine, schedules, values)
    if costs.reason[row]:
        raise ScheduleError(f"{kernel.name} does not fit on {machine.name}: {costs.reason[row]}")
    order = np.argsort(costs.seconds, kind="stable")
    fitting = order[np.isfinite(costs.seconds[order])]
    chosen = schedules.row(row)
    seconds = float(costs.seconds[row])
    terms, facts = _terms(kernel, machine, chosen, values, model, costs, row)
    limit = RIVALS if model.fidelity < 2 else RIVALS_SIMULATED
    assumed = assumptions(model, kernel, machine, chosen, values) if model.fidelity == 1 else ()
    least, most = spread(assumed)
    rivals = schedules.take(np.concatenate([[row], fitting[fitting != row][:limit]]))
    return Ledger(
        kernel=kernel.name,
        machine=machine.name,
        fidelity=model.fidelity,
        schedule=chosen.to_json(),
        seconds=seconds,
        low=float(costs.low[row]) * least,
        high=float(costs.high[row]) * most,
        bound=costs.bound(row),
        rank=int((costs.seconds < seconds).sum()) + 1,
        schedules=len(fitting),
        refused=len(schedules) - len(fitting),
        in_domain=bool(costs.in_domain[row]),
        remarks=costs.remarks,
        roofline=dict(zip(TERM_NAMES, roofline_bounds(kernel, machine, values), strict=True)),
        facts=facts,
        terms=terms,
        counterfactuals=_counterfactuals(kernel, machine, rivals, model, values, seconds),
        runner_up=_runner_up(schedules, costs, row, fitting),
        assumptions=assumed,
        interval=dict(sorted(costs.parts(row).items(), key=lambda part: part[1].low / part[1].high)),
    )


def _terms(
    kernel: KernelSummary,
    machine: Machine,
    schedule: Schedule,
    sizes: Mapping[str, int],
    model: CostModel,
    costs: CostBatch,
    row: int,
) -> tuple[tuple[Term, ...], dict[str, float]]:
    """The terms, largest first, and facts about the whole kernel."""
    facts = {name: float(column[row]) for name, column in costs.details.items() if column.dtype.kind in "fiub"}
    facts["dram_bytes"] = float(costs.dram_bytes[row])
    made: dict[str, Formula] = {}
    if machine.kind == "gpu" and model.fidelity > 0 and not kernel.strands:
        calibration = getattr(model, "calibration", None) or load_calibration(machine)
        reported = getattr(model, "reported", None)
        compiled = getattr(model, "compiled", True)
        made, grid = formulas(kernel, machine, schedule, sizes, calibration.parameters, reported, compiled)
        facts = {**facts, **grid}
    total = float(costs.seconds[row])
    found = []
    for name, value in zip(costs.term_names, costs.terms[row].tolist(), strict=True):
        formula = made.get(name)
        share = value / total if total > 0.0 else 0.0
        entry = Term(name, value, share)
        found.append(entry if formula is None else Term(name, value, share, formula.values, formula.alone))
    return tuple(sorted(found, key=lambda term: -term.seconds)), facts


def _counterfactuals(
    kernel: KernelSummary,
    machine: Machine,
    rivals: ScheduleBatch,
    model: CostModel,
    sizes: Mapping[str, int],
    seconds: float,
) -> tuple[Counterfactual, ...]:
    """Every change of the machine, what it helps most first; the chosen schedule is the first of the rivals."""
    found = []
    for change in changes(machine):
        try:
            there = model.predict(kernel, change.apply(machine), rivals, sizes).seconds
        except CodesignError:  # a figure that the schema does not let grow alone
            found.append(Counterfactual(change.label, change.factor, None, None, None))
            continue
        own, best = float(there[0]), float(there.min())
        same, any_schedule = own / seconds - 1.0, best / seconds - 1.0
        found.append(Counterfactual(change.label, change.factor, own, same, any_schedule))
    return tuple(sorted(found, key=lambda entry: entry.change if entry.change is not None else np.inf))


def _runner_up(schedules: ScheduleBatch, costs: CostBatch, row: int, fitting: np.ndarray[Any, Any]) -> RunnerUp | None:
    """The best other schedule that costs something else; when all cost the same, the first of them."""
    ties = [int(other) for other in fitting if other != row]
    others = [other for other in ties if not np.allclose(costs.terms[other], costs.terms[row], rtol=1e-6, atol=0.0)]
    if not ties:
        return None
    other = (others or ties)[0]
    own, rival = _flat(schedules.row(row)), _flat(schedules.row(other))
    seconds, loss = float(costs.seconds[other]), costs.terms[other] - costs.terms[row]
    return RunnerUp(
        schedule=schedules.row(other).to_json(),
        seconds=seconds,
        loses=seconds / float(costs.seconds[row]) - 1.0,
        knobs={k: (own.get(k), rival.get(k)) for k in {**own, **rival} if own.get(k) != rival.get(k)},
        terms={name: float(value) for name, value in zip(costs.term_names, loss, strict=True) if value},
    )


def _flat(schedule: Schedule) -> dict[str, Any]:
    """A schedule as one level of named knobs: `tiles.m`, `pipeline`, `warps`."""
    flat: dict[str, Any] = {}
    for name, value in schedule.to_json().items():
        if isinstance(value, dict):
            prefix = "" if name == "extras" else f"{name}."
            for key, entry in value.items():
                inner = entry.items() if isinstance(entry, dict) else None
                flat.update(
                    {f"{prefix}{key}.{k}": v for k, v in inner} if inner is not None else {f"{prefix}{key}": entry}
                )
        else:
            flat[name] = value
    return flat


def _plain(value: Any) -> Any:
    """JSON has no infinities."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
