"""What a pass may ask of its surroundings: the machine compiled for, how groups are priced, where to leave remarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codesign.ir.tensor import Fusion

if TYPE_CHECKING:
    from codesign.costmodel.machine import Machine
    from codesign.passes.fusion.explain import Edge
    from codesign.passes.fusion.kept import Kept

Pricer = Callable[[Fusion], float]
"""Predicted seconds of a fused group at its best schedule, launch included; infinite when no schedule fits the machine."""

LimitedPricer = Callable[[Fusion, float], float]
"""The same where it is below a limit; where it is not, any number that isn't either."""


@dataclass
class Context:
    """Surroundings of a pipeline.

    `machine`: what is compiled for (None: passes that need one use `default_machine`). `pricer`: seconds of a group (None: the
    roofline of the machine). `sizes`: values at which symbolic sizes are costed. `remarks`: lines that passes leave for the user. `why`: what
    bounds a group, or what no schedule of it fits. `fusion`: what fusion says of each edge, where it was asked. `kept`: decisions of earlier
    runs by that pricer. `below`: that pricer, for who only wants to know prices below a limit. `least`: seconds that no schedule of a group
    beats, sooner known.
    """

    machine: Machine | None = None
    pricer: Pricer | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    why: Callable[[Fusion], str] | None = None
    fusion: list[Edge] = field(default_factory=list)
    default_machine: str = "h100_sxm"
    kept: Kept | None = None
    below: LimitedPricer | None = None
    least: Pricer | None = None

    def target(self) -> Machine:
        """The machine, loaded by its default name when none was given."""
        from codesign.costmodel.machine import load_machine

        if self.machine is None:
            self.machine = load_machine(self.default_machine)
        return self.machine
