"""Beam search over knobs: one knob after the other, the best few choices so far are carried on to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh
from codesign.passes.schedule.policy import Floats, leading
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context


class Beam(Fresh):
    """From the defaults and a few random schedules, all values of one knob at a time, keeping the best `width`.

    Goes round the knobs until a whole round betters none, then starts again from new random schedules.
    """

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._beam: Ints = np.zeros((0, len(space.knobs)), np.int64)
        self._costs: Floats = np.zeros(0)
        self._knob = self._idle = 0

    def propose(self, count: int) -> ScheduleBatch | None:
        while True:
            if not len(self._beam):
                starts = np.concatenate([self.space.start(), self.draw(self.width)])
                batch = self.ask(starts, count)
                return batch if batch is not None else self.ask(self.draw(1), 1)
            if self._idle >= len(self.space.knobs):
                self._beam, self._costs = self._beam[:0], self._costs[:0]
                self._knob = self._idle = 0
                continue
            knob, self._knob = self._knob, (self._knob + 1) % len(self.space.knobs)
            self._idle += 1
            values = np.arange(len(self.space.knobs[knob].values))
            codes = np.repeat(self._beam, len(values), axis=0)
            codes[:, knob] = np.tile(values, len(self._beam))
            batch = self.ask(codes, count)
            if batch is not None:
                return batch

    def learn(self, codes: Ints, seconds: Floats) -> None:
        (self._beam, self._costs), new = leading(self.width, (self._beam, self._costs), (codes, seconds))
        if new.any():
            self._idle = 0
