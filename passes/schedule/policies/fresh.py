"""What policies that walk through a space share: which schedules were proposed, and what each of them cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codesign.costmodel.protocol import CostBatch
from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policy import Floats, Tracking
from codesign.passes.schedule.space import Ints, Space, unique_rows

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context


class Fresh(Tracking):
    """Base of policies that propose codes and never the same ones twice."""

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._seen: set[bytes] = set()
        self._pending: Ints = np.zeros((0, len(space.knobs)), np.int64)

    def ask(self, codes: Ints, count: int) -> ScheduleBatch | None:
        """Propose those of the codes that are legal and new, at most `count`; None when there is none."""
        codes = self.fresh(codes)[:count]
        if not len(codes):
            return None
        self._seen.update(code.tobytes() for code in codes)
        self._pending = codes
        return self.space.batch(codes)

    def fresh(self, codes: Ints) -> Ints:
        """The legal codes that were not proposed yet, each once, in their order."""
        codes = unique_rows(codes)
        codes = codes[self.space.legal(codes)]
        return codes[[code.tobytes() not in self._seen for code in codes]]

    def draw(self, count: int) -> Ints:
        """Up to `count` new codes drawn evenly; none when the space is used up."""
        for wanted in (count + 8, 4 * count + 64):
            found = self.fresh(self.space.sample(wanted, self.context.rng))
            if len(found) >= count:
                return found[:count]
        if len(found) or self.space.points > 1 << 22:
            return found[:count]
        every = [self.fresh(chunk) for chunk in self.space.enumerate()]
        return np.concatenate([found, *every])[:count]

    def observe(self, batch: ScheduleBatch, cost: CostBatch) -> None:
        super().observe(batch, cost)
        self.learn(self._pending, np.asarray(cost.seconds, dtype=np.float64))

    def learn(self, codes: Ints, seconds: Floats) -> None:
        """What the proposed codes cost; infinite where a schedule does not fit."""
        raise NotImplementedError


def badness(seconds: Floats) -> Floats:
    """Logarithms of times, as far beyond the worst for what does not fit as the worst is from the best."""
    finite = np.isfinite(seconds)
    if not finite.any():
        return np.zeros(len(seconds))
    logs = np.log(np.where(finite, np.maximum(seconds, 1e-30), 1.0))
    low, high = float(logs[finite].min()), float(logs[finite].max())
    return np.where(finite, logs, high + (high - low) + 1.0)
