"""A model over ranges of figures: sweeps, and the values from which on another schedule or another bound wins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codesign.costmodel.allowed import allowed
from codesign.costmodel.machine import Machine
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import Schedule
from codesign.lab.machines.variants import changer
from codesign.lab.machines.workload import Ask, Outcome, Workload

MOST_POINTS = 20_000
FAR = 1000.0
"""A value that is so many times more or less than the machine's is taken for one in another unit, unless it is given as a factor."""


@dataclass(frozen=True)
class Range:
    """Values that a figure is to have."""

    figure: str
    low: float
    high: float
    points: int = 9

    @staticmethod
    def parse(text: str, machine: Machine, points: int = 9) -> Range:
        """`PATH=LOW:HIGH[:POINTS]`; with an `x` before them LOW and HIGH are factors on what the machine has."""
        figure, equals, rest = text.partition("=")
        value, _ = changer(machine, figure)

        def wrong(what: str) -> CodesignError:
            hint = f"as in {figure}=x0.5:x2:16; {machine.name} has {value:g}"
            return CodesignError(f"{text!r} is not FIGURE=LOW:HIGH[:POINTS]: {what}", hint=hint)

        ends = rest.split(":")
        if not equals or len(ends) not in (2, 3):
            raise wrong("it says no LOW and HIGH")
        count = ends.pop() if len(ends) == 3 else str(points)
        if not count.isdecimal() or len(count) > 9 or not 1 <= int(count) <= MOST_POINTS:
            raise wrong(f"POINTS is {count!r}, and may be 1 to {MOST_POINTS:,}")
        numbers = []
        for end in ends:
            try:
                number = value * float(end[1:]) if end.startswith("x") else float(end)
            except ValueError:
                raise wrong(f"{end!r} is neither a number, in the unit of the machine file, nor a factor") from None
            if not end.startswith("x") and not value / FAR <= number <= value * FAR and 0 < number < math.inf:
                raise wrong(f"{end} is {number / value:.1g} of what it is; if that is meant, write x{number / value:g}")
            numbers.append(number)
        low, high = numbers
        if not 0 < low <= high < math.inf:
            raise wrong("LOW must be above 0, and HIGH no less than LOW")
        return Range(figure, low, high, int(count))

    @property
    def values(self) -> list[float]:
        """The values, evenly spaced in logarithms; of a figure that is a whole number the nearest, each once."""
        values = [float(value) for value in np.geomspace(self.low, self.high, self.points)]
        if self.figure.endswith(".fanout") or not allowed(self.figure).whole:
            return values
        return list(dict.fromkeys(float(max(round(value), 1)) for value in values))


@dataclass(frozen=True)
class Point:
    """A model where the figures have these values: schedules held, and chosen again."""

    figures: Mapping[str, float]
    held: float | None
    chosen: float
    joules: float | None
    bounds: Mapping[str, str]
    changed: tuple[str, ...]


def sweep(workload: Workload, ranges: Sequence[Range], tick: Callable[[], None] = lambda: None) -> list[Point]:
    """Every combination of the values, each with schedules held and chosen again (for both of which it is ticked)."""
    machines = [
        {r.figure: value for r, value in zip(ranges, combination, strict=True)}
        for combination in itertools.product(*(r.values for r in ranges))
    ]
    asks = [Ask(values, choose) for values in machines for choose in (False, True)]
    outcomes = iter(workload.outcomes(asks, tick))
    return [_point(workload, values, next(outcomes), next(outcomes)) for values in machines]


def _point(workload: Workload, values: Mapping[str, float], held: Outcome, chosen: Outcome) -> Point:
    changed = tuple(
        part.name
        for part, own in zip(chosen.known().parts, workload.parts, strict=True)
        if part.schedule != own.schedule
    )
    joules = chosen.joules if math.isfinite(chosen.joules) else None
    bounds = {part.name: part.bound for part in chosen.parts}
    seconds = held.seconds if math.isfinite(held.seconds) else None
    return Point(values, seconds, chosen.seconds, joules, bounds, changed)


@dataclass(frozen=True)
class Crossover:
    """From this value of a figure on a kernel has another schedule or another bound, or the model another fusion (`what`)."""

    figure: str
    value: float
    factor: float
    kernel: str
    what: str
    before: str
    after: str
    seconds: float


def crossovers(workload: Workload, span: Range, halvings: int = 6) -> list[Crossover]:
    """Where on a range the best schedule of a kernel or what bounds it changes, each to within a few percent of a step."""
    value, _ = changer(workload.machine, span.figure)

    def best(at: float, before: Mapping[str, Schedule]) -> Outcome:
        (outcome,) = workload.outcomes([Ask({span.figure: at}, choose=True, before=before)])
        return outcome.known()

    found: list[Crossover] = []
    before: Mapping[str, Schedule] = {}
    at, last = span.values[0], None
    for step in span.values:
        outcome = best(step, before)
        if last is not None and _signature(outcome) != _signature(last):
            low, high, right = at, step, outcome
            for _ in range(halvings):
                middle = math.sqrt(low * high)
                between = best(middle, last.schedules)
                if _signature(between) == _signature(last):
                    low = middle
                else:
                    high, right = middle, between
            found.extend(_changes(span.figure, high, high / value, last, right))
            found.extend(_changes(span.figure, step, step / value, right, outcome))
        at, last, before = step, outcome, outcome.schedules
    return found


def _signature(outcome: Outcome) -> list[tuple[str, str]]:
    return [(part.schedule.hash, part.bound) for part in outcome.parts]


def _changes(figure: str, value: float, factor: float, old: Outcome, new: Outcome) -> list[Crossover]:
    from codesign.report import schedule_text

    found = []
    for before, after in zip(old.parts, new.parts, strict=True):
        pairs = {"bound": (before.bound, after.bound)}
        if before.schedule != after.schedule:
            pairs["schedule"] = (schedule_text(before.schedule.to_json()), schedule_text(after.schedule.to_json()))
        for what, (left, right) in pairs.items():
            if left != right:
                found.append(Crossover(figure, value, factor, before.name, what, left, right, new.seconds))
    return found


def fusion_crossovers(
    workload: Workload, span: Range, halvings: int = 4, tick: Callable[[], None] = lambda: None
) -> list[Crossover]:
    """Where on a range another fusion is chosen: the model is compiled anew at each value (for which it is ticked), and where the kernels
    differ between two, between them."""
    value, _ = changer(workload.machine, span.figure)

    def fused(values: Sequence[float], tick: Callable[[], None] = lambda: None) -> list[Outcome]:
        asks = [Ask({span.figure: at}, fuse=True) for at in values]
        return [outcome.known() for outcome in workload.outcomes(asks, tick)]

    found = []
    outcomes = fused(span.values, tick)
    for (low, left), (high, right) in itertools.pairwise(zip(span.values, outcomes, strict=True)):
        if right.kernels.keys() == left.kernels.keys():
            continue
        for _ in range(halvings):
            middle = math.sqrt(low * high)
            (between,) = fused([middle])
            if between.kernels.keys() == left.kernels.keys():
                low = middle
            else:
                high, right = middle, between
        before, after = (
            ", ".join(sorted(one.kernels[key] for key in one.kernels.keys() - other.kernels.keys()))
            for one, other in ((left, right), (right, left))
        )
        found.append(Crossover(span.figure, high, high / value, "whole model", "fusion", before, after, right.seconds))
    return found
