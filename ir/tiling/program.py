"""One program of a kernel: pulls the group's outputs, making loops where a reduction or a store goes along a looped dim.

Reductions and stores that go along the same looped dims and do not depend on each other share a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codesign.ir.core import Block, Value
from codesign.ir.errors import ScheduleError
from codesign.ir.filled import Filled
from codesign.ir.fold import Fold
from codesign.ir.index import Index
from codesign.ir.location import merge
from codesign.ir.reach import EARLIER, Stretch
from codesign.ir.scalar import Scalar, cast
from codesign.ir.skipping import contributing
from codesign.ir.tensor import Compute
from codesign.ir.tile import Dot, For, Map, Reduce, When
from codesign.ir.tiling.bounds import Steps, around_whole, in_stretches, loop_bounds, reach_of
from codesign.ir.tiling.domain import DimPlan, Domain
from codesign.ir.tiling.folding import tasks_of
from codesign.ir.tiling.reductions import StoreTask, Task, reduction
from codesign.ir.tiling.values import Scope, Tile, Values
from codesign.ir.writes import Write

Output = tuple[Value, tuple[Index, ...]]
"""A buffer and where a result goes in it: one index per buffer dim over the result's dims."""

_WITHIN_ITSELF = 3
"""Loops along one dim that may lie in each other (sums by rows of sums by columns of ...): steps, and the text, grow as the power."""


@dataclass(frozen=True)
class _Nest:
    """What the loops along one dim are made for."""

    scope: Scope
    """Where they lie."""
    plan: DimPlan
    inner: tuple[str, ...]
    """Dims looped within."""
    tasks: list[Task]
    carried: list[list[Value]]
    """Per task, the values before the loops that each step replaces."""


_Loop = tuple[Steps, str, Block]
"""Its steps, its variable, and what a step does."""


class Program(Values):
    """Generates the body of a kernel."""

    def __init__(
        self,
        domain: Domain,
        buffers: Mapping[Value, Value],
        computes: Iterable[Compute],
        yields: tuple[Value, ...],
        outputs: tuple[Output, ...],
        writes: Mapping[int, Write] | None = None,
    ) -> None:
        listed = tuple(computes)
        shared = (compute for fold in domain.folds for compute in fold.shared)
        super().__init__(domain, buffers, {compute.result: compute for compute in (*listed, *shared)})
        self.outputs = outputs
        self.writes = writes or {}
        """Results, by position, that are written into a tensor from before, where a point may fall outside."""
        self._level = _levels(listed, domain)
        live = _reachable(yields, self.members)
        stores = [StoreTask(self, self.members[value], position) for position, value in enumerate(yields)]
        self._stores = [task for task in stores if not self._loops_of_store(task)]
        self._pending: list[Task] = [task for task in stores if self._loops_of_store(task)]
        self._reductions = [c for c in listed if c.result in live and c.reductions]
        self._live = live

    def run(self) -> Scope:
        """Emit everything; the program's body."""
        for task in self._stores:
            task.emit(self.root)
        while self._pending:
            first = min(self._pending, key=lambda task: self._level[task.compute.result])
            key = self._store_key(first)
            shared = self._share(key)
            self._run_loops(self.root, key[0], shared)
        return self.root

    def make(self, value: Value, scope: Scope) -> Tile:
        compute = self.members[value]
        place = self.outermost((dim.name for dim in compute.dims), scope)
        key = ("value", value)
        if key in place.memo:
            return place.memo[key]
        if not compute.reductions:
            axes = self.axes_of_dims(compute)
            body = cast(self.expression(compute.body, place), compute.dtype)
            self.record(value, self.materialise(body, axes, place, name=value.name, location=compute.location), place)
            return place.memo[key]
        loops = self.domain.looped(dim.name for dim in compute.reductions)
        if not loops:
            reduction(self, compute).whole(place)
            return place.memo[key]
        if place is self.root:
            self._run_loops(place, loops, self._share((loops, self._level[value] - 1)))
        else:
            self._run_loops(place, loops, self._tasks(compute))
        return place.memo[key]

    def record(self, value: Value, tile: Tile, scope: Scope) -> None:
        """Remember the tile of a value of the group, in the scope where it lives."""
        scope.memo["value", value] = tile

    def axes_of_dims(self, compute: Compute) -> tuple[str, ...]:
        """The result's tile axes, in the order of its dims."""
        return tuple(axis.name for axis in self.domain.axes(dim.name for dim in compute.dims))

    # -- loops ------------------------------------------------------------------------------------------------------
    def _loops_of_store(self, task: StoreTask) -> tuple[str, ...]:
        return self.domain.looped(dim.name for dim in task.compute.dims)

    def _store_key(self, task: Task) -> tuple[tuple[str, ...], int]:
        return self.domain.looped(dim.name for dim in task.compute.dims), self._level[task.compute.result]

    def _share(self, key: tuple[tuple[str, ...], int]) -> list[Task]:
        """Reductions and stores of the program's body that go along these dims and are ready at the same stage."""
        loops, level = key
        tasks: list[Task] = []
        folded: set[Value] = set()
        for compute in self._reductions:
            along = self.domain.looped(dim.name for dim in compute.reductions)
            outside = self.domain.looped(dim.name for dim in compute.dims)
            done = ("value", compute.result) in self.root.memo
            if along == loops and not outside and not done and self._level[compute.result] - 1 == level:
                new = [] if compute.result in folded else self._tasks(compute)
                folded |= {task.compute.result for task in new}
                tasks += new
        stores = [task for task in self._pending if self._store_key(task) == key]
        self._pending = [task for task in self._pending if task not in stores]
        return [*tasks, *stores]

    def _tasks(self, compute: Compute) -> list[Task]:
        """The task of a reduction, with those of the whole fold that it is a part of."""
        fold = self.domain.fold_of(compute.result)
        return [reduction(self, compute)] if fold is None else tasks_of(self, fold, self._live)

    def _run_loops(self, scope: Scope, loops: tuple[str, ...], tasks: list[Task]) -> None:
        initial = [task.initial(scope) for task in tasks]
        final = self._nest(scope, loops, tasks, initial)
        for task, carried in zip(tasks, final, strict=True):
            task.finish(scope, carried)

    def _nest(
        self, scope: Scope, loops: tuple[str, ...], tasks: list[Task], carried: list[list[Value]]
    ) -> list[list[Value]]:
        if not loops:
            return [task.step(scope, values) for task, values in zip(tasks, carried, strict=True)]
        plan = self.domain.plans[loops[0]]
        if scope.times(plan.name) >= _WITHIN_ITSELF:
            raise ScheduleError(
                f"reduce.{plan.name}: sums of sums along it take {_WITHIN_ITSELF + 1} loops, each in the one before",
                hint=f"reduce.{plan.name}=resident",
            )
        location = merge(task.compute.location for task in tasks)
        for steps, variable, body in self._stretches(_Nest(scope, plan, loops[1:], tasks, carried)):
            initial = [value for values in carried for value in values]
            depth = self.domain.depth
            op = For(variable, steps.lower, steps.upper, plan.size, initial, body, pipeline=depth, location=location)
            scope.ops.append(op)
            results = iter(op.results)
            carried = [[next(results) for _ in values] for values in carried]
        return carried

    def _stretches(self, nest: _Nest) -> list[_Loop]:
        """The loops along a dim, one after the other: of an innermost one, the steps in which masks leave everything are apart where that spares
        work of every lane."""
        plan = nest.plan
        cut = plan.remainder or plan.name in self.domain.reach
        steps = in_stretches(self.domain, plan) if cut else {}
        if "first" not in steps:
            return self._around_whole(nest, steps, loop_bounds(self.domain, plan))
        earlier = [self._loop(nest, steps[name]) for name in EARLIER if name in steps]
        return [*earlier, *self._around_whole(nest, steps, steps["rest"])]

    def _around_whole(self, nest: _Nest, steps: Mapping[Stretch, Steps], every: Steps) -> list[_Loop]:
        """Loops along one interval: several where some of the steps are apart, else one that makes `every` one."""
        found = [] if nest.inner else around_whole(steps)
        if not found:
            return [self._loop(nest, every)]
        variable = self._variable(nest)
        known = Filled.of(
            nest.plan.name, reach_of(self.domain, nest.plan), self.point_bounds, self.members, nest.scope.filled
        )
        whole = self._body(nest, variable, known)
        if not known.used and not (known.spared and any(isinstance(op, Dot) for op in whole.walk())):
            return [self._loop(nest, every, variable)]
        loops: list[_Loop] = []
        for one in found:
            if one.stretch == "whole":
                self.domain.stretches[variable] = one.stretch
                loops.append((one, variable, whole))
            else:
                loops.append(self._loop(nest, one))
        return loops

    def _loop(self, nest: _Nest, steps: Steps, variable: str = "") -> _Loop:
        """One loop whose steps are all alike."""
        variable = variable or self._variable(nest)
        if steps.stretch is not None:
            self.domain.stretches[variable] = steps.stretch
        return steps, variable, self._body(nest, variable, nest.scope.filled)

    def _variable(self, nest: _Nest) -> str:
        return self.domain.variable(nest.plan.name, f"k{nest.plan.name}")

    def _body(self, nest: _Nest, variable: str, filled: Filled | None) -> Block:
        """The steps of a loop."""
        args = [[Value(value.type, value.name) for value in values] for values in nest.carried]
        scope, name = nest.scope, nest.plan.name
        around = Scope(scope, name, {**scope.loops, name: variable}, filled=filled)
        condition = None if nest.inner else self._condition(nest.plan, nest.tasks)
        if condition is None:
            last = self._nest(around, nest.inner, nest.tasks, args)
        else:
            last = self._where(condition, around, nest.tasks, args)
        return Block((v for values in args for v in values), around.ops, (v for values in last for v in values))

    def _condition(self, plan: DimPlan, tasks: list[Task]) -> Scalar | None:
        """Under which condition on data a step counts for any of the tasks, where the schedule has it asked."""
        if not self.domain.schedule.extra("skip", 0) or any(isinstance(task, StoreTask) for task in tasks):
            return None
        folded = any(plan.name in fold.dims for fold in self.domain.folds)
        return contributing((task.compute for task in tasks), plan.name, self.members, folded=folded)

    def _where(
        self, condition: Scalar, scope: Scope, tasks: list[Task], carried: list[list[Value]]
    ) -> list[list[Value]]:
        """A step that is made where the condition holds for some of its points."""
        names = self.axes_of(condition.variables())
        asked = self.expression(condition, scope)
        passes = (
            Reduce((), self.domain.axes(names), "any", asked, name="counts") if names else Map((), asked, name="counts")
        )
        scope.ops.append(passes)
        within = Scope(scope, scope.binds, scope.loops, memo=dict(scope.memo), lanes=scope.lanes, filled=scope.filled)
        last = self._nest(within, (), tasks, carried)
        otherwise = [value for values in carried for value in values]
        body = Block((), within.ops, (value for values in last for value in values))
        op = When(passes.result, otherwise, body, location=merge(task.compute.location for task in tasks))
        scope.ops.append(op)
        results = iter(op.results)
        return [[next(results) for _ in values] for values in carried]


def _levels(computes: tuple[Compute, ...], domain: Domain) -> dict[Value, int]:
    """How many looped reductions lie on the longest path to each value, its own included; a fold is one."""
    level: dict[Value, int] = {}
    common = dict.fromkeys(domain.folds, 0)
    while True:
        for compute in computes:
            level[compute.result] = _level(compute, level, common, domain)
        found = {fold: _level_of_fold(fold, level) for fold in common}
        if found == common:
            return level
        common = found


def _level(compute: Compute, level: Mapping[Value, int], common: Mapping[Fold, int], domain: Domain) -> int:
    fold = domain.fold_of(compute.result)
    if fold is not None:
        part = fold.part(compute.result)
        assert part is not None
        return max(common[fold], *(level.get(read.source, 0) for read in part.finish.reads()))
    below = max((level.get(value, 0) for value in compute.operands()), default=0)
    return below + bool(domain.looped(dim.name for dim in compute.reductions))


def _level_of_fold(fold: Fold, level: Mapping[Value, int]) -> int:
    """One more than what its parts need before they begin."""
    computes = (*(part.reduced for part in fold.parts), *fold.shared)
    return 1 + max(level.get(value, 0) for compute in computes for value in compute.operands())


def _reachable(roots: Iterable[Value], members: Mapping[Value, Compute]) -> set[Value]:
    found: set[Value] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value in found or value not in members:
            continue
        found.add(value)
        stack.extend(members[value].operands())
    return found
