"""What a machine's assumed figures leave open: how a prediction moves when each is anywhere in its range, and all of them together.

Each figure is taken to both ends of its range by itself; the ranges are taken for intervals that hold as often as the model's own, and for
independent of each other, so what they move adds up in squares of the logarithm. Capacities and array shapes are left out: with others of
them another schedule would be chosen. Where the peak of a unit is public its clock and the rate that gives that peak move against each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.figure import Figure
from codesign.costmodel.machine import Machine, figures_of
from codesign.costmodel.protocol import CostModel
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule, ScheduleBatch

LEAST = 1e-4
"""Change of the time below which a figure moves nothing."""


@dataclass(frozen=True)
class Assumption:
    """An assumed figure: the times of a kernel at the two ends of its range, as shares of its time."""

    figure: str
    range: tuple[float, float]
    at: tuple[float, float]

    @property
    def moves(self) -> float:
        """Logarithm of the larger change."""
        return max(abs(math.log(share)) for share in self.at)


def assumptions(
    model: CostModel, kernel: KernelSummary, machine: Machine, schedule: Schedule, sizes: Mapping[str, int]
) -> tuple[Assumption, ...]:
    """The machine's assumed figures that move the time of a kernel under a schedule, those that move it most first.

    None on GPUs, whose models are fitted to measurements: what those leave open is in the models' own intervals.
    """
    if machine.kind == "gpu":
        return ()
    extremes = _extremes(machine)
    seconds, *times = _seconds(model, kernel, extremes.machines, schedule, sizes)
    found: list[Assumption] = []
    for (path, ends), low, high in zip(extremes.figures, times[::2], times[1::2], strict=True):
        if not all(math.isfinite(time) for time in (seconds, low, high)):
            continue
        one = Assumption(path, ends, (low / seconds, high / seconds))
        if one.moves > LEAST:
            found.append(one)
    return tuple(sorted(found, key=lambda assumption: -assumption.moves))


def spread(found: tuple[Assumption, ...]) -> tuple[float, float]:
    """Factors on a time that the assumptions leave open, downward and upward."""
    down = math.sqrt(sum(min(0.0, *(math.log(share) for share in one.at)) ** 2 for one in found))
    up = math.sqrt(sum(max(0.0, *(math.log(share) for share in one.at)) ** 2 for one in found))
    return math.exp(-down), math.exp(up)


def _seconds(
    model: CostModel, kernel: KernelSummary, machines: tuple[Machine, ...], schedule: Schedule, sizes: Mapping[str, int]
) -> list[float]:
    """Seconds of a kernel on each machine, at once where the model can."""
    if isinstance(model, DataflowModel):
        return [float(seconds) for seconds in model.seconds_on(kernel, machines, schedule, sizes)]
    batch = ScheduleBatch.of([schedule])
    return [float(model.predict(kernel, machine, batch, sizes).seconds[0]) for machine in machines]


@dataclass(frozen=True)
class _Extremes:
    """The assumed figures that a time may hang on with the ends of their ranges, and the machine as it is, then with each end of each."""

    figures: tuple[tuple[str, tuple[float, float]], ...]
    machines: tuple[Machine, ...]


_KNOWN: dict[int, _Extremes] = {}


def _extremes(machine: Machine) -> _Extremes:
    known = _KNOWN.get(id(machine))
    if known is None or known.machines[0] is not machine:
        found = [
            (path, figure.range)
            for path, figure in figures_of(machine)
            if figure.range is not None and _open(machine, path, figure)
        ]
        others = [_with(machine, path, end) for path, ends in found for end in ends]
        known = _KNOWN[id(machine)] = _Extremes(tuple(found), (machine, *others))
    return known


def _open(machine: Machine, path: str, figure: Figure) -> bool:
    if not figure.unknown or figure.value is None:
        return False
    if any(part in path for part in ("energy", "capacity_bytes", ".array.", "queue_depth", "semaphores", "mapping_")):
        return False
    public = {f"units.{unit.name}.rate.{dtype}" for unit in machine.units for dtype in unit.peak}
    return path not in public


def _with(machine: Machine, path: str, value: float) -> Machine:
    """The machine with another value of a figure; a unit whose peak is public keeps it at another clock."""
    changed = {path: value}
    for unit in machine.units:
        if path == f"units.{unit.name}.clock_hz" and unit.peak and unit.clock_hz.value:
            slower = unit.clock_hz.value / value
            rates = {name: rate.value for name, rate in unit.rate.items() if rate.value is not None}
            changed.update({f"units.{unit.name}.rate.{name}": rate * slower for name, rate in rates.items()})
    return machine.with_figures(changed)
