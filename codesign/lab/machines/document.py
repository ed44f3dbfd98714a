"""What `codesign.whatif` prints as JSON and draws, written down as data types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field

from codesign.lab.machines.search import Blame, Design
from codesign.lab.machines.sensitivity import Sensitivity
from codesign.lab.machines.sweep import Crossover, Point
from codesign.lab.machines.workload import Workload


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Slope(_Document):
    """d ln(time) / d ln(figure), schedules `held` and `chosen` again, and of the energy; None with the reason `why`."""

    figure: str
    value: float
    held: float | None
    chosen: float | None
    joules: float | None
    why: str = ""


class Crossing(_Document):
    """The value of a figure from which on a kernel's best schedule or its bound is another."""

    figure: str
    value: float
    factor: float
    kernel: str
    what: str
    before: str
    after: str
    seconds: float


class Swept(_Document):
    """Seconds where figures have these values: schedules held (None: one does not fit) and chosen again."""

    figures: dict[str, float]
    held: float | None
    chosen: float
    joules: float | None
    bounds: dict[str, str]
    changed: list[str]


class FrontPoint(_Document):
    """A variant that no other betters in all goals."""

    figures: dict[str, float]
    seconds: float
    joules: float | None
    price: float | None


class Share(_Document):
    """Sobol indices of an assumed figure over its range."""

    figure: str
    low: float
    high: float
    first: float
    total: float


class WhatIf(_Document):
    """The answers about one model on one machine."""

    model: str
    target: str
    seconds: float
    sensitivities: list[Slope] = Field(default_factory=list)
    crossovers: list[Crossing] = Field(default_factory=list)
    sweep: list[Swept] = Field(default_factory=list)
    front: list[FrontPoint] = Field(default_factory=list)
    sobol: list[Share] = Field(default_factory=list)
    sobol_seconds: tuple[float, float] | None = None


def document(
    workload: Workload,
    slopes: Sequence[Sensitivity],
    crossings: Sequence[Crossover],
    points: Sequence[Point],
    designs: Sequence[Design],
    shares: Sequence[Blame],
    span: tuple[float, float] | None,
) -> WhatIf:
    """The answers as a document."""
    swept = [
        Swept(figures=dict(p.figures), held=p.held, chosen=p.chosen, joules=p.joules, bounds=dict(p.bounds), changed=list(p.changed))
        for p in points
    ]  # fmt: skip
    return WhatIf(
        model=workload.name,
        target=workload.machine.name,
        seconds=workload.base.seconds,
        sensitivities=[Slope(**asdict(slope)) for slope in slopes],
        crossovers=[Crossing(**asdict(crossing)) for crossing in crossings],
        sweep=swept,
        front=[FrontPoint(**asdict(design)) for design in designs],
        sobol=[Share(**asdict(share)) for share in shares],
        sobol_seconds=span,
    )
