"""Bounds of loops: what a mask empties for all of a program's rows and columns is not visited, and what it fills is a loop of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesign.ir.index import Bounds, Index, index
from codesign.ir.reach import Ends, Reach, Stretch
from codesign.ir.tiling.domain import DimPlan, Domain


@dataclass(frozen=True)
class Steps:
    """Steps of a loop along a dim: where they begin, a multiple of their size, and before which value they end, over the indices of the grid."""

    lower: Index
    upper: Index
    stretch: Stretch | None = None


def loop_bounds(domain: Domain, plan: DimPlan) -> Steps:
    """All the steps that a loop along a dim makes."""
    reach = domain.reach.get(plan.name)
    if reach is None:
        return Steps(index(0), plan.extent)
    known = _known(domain)
    lower, upper = reach.over(_ends(domain, plan), plan.extent, plan.size)
    return Steps(lower.simplify(known), upper.simplify(known))


def in_stretches(domain: Domain, plan: DimPlan) -> dict[Stretch, Steps]:
    """The same steps parted into those where masks leave everything and those where they do not, and those of several intervals."""
    reach, known = reach_of(domain, plan), _known(domain)
    found = reach.stretches(_ends(domain, plan), plan.extent, plan.size, even=not plan.remainder)
    return {name: Steps(low.simplify(known), high.simplify(known), name) for name, (low, high) in found.items()}


def around_whole(steps: Mapping[Stretch, Steps]) -> list[Steps]:
    """Stretches in the order in which they are made, those where masks leave everything apart; none where these are not known."""
    if "whole" not in steps:
        return []
    before, whole, after = steps["before"], steps["whole"], steps["after"]
    found = [*([before] if whole.lower != before.lower else []), whole]
    return [*found, *([after] if whole.upper != after.upper else [])]


def reach_of(domain: Domain, plan: DimPlan) -> Reach:
    """The part of a dim that masks leave: all of it where none cuts it."""
    return domain.reach.get(plan.name, Reach(index(0), plan.extent))


def _known(domain: Domain) -> Bounds:
    sizes = dict.fromkeys(domain.sizes, (1, None))
    return Bounds.of({dim.name: dim.extent for dim in domain.grid}, {**domain.bounds.symbols, **sizes})


def _ends(domain: Domain, plan: DimPlan) -> Ends:
    return {other.name: _ends_of(other) for other in domain.plans.values() if other is not plan}


def _ends_of(plan: DimPlan) -> tuple[Index, Index]:
    """The first and the last value of a dim in one program; all of it where the program goes along it."""
    if plan.kind != "grid" or plan.sole:
        return index(0), plan.extent - 1
    first = index(plan.variable) * plan.size
    return first, first + plan.size - 1
