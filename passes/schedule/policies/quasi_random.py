"""Quasi-random search: a scrambled Sobol sequence over the positions of all knobs (Sobol 1967, Owen 1998)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import qmc

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh
from codesign.passes.schedule.policy import Floats
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context

ROUNDS = 16
"""Stretches of the sequence without a new legal schedule after which the search ends."""


class QuasiRandom(Fresh):
    """Schedules spread more evenly than by chance; `batch`: proposed at a time."""

    def __init__(self, batch: int = 64) -> None:
        super().__init__()
        self.batch = batch

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._sequence = qmc.Sobol(max(len(space.knobs), 1), scramble=True, rng=context.rng)
        self._sizes = np.array([len(knob.values) for knob in space.knobs], dtype=np.int64)

    def propose(self, count: int) -> ScheduleBatch | None:
        wanted = min(count, self.batch)
        for _ in range(ROUNDS):
            points = self._sequence.random(1 << max(wanted - 1, 1).bit_length())[:, : len(self._sizes)]
            found = self.ask((points * self._sizes).astype(np.int64), wanted)
            if found is not None:
                return found
        return self.ask(self.draw(wanted), wanted)

    def learn(self, codes: Ints, seconds: Floats) -> None:
        return
