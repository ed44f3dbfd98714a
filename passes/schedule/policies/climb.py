"""Several fidelities under one budget: many schedules are glanced at by the quicker model, and the most promising are evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh
from codesign.passes.schedule.policy import Floats, leading
from codesign.passes.schedule.space import Ints, Space, unique_rows

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context


class Climb(Fresh):
    """The search's own fidelity looks only at what the fidelity below it (the tile model for the event simulation, the roofline for the
    tile model) finds best: first of the whole space, or as much of it as a share of the budget pays for, then, round by round, among the
    neighbours of the best that were evaluated, too.

    `share`: of what is left of the budget that goes into a round of glances. `batch`: schedules evaluated in a round. `keep`: best ones
    whose neighbours are glanced at. `pool`: schedules glanced at in the first round at most. Where there is nothing quicker, as in a measured
    space, what was come upon last is the most promising.
    """

    def __init__(self, share: float = 0.1, batch: int = 8, keep: int = 4, pool: int = 1 << 16) -> None:
        super().__init__()
        self.share = share
        self.batch = batch
        self.keep = keep
        self.pool = pool

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._promising: tuple[Ints, Floats] = (np.zeros((0, len(space.knobs)), np.int64), np.zeros(0))
        self._leaders = self._promising
        self._glanced: set[bytes] = set()

    def propose(self, count: int) -> ScheduleBatch | None:
        best = self._leaders[0]
        found = self.space.neighbours(best) if len(best) else self.space.sample(self.pool, self.context.rng)
        found = self.context.rng.permutation(found)  # what the quicker model holds to be equal has no order
        if self.context.remaining > 1:  # the last evaluation is no glance
            self._glance(found)
        wanted = min(self.batch, count, self.context.remaining)
        codes, seconds = self._promising
        asked = self.ask(codes, wanted)
        rest = [code.tobytes() not in self._seen for code in codes]
        self._promising = codes[rest], seconds[rest]
        return asked if asked is not None else self.ask(self.draw(wanted), wanted)

    def learn(self, codes: Ints, seconds: Floats) -> None:
        fits = np.isfinite(seconds)
        self._leaders, _ = leading(self.keep, self._leaders, (codes[fits], seconds[fits]))

    def _glance(self, codes: Ints) -> None:
        """Put what was not looked at yet among the promising, in the order of its quicker price."""
        codes = unique_rows(codes)
        codes = codes[[code.tobytes() not in self._glanced for code in codes]]
        if self.context.quicker is not None:
            codes = codes[: self.context.glances(self.share)]
        if not len(codes):
            return
        self._glanced.update(code.tobytes() for code in codes)
        if self.context.quicker is None:
            seconds = np.full(len(codes), -float(len(self._glanced)))
        else:
            seconds = self.context.glance(self.space.batch(codes)).seconds
        fits = np.isfinite(seconds)
        self._promising, _ = leading(self.pool, self._promising, (codes[fits], seconds[fits]))
