"""Simulated annealing (Kirkpatrick, Gelatt and Vecchi 1983) of several chains side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh
from codesign.passes.schedule.policy import Floats
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context


class Annealing(Fresh):
    """Each chain steps to a random neighbour and takes a worse one with probability exp(-ln(new / old) / temperature).

    `chains`: side by side, from the best of `first` random schedules. `hot`, `cooling`: the first temperature, in natural
    logarithms of time, and what it is multiplied by after each step. A chain whose neighbours are all known goes on at a random schedule.
    """

    def __init__(self, chains: int = 2, first: int = 12, hot: float = 0.3, cooling: float = 0.95) -> None:
        super().__init__()
        self.chains = chains
        self.first = max(first, chains)
        self.hot = hot
        self.cooling = cooling

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._at, self._costs = np.zeros((0, len(space.knobs)), np.int64), np.zeros(0)
        self._temperature = self.hot
        self._movers: list[int] = []

    def propose(self, count: int) -> ScheduleBatch | None:
        if not len(self._at):
            return self.ask(self.draw(min(self.first, count)), count)
        moves: list[Ints] = []
        self._movers = []
        for chain in self.context.rng.permutation(len(self._at))[:count]:
            near = self.fresh(self.space.neighbours(self._at[chain][None]))
            near = near if len(near) else self.draw(1)
            if len(near):
                moves.append(near[self.context.rng.integers(len(near))])
                self._movers.append(int(chain))
        if not moves:
            return None
        codes = np.stack(moves)
        _, kept = np.unique(codes, axis=0, return_index=True)
        kept = np.sort(kept)
        self._movers = [self._movers[position] for position in kept]
        return self.ask(codes[kept], count)

    def learn(self, codes: Ints, seconds: Floats) -> None:
        if not len(self._at):
            best = np.argsort(seconds, kind="stable")[: self.chains]
            self._at, self._costs = codes[best], seconds[best]
            return
        for chain, code, cost in zip(self._movers, codes, seconds, strict=True):
            if self._accepts(self._costs[chain], cost):
                self._at[chain], self._costs[chain] = code, cost
        self._temperature *= self.cooling

    def _accepts(self, old: float, new: float) -> bool:
        if new <= old or not np.isfinite(old):
            return True
        if not np.isfinite(new):
            return False
        worse = float(np.log(new / old)) / max(self._temperature, 1e-9)
        return bool(self.context.rng.random() < np.exp(-min(worse, 700.0)))
