"""Nests: which operand is staged in which memory, and in what order; between them lie the loops in time and the axes in space.

Directly inside of where an operand is staged, only loops over dims that it does not depend on are worth having: any other could as well go around
it and leave a smaller tile. So each nest has few loops, and a mapping is a factor of each dim at each of the places where it may have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations, product

from codesign.costmodel.mapping.hierarchy import Hierarchy
from codesign.costmodel.mapping.problem import Operand, Problem


@dataclass(frozen=True)
class Point:
    """Where data of an operand arrives: in a store (`store`), or at the multipliers (`store` beyond the last). `parent`: the store they come
    from, `above`: how many entries of the nest are around it, `above_parent`: around that."""

    operand: Operand
    store: int
    parent: int
    above: int
    above_parent: int


@dataclass(frozen=True)
class Loop:
    """An entry of a nest that may have a factor of a dim: in time (`axis` is None), inside of staging `slot` - 1 (0: of the outermost memory
    only), or along an axis in space."""

    slot: int
    axis: int | None = None


@dataclass(frozen=True)
class Nest:
    """`staged`: (number of the store, operand), from the outermost in, without the outermost store, which has them all."""

    problem: Problem
    hierarchy: Hierarchy
    staged: tuple[tuple[int, Operand], ...]

    @cached_property
    def entries(self) -> tuple[Loop | tuple[int, Operand], ...]:
        """Loops and stagings from the outermost in."""
        found: list[Loop | tuple[int, Operand]] = [Loop(0)]
        axes = list(enumerate(self.hierarchy.axes))
        for slot, (store, operand) in enumerate(self.staged, 1):
            while axes and axes[0][1].before <= store:
                found.append(Loop(slot - 1, axes.pop(0)[0]))
            found += [(store, operand), Loop(slot)]
        return (*found, *(Loop(len(self.staged), number) for number, _ in axes))

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """All stagings, then the multipliers' reads of each operand."""
        last = {operand.name: (0, 0) for operand in self.problem.operands}
        found = []
        for at, entry in enumerate(self.entries):
            if isinstance(entry, tuple):
                store, operand = entry
                found.append(Point(operand, store, last[operand.name][0], at, last[operand.name][1]))
                last[operand.name] = (store, at)
        end = len(self.hierarchy.stores), len(self.entries)
        for operand in self.problem.operands:
            store, at = last[operand.name]
            found.append(Point(operand, end[0], store, end[1], at))
        return tuple(found)

    def loops_of(self, dim: str) -> list[int]:
        """Positions of the entries that may have a factor of a dim, the outermost loop in time first."""
        found, seen = [], set[int]()
        for at, entry in enumerate(self.entries):
            if not isinstance(entry, Loop):
                continue
            if entry.axis is not None:
                shares = self.hierarchy.axes[entry.axis].shares
                if not any(dim in operand.dims for operand in self.problem.operands if operand.role == shares):
                    found.append(at)
            elif entry.slot == 0:
                found.append(at)
            else:
                store, operand = self.staged[entry.slot - 1]
                if (dim not in operand.dims or dim in operand.window_dims) and store not in seen:
                    seen.add(store)
                    found.append(at)
        return found

    @property
    def stationary(self) -> str:
        """The dataflow: the role of the operand that is staged innermost and stays while others pass."""
        return f"{self.staged[-1][1].role} stationary" if self.staged else "none"


def nests(problem: Problem, hierarchy: Hierarchy) -> Iterator[Nest]:
    """All nests: for each memory, which of the operands that it may hold, and in what order."""
    choices: list[list[tuple[tuple[int, Operand], ...]]] = []
    for number, store in enumerate(hierarchy.stores[1:], 1):
        must = [operand for operand in problem.operands if operand.role in store.keeps]
        free = [operand for operand in problem.operands if operand.role in store.may - store.keeps]
        sets = [(*must, *more) for count in range(len(free) + 1) for more in combinations(free, count)]
        choices.append([tuple((number, operand) for operand in order) for some in sets for order in permutations(some)])
    for picked in product(*choices):
        yield Nest(problem, hierarchy, tuple(staging for store in picked for staging in store))
