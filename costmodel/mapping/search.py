"""The mapping that costs least: exact, by dominance within each dim and by bounds between them.

For each nest, the chains of each dim that another one beats in all that they cost and hold are dropped. Nests are taken in the order of what
they cost at the least; dims are joined one after the other, and what can no longer beat the best mapping so far, or can no longer fit, is cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, prod

import numpy as np

from codesign.costmodel.mapping.chains import Chains, Ints, chains, laid_out, undominated
from codesign.costmodel.mapping.counting import Costs, Counting, Floats, Pricing
from codesign.costmodel.mapping.hierarchy import Hierarchy
from codesign.costmodel.mapping.joining import Edge, State, count_of, wanted_of
from codesign.costmodel.mapping.nest import Nest, nests
from codesign.costmodel.mapping.problem import Problem
from codesign.ir.errors import ScheduleError

OBJECTIVES: Mapping[str, Callable[[Costs], tuple[Floats, Floats]]] = {
    "energy": lambda costs: (costs.joules, costs.seconds),
    "latency": lambda costs: (costs.seconds, costs.joules),
    "edp": lambda costs: (costs.joules * costs.seconds, costs.seconds),
}
"""What a search makes least, and what decides between mappings that are as good."""
_CHUNK = 1 << 14
"""Mappings that are priced at once: what fits into a processor's own cache."""
_TRIED, _BEAM = 8, 64
"""Nests that are looked at first, and how many partial mappings of each, for a good mapping that bounds can cut by."""
_CLOSE = 1.0 - 1e-9

Factorisation = Mapping[str, tuple[int, ...]]
"""For each dim, its factor at each entry of a nest."""


@dataclass(frozen=True)
class Found:
    """The best mapping and how it was found: `evaluated` mappings were priced in whole and `bounded` in part; `space` is how many there are (of all
    nests, each factorisation of each dim), `templates` the nests, of which `searched` could hold the best."""

    nest: Nest
    factors: Factorisation
    costs: Costs
    evaluated: int
    bounded: int
    space: float
    templates: int
    searched: int
    elapsed: float


def search(
    problem: Problem, hierarchy: Hierarchy, counting: Counting, objective: str = "latency", slack: float = 0.0
) -> Found:
    """The best mapping of a product, or one that no other beats by more than `slack` (a share); ScheduleError when none fits."""
    begun = time.perf_counter()
    every = list(nests(problem, hierarchy))
    whole = [chains(every[0], dim) for dim in problem.extents]
    prepared = [_Prepared(nest, counting, objective, wanted_of(every[0], whole, False)) for nest in every]
    best, searched = _Best(slack), 0
    if objective == "latency":  # what keeps as many multipliers busy as there are needs no other one beside it
        busy = wanted_of(every[0], whole, True)
        searched += _look(best, [each.using(busy) for each in prepared])
    if objective != "latency" or best.score > problem.macs / hierarchy.rate / prod(busy) * (1.0 + slack):
        searched += _look(best, prepared)
    if best.nest is None:
        raise ScheduleError(
            f"no mapping of this product fits {hierarchy.name}",
            hint="a memory is too small for a value of each operand",
        )
    costs = costs_of(best.nest, {dim: np.array([row]) for dim, row in best.factors.items()}, counting)
    space, elapsed = sum(each.space for each in prepared), time.perf_counter() - begun
    return Found(best.nest, best.factors, costs, best.evaluated, best.bounded, space, len(prepared), searched, elapsed)


def search_filled(
    problem: Problem, hierarchy: Hierarchy, counting: Counting, objective: str = "latency", slack: float = 0.0
) -> Found:
    """The best mapping of a product or, where the counting allows it, of the product filled up with zeros; its nest says which."""
    found = search(problem, hierarchy, counting, objective, slack)
    filled = problem.filled()
    if not counting.fills or filled == problem:
        return found
    other = search(filled, hierarchy, counting, objective, slack)
    best = min(found, other, key=lambda each: [float(score.item()) for score in OBJECTIVES[objective](each.costs)])
    return replace(
        best,
        evaluated=found.evaluated + other.evaluated,
        bounded=found.bounded + other.bounded,
        space=found.space + other.space,
        templates=found.templates + other.templates,
        searched=found.searched + other.searched,
        elapsed=found.elapsed + other.elapsed,
    )


def _look(best: _Best, prepared: Sequence[_Prepared]) -> int:
    """Search nests, those first that may be best; how many could not be passed over."""
    ordered, searched = sorted(prepared, key=lambda each: (float(each.least[0][0]), float(each.least[1][0]))), 0
    for each in ordered[:_TRIED]:
        each.join(best, _BEAM)
    for each in ordered:
        if len(best.open(*each.least)):
            searched += 1
            each.join(best, None)
    return searched


def costs_of(nest: Nest, factors: Mapping[str, Ints], counting: Counting) -> Costs:
    """Costs of N mappings of a nest: by dim, factors [N, entries]; those that use more of an axis than there is do not fit."""
    state = State.none(nest)
    for dim in nest.problem.extents:
        state = state.beside(nest, laid_out(nest, dim, factors[dim]))
    costs = Pricing(nest, counting).costs(state.factors(nest))
    return replace(costs, fit=costs.fit & state.within(nest, [1.0] * len(nest.hierarchy.axes)))


def pricing_rate(problem: Problem, hierarchy: Hierarchy, counting: Counting, least: int) -> tuple[int, float]:
    """How many mappings were priced in whole, `least` or more of all there are, bounds and dominance aside, and in how many seconds."""
    begun, count = time.perf_counter(), 0
    while True:
        for nest in nests(problem, hierarchy):
            parts = sorted((chains(nest, dim) for dim in problem.extents), key=len)
            pricing, state = Pricing(nest, counting), State.none(nest)
            for part in parts[:-1]:
                wider = state.joined(nest, part)
                state = wider.flat(np.arange(min(prod(wider.shape), _CHUNK)))
            step = max(_CHUNK // len(parts[-1]), 1)
            for start in range(0, state.shape[0], step):
                wider = state.rows(start, start + step).joined(nest, parts[-1])
                costs = pricing.costs(wider.factors(nest))
                count += int(
                    np.broadcast_to(costs.fit & (costs.joules > 0.0) & (costs.seconds > 0.0), wider.shape).size
                )
                if count >= least:
                    return count, time.perf_counter() - begun


@dataclass
class _Best:
    """The best so far, and how much was looked at for it. What can't be better by more than `slack` is not looked at; without
    any, nor is what is as good and can't be better in what decides then."""

    slack: float
    score: float = inf
    second: float = inf
    nest: Nest | None = None
    factors: Factorisation = field(default_factory=dict)
    evaluated: int = 0
    bounded: int = 0

    def beaten_by(self, score: float, second: float) -> bool:
        return score < self.score * _CLOSE or (score * _CLOSE <= self.score and second < self.second * _CLOSE)

    def open(self, score: Floats, second: Floats) -> Ints:
        """Rows whose bounds leave hope."""
        if self.score == inf:
            return np.arange(len(score))
        hope = score < self.score * (_CLOSE - self.slack)
        if not self.slack:
            hope |= (score * _CLOSE <= self.score) & (second < self.second * _CLOSE)
        return np.flatnonzero(hope)


class _Prepared:
    """A nest with the chains of its dims that are worth trying, and the least that any mapping of it costs."""

    def __init__(self, nest: Nest, counting: Counting, objective: str, wanted: Sequence[float]) -> None:
        self.nest, self.pricing, self.score = nest, Pricing(nest, counting), OBJECTIVES[objective]
        self._whole = [chains(nest, dim) for dim in nest.problem.extents]
        self._timed = objective != "energy" or nest.hierarchy.static_watts > 0.0
        self.space, self.wanted = count_of(self._whole), wanted
        score, second, _ = self._bounds(State.none(nest), [Edge.of(part) for part in self._whole])
        self.least = score, second

    @cached_property
    def parts(self) -> list[Chains]:
        """Chains of each dim that are worth trying, the fewest first."""
        return sorted((worthwhile(self.pricing, part, self._timed) for part in self._whole), key=len)

    def using(self, wanted: Sequence[float]) -> _Prepared:
        """The same nest, of whose axes as many instances are used at least."""
        other = copy(self)
        other.wanted = wanted
        return other

    def _bounds(self, state: State, rest: Sequence[Edge]) -> tuple[Floats, Floats, Ints]:
        """What mappings of which the rest of the dims are not cut cost at the least, and the rows of those that may fit."""
        costs = self.pricing.costs(state.factors(self.nest, rest))
        fit = costs.fit & state.within(self.nest, self.wanted, rest)
        score, second = (np.broadcast_to(array, state.shape).reshape(-1) for array in self.score(costs))
        return score, second, np.flatnonzero(np.broadcast_to(fit, state.shape))

    def join(self, best: _Best, beam: int | None, state: State | None = None, depth: int = 0) -> None:
        """Join chains of the next dim to partial mappings, the most hopeful first; `beam`: try only so many of them."""
        state = State.none(self.nest) if state is None else state
        part, rest = self.parts[depth], [Edge.of(part) for part in self.parts[depth + 1 :]]
        step = max(_CHUNK // len(part), 1)
        for start in range(0, state.shape[0], step):
            wider = state.rows(start, start + step).joined(self.nest, part)
            score, second, fit = self._bounds(wider, rest)
            if not rest:
                best.evaluated += len(score)
                self._note(best, wider, score, second, fit)
                continue
            best.bounded += len(score)
            fit = fit[best.open(score[fit], second[fit])]
            order = fit[np.lexsort((second[fit], score[fit]))][:beam]
            if len(order):
                self.join(best, beam, wider.flat(order), depth + 1)

    def _note(self, best: _Best, state: State, score: Floats, second: Floats, fit: Ints) -> None:
        if not len(fit):
            return
        near = fit[np.flatnonzero(score[fit] * _CLOSE <= score[fit].min())]
        first = int(near[np.argmin(second[near])])
        if best.beaten_by(float(score[first]), float(second[first])):
            row = state.flat(np.array([first])).picked
            best.score, best.second, best.nest = float(score[first]), float(second[first]), self.nest
            best.factors = {part.dim: tuple(part.factors[row[part.dim][0, 0]].tolist()) for part in self.parts}


def worthwhile(pricing: Pricing, part: Chains, timed: bool) -> Chains:
    """The chains of a dim that no other beats: of those that use the axes in space alike, in every tile that is held and in all that they cost."""
    nest = pricing.nest
    alone = {operand.name for operand in nest.problem.operands if _alone(nest, operand.name) == {part.dim}}
    columns = _costs_alone(pricing, part, alone, timed) if alone else []
    for number, point in enumerate(nest.points):
        operand = point.operand
        if part.dim in operand.dims and point.store < len(nest.hierarchy.stores):
            columns.append(part.sizes[number])
        if part.dim in operand.window_dims or (part.dim not in operand.dims and operand.name not in alone):
            columns.append(part.loops[number])
    groups = np.zeros(len(part), np.int64)
    for used, axis in zip(part.used, nest.hierarchy.axes, strict=True):
        groups = groups * (axis.size + 1) + used.astype(np.int64)
    return part.take(undominated(np.stack(columns, axis=1), groups))


def _alone(nest: Nest, name: str) -> set[str]:
    """The dims that decide how often an operand's tiles are loaded anew."""
    operand = next(operand for operand in nest.problem.operands if operand.name == name)
    return {
        dim
        for dim, extent in nest.problem.extents.items()
        if extent > 1 and (dim not in operand.dims or operand.windows)
    }


def _costs_alone(pricing: Pricing, part: Chains, names: set[str], timed: bool) -> list[Floats]:
    """What the operands cost that no other dim decides about, in joules and, where time matters, in seconds of each port."""
    nest = pricing.nest
    costs = pricing.costs(State.none(nest).joined(nest, part).factors(nest))
    joules, columns = np.zeros(len(part)), list[Floats]()
    zero = np.zeros(len(part))
    for number, store in enumerate(nest.hierarchy.stores):
        read = sum((v[0] for (at, name), v in costs.reads.items() if at == number and name in names), zero)
        write = sum((v[0] for (at, name), v in costs.writes.items() if at == number and name in names), zero)
        joules = joules + read * store.read_joules + write * store.write_joules
        if store.read_bandwidth and timed:
            reading, writing = read / store.read_bandwidth, write / store.write_bandwidth
            columns += [reading + writing] if store.one_port else [reading, writing]
    for name in names & costs.link_joules.keys():
        joules = joules + costs.link_joules[name][0]
    columns += [seconds[0] + zero for (_, name), seconds in costs.links.items() if name in names and timed]
    return [joules, *columns]
