"""How much a model's time changes with each figure of its machine: d ln(time) / d ln(figure), schedules held and chosen again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from codesign.costmodel.machine import Machine, figures_of
from codesign.costmodel.whatif import Change
from codesign.ir.errors import CodesignError
from codesign.lab.machines.workload import Workload

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


def adjustable(machine: Machine) -> Iterator[tuple[str, float, Callable[[float], Machine]]]:
    """Every figure with a value and how to change it; how many of each level there are (`levels.NAME.fanout`) among them.

    Quoted peaks are left out: they are checks of rates and clocks, which no model reads.
    """
    for path, figure in figures_of(machine):
        if figure.value and ".peak." not in path:

            def change(value: float, path: str = path) -> Machine:
                return machine.with_figures({path: value})

            yield path, figure.value, change
    for level in machine.levels:
        if level.fanout > 1:

            def more(value: float, name: str = level.name, fanout: int = level.fanout) -> Machine:
                return Change("", value / fanout, level=name).apply(machine)

            yield f"levels.{level.name}.fanout", float(level.fanout), more


def changer(machine: Machine, figure: str) -> tuple[float, Callable[[float], Machine]]:
    """The value of a figure by its path, and how to change it; CodesignError names the nearest for one that there is not."""
    import difflib

    known = {path: (value, change) for path, value, change in adjustable(machine)}
    if figure not in known:
        near = difflib.get_close_matches(figure, known, n=3, cutoff=0.3) or list(known)[:3]
        raise CodesignError(f"{machine.name} has no figure {figure!r} with a value", hint=f"nearest: {', '.join(near)}")
    return known[figure]


def sensitivities(workload: Workload, step: float = STEP, tick: Callable[[], None] = lambda: None) -> list[Sensitivity]:
    """Slopes of every figure of the machine, the largest first."""
    found = []
    for figure, value, change in adjustable(workload.machine):
        found.append(sensitivity(workload, figure, value, change, step))
        tick()
    return sorted(found, key=lambda entry: -entry.size)


def sensitivity(
    workload: Workload, figure: str, value: float, change: Callable[[float], Machine], step: float
) -> Sensitivity:
    """The slope of one figure."""
    ends = [value * (1.0 - step), value * (1.0 + step)]
    if float(value).is_integer() and value < 1e7 and not _fractions(change, ends[1]):
        ends = [min(math.floor(ends[0]), value - 1), max(math.ceil(ends[1]), value + 1)]
        if ends[0] < 1:
            ends[0] = value
    try:
        variants = [change(end) for end in ends]
        held = [workload.price(variant) for variant in variants]
        chosen = [workload.price(variant, choose=True) for variant in variants]
    except (CodesignError, ValueError, ZeroDivisionError, OverflowError) as error:
        why = error.message if isinstance(error, CodesignError) else str(error)
        return Sensitivity(figure, value, None, None, None, why)
    width = math.log(ends[1] / ends[0])
    low, high = held
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
