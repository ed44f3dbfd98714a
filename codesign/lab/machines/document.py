"""What `codesign.whatif` prints as JSON and draws, written down as data types."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from codesign.lab.machines.search import Blame, Design
from codesign.lab.machines.sensitivity import Sensitivity
from codesign.lab.machines.sweep import Crossover, Point

DIGITS = 5
"""Of times and energies that stand below each other, point by point: three show no difference where a figure matters little."""

NOTHING_WINS = "the same schedules and bounds win for {figure} from {low:.4g} to {high:.4g}"


class WhatIf(BaseModel):
    """The answers about one model on one machine. `uncrossed`: ranges of figures on which nothing else wins."""

    model_config = ConfigDict(extra="forbid")

    model: str
    target: str
    seconds: float
    sensitivities: list[Sensitivity] = Field(default_factory=list)
    crossovers: list[Crossover] = Field(default_factory=list)
    uncrossed: dict[str, tuple[float, float]] = Field(default_factory=dict)
    sweep: list[Point] = Field(default_factory=list)
    front: list[Design] = Field(default_factory=list)
    sobol: list[Blame] = Field(default_factory=list)
    sobol_seconds: tuple[float, float] | None = None
