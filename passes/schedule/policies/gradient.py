"""Gradient descent on a relaxation of the cost model: the logarithm of time, multilinear between the schedules of the space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh
from codesign.passes.schedule.policy import Floats
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context

DECAY = 0.7
"""Of the mean of past slopes, at each step: that of Adam (Kingma and Ba 2015) is 0.9, for runs of thousands of steps."""
FLATTEST = 1e-9


@dataclass
class Climber:
    """One descent: where it is, real positions of each knob, the mean of its slopes, and how far it steps."""

    at: Floats
    mean: Floats
    rate: float
    best: float = np.inf


class Gradient(Fresh):
    """Several descents side by side; each prices the two neighbours along every knob, and steps along all knobs at once.

    The relaxation agrees with the cost model at the schedules and is multilinear between them, so its slope along a knob at a schedule is
    the difference of the neighbours (of one, at the edge of what is legal or fits). Slopes have momentum; the step along the steepest knob
    is `rate` values of it, and halves when a step did not help. A descent whose step is below half a value goes on at a random schedule.

    `descents`: side by side, from the best of `first` random schedules and the default.
    """

    def __init__(self, descents: int = 1, first: int = 12, rate: float = 4.0) -> None:
        super().__init__()
        self.descents = descents
        self.first = max(first, descents)
        self.rate = rate

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._known: dict[bytes, float] = {}
        self._climbers: list[Climber] = []
        self._tops = np.array([len(knob.values) - 1 for knob in space.knobs], dtype=np.int64)

    def propose(self, count: int) -> ScheduleBatch | None:
        if not self._climbers:
            return self.ask(np.concatenate([self.space.start(), self.draw(min(self.first, count))]), count)
        for _ in range(64):  # steps whose prices are all known already
            wanted = self.ask(np.concatenate([self._around(climber) for climber in self._climbers]), count)
            if wanted is not None:
                return wanted
            self._climbers = [self._stepped(climber) for climber in self._climbers]
        return self.ask(self.draw(1), count)

    def learn(self, codes: Ints, seconds: Floats) -> None:
        logs = np.log(np.maximum(seconds, 1e-30))
        self._known.update((code.tobytes(), float(log)) for code, log in zip(codes, logs, strict=True))
        if not self._climbers:
            best = np.argsort(seconds, kind="stable")[: self.descents]
            self._climbers = [self._climber(codes[row]) for row in best]

    def _climber(self, code: Ints) -> Climber:
        return Climber(code.astype(np.float64), np.zeros(len(code)), self.rate)

    def _around(self, climber: Climber) -> Ints:
        """The schedule that a descent is at, and its two neighbours along every knob, where there are any."""
        here = np.rint(climber.at).astype(np.int64)
        steps = np.concatenate([np.zeros((1, len(here)), np.int64), *(self._pair(knob) for knob in range(len(here)))])
        near: Ints = here + steps
        inside: Ints = near[((near >= 0) & (near <= self._tops)).all(axis=1)]
        return inside

    def _pair(self, knob: int) -> Ints:
        pair = np.zeros((2, len(self._tops)), np.int64)
        pair[:, knob] = (1, -1)
        return pair

    def _price(self, code: Ints) -> float:
        return self._known.get(code.tobytes(), np.inf)

    def _stepped(self, climber: Climber) -> Climber:
        """A descent one step further, or from a random schedule on where it is done."""
        here = np.rint(climber.at).astype(np.int64)
        value = self._price(here)
        climber.rate *= 0.5 if value >= climber.best else 1.0
        climber.best = min(value, climber.best)
        slopes = np.array([self._slope(here, value, knob) for knob in range(len(here))])
        climber.mean = DECAY * climber.mean + (1.0 - DECAY) * slopes
        steepest = float(np.abs(climber.mean).max(initial=0.0))
        if steepest < FLATTEST or climber.rate < 0.5:
            drawn = self.draw(1)
            return self._climber(drawn[0] if len(drawn) else here)
        climber.at = self._moved(climber)
        return climber

    def _slope(self, here: Ints, value: float, knob: int) -> float:
        """Of the logarithm of time along a knob; where one side is not to be had the other side's, and none uphill to an edge."""
        up, down = (self._price(here + step) for step in self._pair(knob))
        if np.isfinite(up) and np.isfinite(down):
            return 0.5 * (up - down)
        if not np.isfinite(value):
            return -1.0 if np.isfinite(up) else 1.0 if np.isfinite(down) else 0.0
        return min(up - value, 0.0) if np.isfinite(up) else max(value - down, 0.0) if np.isfinite(down) else 0.0

    def _moved(self, climber: Climber) -> Floats:
        """The point a step further down, or less far where that is not legal."""
        direction = climber.mean / float(np.abs(climber.mean).max())
        for share in (1.0, 0.5, 0.25):
            at = np.clip(climber.at - share * climber.rate * direction, 0, self._tops)
            if self.space.legal(np.rint(at).astype(np.int64)[None])[0]:
                return at
        climber.rate *= 0.5
        return climber.at
