"""Reductions and stores as tasks of a loop: what each carries, does per step, and leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from codesign.ir.analysis import ContractionForm, contraction
from codesign.ir.core import Value
from codesign.ir.dtypes import F32, I32, I64, DType
from codesign.ir.index import index
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, cast
from codesign.ir.tensor import Compute, Monoid
from codesign.ir.tile import Dot, Guard, Reduce, Store
from codesign.ir.tiling import monoids
from codesign.ir.tiling.values import Scope, Tile

if TYPE_CHECKING:
    from codesign.ir.tiling.program import Program


class Task(Protocol):
    """Work that goes on in the steps of a loop over some dims."""

    compute: Compute

    def initial(self, scope: Scope) -> list[Value]:
        """Carried values before the first step."""

    def step(self, scope: Scope, carried: list[Value]) -> list[Value]:
        """Emit one step; the carried values after it."""

    def finish(self, scope: Scope, carried: list[Value]) -> None:
        """Emit what follows the last step."""


class _Reduction:
    """What all reductions share: their axes and the conversion of the total to the result's dtype."""

    def __init__(self, program: Program, compute: Compute) -> None:
        self.program = program
        self.compute = compute
        self.kept = program.axes_of(dim.name for dim in compute.dims)
        self.reduced = program.axes_of(dim.name for dim in compute.reductions)

    @property
    def axes_of_total(self) -> tuple[str, ...]:
        return self.kept

    def conclude(self, scope: Scope, compute: Compute, total: Scalar) -> None:
        """Record the result of a compute, which a total is in the accumulator's dtype."""
        axes = self.axes_of_total
        tile = self.program.materialise(
            cast(total, compute.dtype), axes, scope, name=compute.result.name, location=compute.location
        )
        self.program.record(compute.result, tile, scope)

    def total(self, scope: Scope, carried: list[Value]) -> Scalar:
        """The total that a loop leaves behind."""
        raise NotImplementedError

    def finish(self, scope: Scope, carried: list[Value]) -> None:
        """Record the result."""
        self.conclude(scope, self.compute, self.total(scope, carried))

    def body(self, scope: Scope) -> Scalar:
        """The reduced expression in the accumulator's dtype, with the identity in lanes outside the reduced extents."""
        compute, program = self.compute, self.program
        assert compute.monoid is not None
        neutral = monoids.identity(compute.monoid, compute.accumulate)
        read = monoids.plain_read(scope.simplified(compute.body))
        if read is not None and read.source not in program.members and read.otherwise is None:
            fill = monoids.identity(compute.monoid, read.source.type.dtype)
            if fill.value == neutral.value:
                program.load(read, scope, fill=fill)
        body = monoids.truth(compute.monoid, program.expression(compute.body, scope))
        if compute.monoid not in ("any", "all"):
            body = cast(body, compute.accumulate)
        return program.mask(body, (dim.name for dim in compute.reductions), Literal(neutral.value, body.dtype), scope)

    def fold(self, scope: Scope, body: Scalar, reduced: tuple[str, ...], kept: tuple[str, ...], monoid: Monoid) -> Tile:
        """Reduce a body over axes."""
        program = self.program
        axes = program.domain.axes
        op = Reduce(
            axes(kept), axes(reduced), monoid, body, name=self.compute.result.name, location=self.compute.location
        )
        scope.ops.append(op)
        return program.remember(Tile(op.result, kept))


class Accumulation(_Reduction):
    """Any monoid but arg-reductions: lanes accumulate over the steps and are reduced once after the loop, or each step reduces."""

    def __init__(self, program: Program, compute: Compute, *, each_step: bool = False) -> None:
        super().__init__(program, compute)
        assert compute.monoid is not None
        self.monoid = compute.monoid
        by_lane = bool(program.domain.schedule.extra("partial", 1)) and not each_step
        self.axes = (*self.kept, *self.reduced) if by_lane else self.kept

    def initial(self, scope: Scope) -> list[Value]:
        neutral = monoids.identity(self.monoid, self.compute.accumulate)
        name = f"{self.compute.result.name}_start"
        return [self.program.materialise(neutral, self.axes, scope, name=name).value]

    def step(self, scope: Scope, carried: list[Value]) -> list[Value]:
        body = self.body(scope)
        if self.axes == self.kept and self.reduced:
            body = self.fold(scope, body, self.reduced, self.kept, self.monoid).read()
        total = monoids.combine(self.monoid, Read(carried[0], self.axes), body)
        return [self.program.materialise(total, self.axes, scope, name=self.compute.result.name).value]

    def total(self, scope: Scope, carried: list[Value]) -> Scalar:
        total: Scalar = Read(carried[0], self.axes)
        if self.axes != self.kept:
            total = self.fold(scope, total, self.reduced, self.kept, self.monoid).read()
        return total

    def whole(self, scope: Scope) -> None:
        """The reduction at once, when no reduced dim is looped."""
        body = self.body(scope)
        if self.reduced:
            body = self.fold(scope, body, self.reduced, self.kept, self.monoid).read()
        self.conclude(scope, self.compute, body)


class Selection(_Reduction):
    """Arg-reductions: each step finds its best value and where it is, and the loop carries both."""

    def __init__(self, program: Program, compute: Compute) -> None:
        super().__init__(program, compute)
        assert compute.monoid is not None
        self.monoid = compute.monoid

    def initial(self, scope: Scope) -> list[Value]:
        name = self.compute.result.name
        neutral = monoids.identity(self.monoid, self.compute.accumulate)
        best = self.program.materialise(neutral, self.kept, scope, name=f"{name}_best")
        where = self.program.materialise(Literal(0, I64), self.kept, scope, name=f"{name}_where")
        return [best.value, where.value]

    def step(self, scope: Scope, carried: list[Value]) -> list[Value]:
        program = self.program
        value, position = self._best(scope)
        best, where = Read(carried[0], self.kept), Read(carried[1], self.kept)
        wins = monoids.better(self.monoid, value, best)
        name = self.compute.result.name
        new_best = program.materialise(monoids.keep_better(wins, value, best), self.kept, scope, name=f"{name}_best")
        new_where = program.materialise(
            monoids.keep_better(wins, position, where), self.kept, scope, name=f"{name}_where"
        )
        return [new_best.value, new_where.value]

    def total(self, scope: Scope, carried: list[Value]) -> Scalar:
        return Read(carried[1], self.kept)

    def whole(self, scope: Scope) -> None:
        """The reduction at once, when the reduced dim is not looped."""
        self.conclude(scope, self.compute, self._best(scope)[1])

    def _best(self, scope: Scope) -> tuple[Scalar, Scalar]:
        """The best value of a step and its position in the whole extent."""
        (dim,) = self.compute.reductions
        plan = self.program.domain.plans[dim.name]
        body = self.body(scope)
        start = self.program.position(plan, scope).substitute({dim.name: 0})
        if not self.reduced:
            return body, IndexValue(start, I64)
        axes = (*self.kept, *self.reduced)
        read = self.program.materialise(body, axes, scope).read()
        value = self.fold(scope, read, self.reduced, self.kept, monoids.pick_extreme(self.monoid)).read()
        position: Scalar = self.fold(scope, read, self.reduced, self.kept, self.monoid).read()
        if start != 0:
            position = Apply("add", (position, IndexValue(start, I64)), I64)
        return value, position


class MatrixProduct(_Reduction):
    """A sum of products of two factors whose tile is big enough for a matrix unit."""

    def __init__(self, program: Program, compute: Compute, form: ContractionForm, axes: tuple[str, str, str]) -> None:
        super().__init__(program, compute)
        self.form = form
        self.m, self.n, self.k = axes
        self.accumulate = accumulator_dtype(form)
        self.operand = form.operand or F32

    @property
    def axes_of_total(self) -> tuple[str, ...]:
        return self.m, self.n

    def initial(self, scope: Scope) -> list[Value]:
        zero = Literal(0, self.accumulate)
        name = f"{self.compute.result.name}_start"
        return [self.program.materialise(zero, (self.m, self.n), scope, name=name).value]

    def step(self, scope: Scope, carried: list[Value]) -> list[Value]:
        left = self._factor(self.form.left, (self.m, self.k), scope)
        right = self._factor(self.form.right, (self.k, self.n), scope)
        op = Dot(
            left.value,
            right.value,
            carried[0],
            precision=self.form.precision,
            name=self.compute.result.name,
            location=self.compute.location,
        )
        scope.ops.append(op)
        return [op.result]

    def total(self, scope: Scope, carried: list[Value]) -> Scalar:
        return self.program.remember(Tile(carried[0], (self.m, self.n))).read()

    def whole(self, scope: Scope) -> None:
        """The product at once, when no reduced dim is looped."""
        self.finish(scope, self.step(scope, self.initial(scope)))

    def _factor(self, factor: Scalar, axes: tuple[str, str], scope: Scope) -> Tile:
        program = self.program
        factor = scope.simplified(factor)
        names = factor.variables() | {name for name in axes if name in {dim.name for dim in self.compute.reductions}}
        place = program.outermost(names, scope)
        if isinstance(factor, Read) and factor.source not in program.members:
            program.load(factor, place, order=axes)
        body = program.expression(factor, place)
        body = program.mask(
            cast(body, self.operand), (dim.name for dim in self.compute.reductions), Literal(0, self.operand), place
        )
        return program.materialise(body, axes, place)


class StoreTask:
    """Writing a value that carries looped dims, step by step."""

    def __init__(self, program: Program, compute: Compute, output: int) -> None:
        self.program = program
        self.compute = compute
        self.output = output

    def initial(self, scope: Scope) -> list[Value]:
        return []

    def step(self, scope: Scope, carried: list[Value]) -> list[Value]:
        self.emit(scope)
        return []

    def finish(self, scope: Scope, carried: list[Value]) -> None:
        return None

    def emit(self, scope: Scope) -> None:
        """Store the value's tile at its place in the output, by one program only where a grid dim does not tell programs apart."""
        program = self.program
        tile = program.make(self.compute.result, scope)
        dims = {dim.name for dim in self.compute.dims}
        guards = []
        for name, plan in program.domain.plans.items():
            if name in dims and scope.sticks_out(plan):
                guards.append(Guard(program.position(plan, scope), None, plan.extent))
            elif name not in dims and plan.kind == "grid" and not plan.sole:
                guards.append(Guard(index(plan.variable), None, index(1)))
        buffer, indices = program.outputs[self.output]
        write = program.writes.get(self.output)
        if write is not None:
            guarded = [(i, n) for i, n in zip(indices, buffer.shape, strict=True) if not (write.within and i.data())]
            guards += program.inside([i for i, _ in guarded], [n for _, n in guarded], scope)
        places = [program.lane(i, scope) for i in indices]
        axes = program.domain.axes(tile.axes)
        atomic = None if write is None or write.combine == "set" else write.combine
        place = self.compute.location
        scope.ops.append(Store(tile.value, buffer, axes, places, guards=guards, atomic=atomic, location=place))


def accumulator_dtype(form: ContractionForm) -> DType:
    """Dtype that a matrix unit accumulates in: f32 for floats, i32 for integers."""
    return F32 if form.accumulate.is_float else I32


def oriented(compute: Compute) -> ContractionForm | None:
    """The compute as a matrix product whose left factor has the dims that come first in the result."""
    form = contraction(compute)
    if form is None:
        return None
    kept = [dim.name for dim in compute.dims]
    if kept.index(form.n[-1]) >= kept.index(form.m[-1]):
        return form
    return replace(form, left=form.right, right=form.left, m=form.n, n=form.m)


def matrix_axes(program: Program, form: ContractionForm) -> tuple[str, str, str] | None:
    """The m, n and k tile axes when the tile suits a matrix unit: one axis of at least 16 each, batch dims scalar."""
    sides = []
    for role in (form.m, form.n, form.k):
        axes = program.axes_of(role)
        if len(axes) != 1 or not program.domain.plans[axes[0]].wide:
            return None
        sides.append(axes[0])
    if program.axes_of(form.batch):
        return None
    return sides[0], sides[1], sides[2]


def reduction(
    program: Program, compute: Compute, *, each_step: bool = False
) -> Accumulation | Selection | MatrixProduct:
    """The task that does a compute's reduction under the schedule; `each_step`: over lanes, too, in each step of its loop."""
    if compute.monoid in ("argmax", "argmin"):
        return Selection(program, compute)
    form = oriented(compute)
    if form is not None and form.operand is not None:
        axes = matrix_axes(program, form)
        if axes is not None:
            return MatrixProduct(program, compute, form, axes)
    return Accumulation(program, compute, each_step=each_step)
