"""All questions about a model on a machine at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from codesign.command import Steps
from codesign.costmodel.machine import Machine
from codesign.ir.errors import CodesignError
from codesign.lab.machines.document import WhatIf
from codesign.lab.machines.search import Blame, assumed, blame, front
from codesign.lab.machines.sensitivity import STEP, Sensitivity, sensitivities
from codesign.lab.machines.sweep import MOST_POINTS, Range, crossovers, fusion_crossovers, sweep
from codesign.lab.machines.variants import adjustable, variant
from codesign.lab.machines.workload import Workload

CROSSED = 3
"""Figures that crossovers are looked for of when none is named: the most sensitive."""


@dataclass(frozen=True)
class Questions:
    """What to ask; see `codesign.whatif`. `fused`: whether the model is to be fused anew along the ranges of crossovers."""

    slopes: bool = True
    step: float = STEP
    crossed: Sequence[Range] = ()
    fused: bool = False
    swept: Sequence[Range] = ()
    searched: Sequence[Range] = ()
    prices: Mapping[str, float] = field(default_factory=dict)
    trials: int = 100
    samples: int | None = None
    chosen: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        total = math.prod(len(span.values) for span in self.swept)
        if total > MOST_POINTS:
            raise CodesignError(f"a sweep of {total:,} machines, at most {MOST_POINTS:,}", hint="give fewer points")
        if self.prices and not self.searched:
            raise CodesignError(
                "--price says what --pareto weighs, and there is none", hint="give --pareto FIGURE=LOW:HIGH"
            )
        if self.chosen and self.samples is None:
            raise CodesignError("--chosen is for the samples of --sobol, and there are none", hint="give --sobol 32")

    @staticmethod
    def ranges(texts: Sequence[str] | None, machine: Machine) -> list[Range]:
        """Ranges as commands take them, of each figure one."""
        found = [Range.parse(text, machine) for text in texts or []]
        figures = [span.figure for span in found]
        twice = [figure for figure in figures if figures.count(figure) > 1]
        if twice:
            raise CodesignError(f"two ranges of {twice[0]} at once", hint="leave one out, or give one wider range")
        for span in found:
            for end in (span.values[0], span.values[-1]):
                variant(machine, {span.figure: end})  # which says what is wrong with it
        return found


def answer(workload: Workload, asked: Questions, steps: Steps | None = None) -> WhatIf:
    """The answers."""
    steps = steps or Steps(None)
    slopes: list[Sensitivity] = []
    if asked.slopes:
        tick = steps.each("figures", 4 * len(list(adjustable(workload.machine))))
        slopes = sensitivities(workload, asked.step, tick)
    crossed = list(asked.crossed) or [
        Range(slope.figure, slope.value / 4, slope.value * 4)
        for slope in [slope for slope in slopes if slope.size > 0 and _continuous(slope.figure)][:CROSSED]
    ]
    steps.step("crossovers")
    crossings = [crossing for span in crossed for crossing in crossovers(workload, span)]
    if asked.fused:
        tick = steps.each("fusing anew", sum(len(span.values) for span in crossed))
        crossings.extend(crossing for span in crossed for crossing in fusion_crossovers(workload, span, tick=tick))
    points = []
    if asked.swept:
        points = sweep(workload, asked.swept, steps.each("sweep", 2 * math.prod(len(r.values) for r in asked.swept)))
    designs = []
    if asked.searched:
        tick = steps.each("front", asked.trials)
        designs = front(workload, asked.searched, asked.prices, asked.trials, asked.seed, tick)
    shares: list[Blame] = []
    ends: tuple[float, float] | None = None
    if asked.samples is not None:
        tick = steps.each("assumed figures", asked.samples * (len(assumed(workload.machine)) + 2))
        shares, low, high = blame(workload, asked.samples, choose=asked.chosen, seed=asked.seed, tick=tick)
        ends = (low, high)
    return WhatIf(
        model=workload.name,
        target=workload.machine.name,
        seconds=workload.base.seconds,
        sensitivities=slopes,
        crossovers=crossings,
        uncrossed={
            span.figure: (span.low, span.high) for span in crossed if span.figure not in {c.figure for c in crossings}
        },
        sweep=points,
        front=designs,
        sobol=shares,
        sobol_seconds=ends,
    )


def _continuous(figure: str) -> bool:
    """Figures that a range of a factor of four makes sense for: counts and limits have few values."""
    return not figure.startswith("limits.") and not figure.endswith(".fanout") and ".array." not in figure
