"""How much a model's time changes with each figure of its machine: d ln(time) / d ln(figure), schedules held and chosen again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codesign.costmodel.machine import Machine
from codesign.ir.errors import CodesignError
from codesign.lab.machines.variants import adjustable, changer
from codesign.lab.machines.workload import Ask, Outcome, Workload

STEP = 0.1
"""Relative change of a figure up and down, between which the slope is taken."""


@dataclass(frozen=True)
class Sensitivity:
    """Slopes of a figure: the time's with schedules `held` and `chosen` again, and the energy's (`joules`) with them held.

    `why`: the reason where there is none.
    """

    figure: str
    value: float
    held: float | None
    chosen: float | None
    joules: float | None
    why: str = ""

    @property
    def size(self) -> float:
        """What the tornado is sorted by."""
        return max(abs(self.held or 0.0), abs(self.chosen or 0.0))


def sensitivities(workload: Workload, step: float = STEP, tick: Callable[[], None] = lambda: None) -> list[Sensitivity]:
    """Slopes of every figure of the machine, the largest first; `tick`: for each of the four variants that a figure takes."""
    figures = list(adjustable(workload.machine))
    ends = [_ends(value, change, step) for _, value, change in figures]
    asks = [
        Ask({figure: end}, choose)
        for (figure, _, _), pair in zip(figures, ends, strict=True)
        for choose in (False, True)
        for end in pair
    ]
    outcomes = workload.outcomes(asks, tick)
    found = [
        _sensitivity(figure, value, pair, outcomes[4 * position : 4 * position + 4])
        for position, ((figure, value, _), pair) in enumerate(zip(figures, ends, strict=True))
    ]
    return sorted(found, key=lambda entry: -entry.size)


def sensitivity(workload: Workload, figure: str, step: float = STEP) -> Sensitivity:
    """The slope of one figure."""
    value, change = changer(workload.machine, figure)
    pair = _ends(value, change, step)
    asks = [Ask({figure: end}, choose) for choose in (False, True) for end in pair]
    return _sensitivity(figure, value, pair, workload.outcomes(asks))


def _ends(value: float, change: Callable[[float], Machine], step: float) -> tuple[float, float]:
    """The values between which a slope is taken: whole numbers where a figure is one."""
    low, high = value * (1.0 - step), value * (1.0 + step)
    if float(value).is_integer() and value < 1e7 and not _fractions(change, high):
        low, high = min(math.floor(low), value - 1), max(math.ceil(high), value + 1)
        if low < 1:
            low = value
    return low, high


def _sensitivity(figure: str, value: float, ends: tuple[float, float], outcomes: Sequence[Outcome]) -> Sensitivity:
    """The slope of a figure from its variants: schedules held at both ends, and chosen again at both."""
    why = next((outcome.why for outcome in outcomes if outcome.why), "")
    if why:
        return Sensitivity(figure, value, None, None, None, why)
    width = math.log(ends[1] / ends[0])
    low, high, *chosen = outcomes
    times = _slope(low.seconds, high.seconds, width), _slope(chosen[0].seconds, chosen[1].seconds, width)
    return Sensitivity(figure, value, *times, _slope(low.joules, high.joules, width), _lost(times))


def _fractions(change: Callable[[float], Machine], value: float) -> bool:
    """Whether a figure may have a value between two whole numbers."""
    try:
        change(math.floor(value) + 0.5)
    except CodesignError:
        return False
    return True


def _slope(low: float, high: float, width: float) -> float | None:
    if not (low > 0 and high > 0 and math.isfinite(low) and math.isfinite(high)):
        return None
    slope = math.log(high / low) / width
    return 0.0 if abs(slope) < 1e-9 else slope


def _lost(slopes: tuple[float | None, float | None]) -> str:
    return "a schedule that is held does not fit any more" if slopes[0] is None else ""
