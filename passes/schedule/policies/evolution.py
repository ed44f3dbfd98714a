"""An evolutionary search: parents by tournament, uniform crossover, mutation of knobs, survival of the best of both generations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh
from codesign.passes.schedule.policy import Floats, leading
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context


class Evolutionary(Fresh):
    """`population` schedules; half of a child's mutations are steps to a neighbouring value, half draw any value.

    `mutation`: knobs of a child that change on average. `tournament`: candidates that each parent is the best of.
    """

    def __init__(self, population: int = 16, mutation: float = 1.0, tournament: int = 3) -> None:
        super().__init__()
        self.population = population
        self.mutation = mutation
        self.tournament = tournament

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._sizes = np.array([len(knob.values) for knob in space.knobs], dtype=np.int64)
        self._people, self._costs = np.zeros((0, len(space.knobs)), np.int64), np.zeros(0)

    def propose(self, count: int) -> ScheduleBatch | None:
        if not len(self._people):
            return self.ask(self.draw(min(self.population, count)), count)
        for _ in range(8):
            batch = self.ask(self._children(4 * self.population), min(self.population, count))
            if batch is not None:
                return batch
        return self.ask(self.draw(min(self.population, count)), count)

    def learn(self, codes: Ints, seconds: Floats) -> None:
        (self._people, self._costs), _ = leading(self.population, (self._people, self._costs), (codes, seconds))

    def _children(self, count: int) -> Ints:
        rng, knobs = self.context.rng, len(self._sizes)
        # people are sorted, so the best of a tournament is the lowest position
        first, second = rng.integers(len(self._people), size=(2, count, self.tournament)).min(axis=2)
        children = np.where(rng.random((count, knobs)) < 0.5, self._people[first], self._people[second])
        changed = rng.random((count, knobs)) < self.mutation / max(knobs, 1)
        steps = children + rng.choice(np.array([-1, 1]), size=(count, knobs))
        drawn = rng.integers(self._sizes, size=(count, knobs))
        mutated = np.where(rng.random((count, knobs)) < 0.5, steps, drawn)
        mutants: Ints = np.clip(np.where(changed, mutated, children), 0, self._sizes - 1)
        return mutants
