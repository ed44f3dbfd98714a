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
    tile model) finds best: of the whole space, or as much of it as a share of the budget pays for, then, round by round, among the
    neighbours of the best that were evaluated, too.

    The first round is drawn at random, and glanced at afterwards: where the quicker model does not put it into about the same order (a rank
    correlation below `trust`), nothing more is paid for glances, and the search steps from the best to their neighbours without. So it does
    where there is nothing quicker, as in a measured space.

    `share`: of what is left of the budget that goes into a round of glances. `batch`: schedules evaluated in a round. `keep`: best ones
    whose neighbours are looked at. `pool`: schedules glanced at in one round at most.
    """

    def __init__(
        self, share: float = 0.1, batch: int = 8, keep: int = 4, pool: int = 1 << 16, trust: float = 0.7
    ) -> None:
        super().__init__()
        self.share = share
        self.batch = batch
        self.keep = keep
        self.pool = pool
        self.trust = trust

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        none = (np.zeros((0, len(space.knobs)), np.int64), np.zeros(0))
        self._promising: tuple[Ints, Floats] = none
        self._leaders: tuple[Ints, Floats] = none
        self._glanced: set[bytes] = set()
        self._trusted: bool | None = None
        self._looked = False

    def propose(self, count: int) -> ScheduleBatch | None:
        wanted = min(self.batch, count, self.context.remaining)
        best = self._leaders[0]
        if not len(best):  # nothing that fits is known yet
            return self.ask(np.concatenate([self.space.start(), self.draw(wanted)]), wanted)
        found = self.context.rng.permutation(self.space.neighbours(best))
        if self._trusted and self.context.remaining > 1:  # the last evaluation is no glance
            if not self._looked:
                found = np.concatenate([self.space.sample(self.pool, self.context.rng), found])
                self._looked = True
            self._glance(found)
            found = self._promising[0]
        asked = self.ask(found, wanted)
        codes, seconds = self._promising
        rest = [code.tobytes() not in self._seen for code in codes]
        self._promising = codes[rest], seconds[rest]
        return asked if asked is not None else self.ask(self.draw(wanted), wanted)

    def learn(self, codes: Ints, seconds: Floats) -> None:
        fits = np.isfinite(seconds)
        codes, seconds = codes[fits], seconds[fits]
        self._leaders, _ = leading(self.keep, self._leaders, (codes, seconds))
        if self._trusted is None and len(codes):
            self._trusted = self._agrees(codes, seconds)

    def _agrees(self, codes: Ints, seconds: Floats) -> bool:
        """Whether the quicker model orders schedules about as they turned out."""
        if not 2 < len(codes) <= self.context.glances(self.share):
            return False
        quick = self.context.glance(self.space.batch(codes)).seconds
        ranks = [np.unique(values, return_inverse=True)[1] for values in (quick, seconds)]
        if any(rank.max() == 0 for rank in ranks):
            return False
        return bool(np.corrcoef(ranks[0], ranks[1])[0, 1] >= self.trust)

    def _glance(self, codes: Ints) -> None:
        """Put what was not looked at yet among the promising, in the order of its quicker price."""
        codes = unique_rows(codes)
        codes = codes[[code.tobytes() not in self._glanced for code in codes]]
        codes = codes[: self.context.glances(self.share)]
        if not len(codes):
            return
        self._glanced.update(code.tobytes() for code in codes)
        seconds = self.context.glance(self.space.batch(codes)).seconds
        fits = np.isfinite(seconds)
        self._promising, _ = leading(self.pool, self._promising, (codes[fits], seconds[fits]))
