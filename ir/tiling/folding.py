"""Folds in a loop over tiles: the state that is carried, what each step does to it, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from codesign.ir.core import Value
from codesign.ir.fold import AFTER, BEFORE, Fold, Part
from codesign.ir.index import Index, index, minimum, product
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tiling.reductions import Task, reduction
from codesign.ir.tiling.values import Scope, Tile

if TYPE_CHECKING:
    from codesign.ir.tiling.program import Program


def tasks_of(program: Program, fold: Fold, live: Iterable[Value]) -> list[Task]:
    """The fold's parts that are needed, as tasks of one loop."""
    needed = set(live)
    return [
        Carried(program, fold, part) for part in fold.parts if part.compute is None or part.compute.result in needed
    ]


class Carried:
    """One part of a fold as a task of its loop.

    A step first brings the carried total to the references that take in the step's tile, then goes on as the part's plain reduction would.
    """

    def __init__(self, program: Program, fold: Fold, part: Part) -> None:
        self.program = program
        self.fold = fold
        self.part = part
        self.inner = reduction(program, part.reduced, each_step=part.reference is not None or part.rescaled)
        self.compute = part.compute or part.reduced
        self.axes = self.inner.axes_of_total

    def initial(self, scope: Scope) -> list[Value]:
        """The identity."""
        return self.inner.initial(scope)

    def step(self, scope: Scope, carried: list[Value]) -> list[Value]:
        """Merge what was carried with what the tile gives."""
        part, reference = self.part, self.part.reference
        if reference is not None:
            self._bind(part.total, carried[0], scope)
            self._refer(reference.before, reference.left, scope)
        if part.rescaled:
            self._bind(part.total, carried[0], scope)
            carried = [self._made(part.carry, scope, f"{self.compute.result.name}_kept").value]
        after = self.inner.step(scope, carried)
        if reference is not None:
            self._bind(part.total, after[0], scope)
            self._refer(reference.now, reference.settled, scope)
        return after

    def finish(self, scope: Scope, carried: list[Value]) -> None:
        """The result, and what later parts' results refer to."""
        total = self.inner.total(scope, carried)
        if isinstance(total, Read) and total.source in carried:
            self._bind(self.part.total, total.source, scope)
        else:
            self._bind(self.part.total, self.program.materialise(total, self.axes, scope).value, scope)
        if self.part.reference is not None:
            self._refer(self.part.reference.now, self.part.reference.settled, scope)
        if self.part.compute is not None:
            result = self.program.expression(self.part.finish, scope)
            self.inner.conclude(scope, self.part.compute, result)

    # -- what stand for the state -------------------------------------------------------------------------------------
    def _bind(self, value: Value, tile: Value, scope: Scope) -> None:
        scope.bound[value] = self.program.remember(Tile(tile, self.axes))

    def _refer(self, value: Value, scalar: Scalar, scope: Scope) -> None:
        scope.bound[value] = self._made(scalar, scope, value.name)

    def _made(self, scalar: Scalar, scope: Scope, name: str) -> Tile:
        body = self.program.expression(scalar.substitute(self._counts(scope)), scope)
        return self.program.materialise(body, self.axes, scope, name=name)

    def _counts(self, scope: Scope) -> dict[str, Index]:
        """Elements that the state holds before a step and after it."""
        plans = self.program.domain.plans
        before, whole = index(0), index(1)
        loops = [name for name in self.program.domain.looped(self.fold.dims) if name in scope.loops]
        rest = product(plans[name].extent for name in self.fold.dims if name not in loops)
        for position, name in enumerate(loops):
            plan, inside = plans[name], product(plans[other].extent for other in loops[position + 1 :])
            before = before + whole * index(scope.loops[name]) * inside
            whole = whole * minimum(plan.size, plan.extent - index(scope.loops[name]))
        return {BEFORE: before * rest, AFTER: (before + whole) * rest}
