"""What-if questions about a machine: copies of it in which one thing is better, whatever kind of machine it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codesign.costmodel.machine import Machine, figures_of


@dataclass(frozen=True)
class Change:
    """One thing about a machine made better: figures by path and the factor on each; `level` whose instances are
    multiplied.
    """

    label: str
    factor: float
    figures: tuple[str, ...] = ()
    level: str = ""

    def apply(self, machine: Machine) -> Machine:
        """The machine with the change."""
        if self.level:
            levels = [
                level.model_copy(update={"fanout": round(level.fanout * self.factor)})
                if level.name == self.level
                else level
                for level in machine.levels
            ]
            return machine.model_copy(update={"levels": levels})
        values = {path: figure.value for path, figure in figures_of(machine)}
        return machine.with_figures({path: self.factor * (values[path] or 0.0) for path in self.figures})


def changes(machine: Machine) -> Iterator[Change]:
    """The changes worth asking about: twice the bandwidth or capacity of each level, half of its latency, twice the
    rate of each unit, a tenth more clock, twice the power, and twice the instances of each place.

    Figures that are not known are left out.
    """
    known = {path for path, figure in figures_of(machine) if figure.value is not None}
    for level in machine.levels:
        for name, label, factor in (
            ("bandwidth", f"twice the {level.name} bandwidth", 2.0),
            ("latency_seconds", f"half the {level.name} latency", 0.5),
        ):
            path = f"levels.{level.name}.{name}"
            paths = tuple(p for p in (path, path.replace("bandwidth", "write_bandwidth")) if p in known)
            if paths:
                yield Change(label, factor, paths)
        capacity = (f"levels.{level.name}.capacity_bytes", *_limits_of(level.place, level.name))
        if capacity[0] in known and level is not machine.levels[0]:
            yield Change(f"twice the {level.name} capacity", 2.0, tuple(path for path in capacity if path in known))
    for unit in machine.units:
        rates = tuple(path for path in sorted(known) if path.startswith(f"units.{unit.name}.rate."))
        if rates:
            yield Change(f"twice the {unit.name} rate", 2.0, rates)
    clocks = tuple(path for unit in machine.units if (path := f"units.{unit.name}.clock_hz") in known)
    if clocks:
        yield Change("a clock 10 % faster", 1.1, clocks)
    if "power_watts" in known:
        yield Change("twice the power limit", 2.0, ("power_watts",))
    for level in machine.levels:
        if level.fanout > 1:
            yield Change(f"twice the {level.place}s", 2.0, level=level.name)
    if "launch.kernel_seconds" in known:
        yield Change("half the launch time", 0.5, ("launch.kernel_seconds",))


def _limits_of(place: str, level: str) -> tuple[str, ...]:
    """Limits that are the same storage by another name."""
    if level == "shared":
        return ("limits.shared_per_block_bytes",)
    return ("limits.registers_per_sm",) if level == "registers" and place == "warp" else ()
