"""Templates: a kernel written once, with symbols where the schedule's numbers go.

A template is tile IR in which the sizes of tiles and the depth of loops are size symbols of the kernel, so it prints, parses, verifies
and runs (at given sizes) like any other. `instantiate` puts numbers in place of the symbols and simplifies what then can be known.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from codesign.ir.core import Block, Op, Value
from codesign.ir.index import Bounds, Extremum, FloorDiv, Index, Mod, Var, ceildiv, index
from codesign.ir.reach import EARLIER, Stretch
from codesign.ir.scalar import IndexValue, Read, Scalar
from codesign.ir.schedule import Schedule
from codesign.ir.tile import Axis, Band, Dot, For, GridDim, Guard, Kernel, Load, Map, Reduce, Store, When
from codesign.ir.types import TileType

MOST_PROGRAMS = 1 << 12
"""Programs that are looked at one by one."""


@dataclass(frozen=True)
class Template:
    """All kernels of one structure.

    `kernel`: its text, over the size symbols. `tiles`: the symbol of each dim that has a tile axis. `depth`: the symbol of its loops' depth,
    empty where it has no loop. `bounds`: ranges of the module's own size symbols. `along`: the dim that each index of the grid and of a loop
    goes along. `structure`: equal for templates of one group that are the same text. `stretches`: of indices of loops that make only some of the
    steps along their dim, which ones.
    """

    kernel: Kernel
    tiles: Mapping[str, str]
    depth: str
    bounds: Bounds
    along: Mapping[str, str]
    structure: Hashable = ()
    stretches: Mapping[str, Stretch] = field(default_factory=dict)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that a schedule gives values to."""
        return (*self.tiles.values(), *((self.depth,) if self.depth else ()))


def instantiate(template: Template, sizes: Mapping[str, int], schedule: Schedule) -> Kernel:
    """The kernel with numbers for all of the template's symbols; `schedule` is what its header says.

    KeyError names a symbol without a value.
    """
    given = {symbol: index(sizes[symbol]) for symbol in template.symbols}
    return _Instance(template, given).kernel(schedule)


class _Instance:
    def __init__(self, template: Template, sizes: Mapping[str, Index]) -> None:
        self.template = template
        self.sizes = sizes
        self.values: dict[Value, Value] = {}
        self.loops: dict[str, tuple[Index, Index]] = {}
        """The upper end and the step of each loop around."""
        self.extents: dict[str, Index] = {}
        """Of grid dims and tile axes."""

    def kernel(self, schedule: Schedule) -> Kernel:
        old, bounds = self.template.kernel, self.template.bounds
        params = [Value(value.type, value.name) for value in old.params]
        self.values.update(zip(old.params, params, strict=True))
        grid = tuple(GridDim(dim.name, self.sized(dim.extent).simplify(bounds)) for dim in old.grid)
        self.extents = {dim.name: dim.extent for dim in grid}
        gone = set(self.template.symbols)
        return Kernel(
            name=old.name,
            params=params,
            outputs=old.outputs,
            grid=grid,
            body=self.block(old.body),
            schedule=schedule,
            symbols=tuple(name for name in old.symbols if name not in gone),
            location=old.location,
            notes=dict(old.notes),
            overwrites=dict(old.overwrites),
        )

    def block(self, block: Block) -> Block:
        args = [Value(self.type(value), value.name) for value in block.args]
        self.values.update(zip(block.args, args, strict=True))
        ops = []
        for op, results in self.joined(block.ops):
            new = self.op(op)
            for old_value, value in zip(results, new.results, strict=True):
                value.name = old_value.name
                self.values[old_value] = value
            ops.append(new)
        return Block(args, ops, [self.values[value] for value in block.yields])

    def joined(self, ops: Iterable[Op]) -> Iterator[tuple[Op, Sequence[Value]]]:
        """The ops with the results that they stand for: one loop in place of all its stretches where none of its steps is whole."""
        run: list[For] = []
        for op in ops:
            stretch = self.template.stretches.get(op.variable) if isinstance(op, For) else None
            stretch = None if stretch in (*EARLIER, "rest") else stretch
            if run and (stretch in (None, "before") or (stretch == "whole" and len(run) > 1)):
                yield from self.run(run)
                run = []
            if isinstance(op, For) and stretch is not None:
                run.append(op)
            else:
                yield op, op.results
        yield from self.run(run)

    def run(self, run: Sequence[For]) -> Iterator[tuple[Op, Sequence[Value]]]:
        """The stretches of one loop."""
        whole = [op for op in run if self.template.stretches[op.variable] == "whole"]
        borders = [op for op in run if op not in whole]
        if not borders or not all(self.never(op) for op in whole):
            yield from ((op, op.results) for op in run)
            return
        first, border, last = run[0], borders[-1], run[-1]
        bounds = first.lower, last.upper, border.step
        one = For(border.variable, *bounds, first.initial, border.body, pipeline=border.depth, location=border.location)
        yield one, last.results

    def never(self, op: For) -> bool:
        """Whether a loop has no steps, whatever the program: by what is known of its bounds, or in each of the programs that differ in them."""
        known = self.template.bounds.with_extents(self.extents)
        missing = self.sized(op.lower - op.upper).simplify(known)
        if missing.proves_at_least(0, known):
            return True
        names = sorted(missing.variables())
        extents = [self.extents[name] for name in names if name in self.extents and self.extents[name].is_constant]
        if missing.data() or len(extents) < len(names) or prod(extent.constant for extent in extents) > MOST_PROGRAMS:
            return False
        programs = np.meshgrid(*(np.arange(extent.constant) for extent in extents), indexing="ij", sparse=True)
        return bool(np.min(missing.evaluate(dict(zip(names, programs, strict=True)))) >= 0)

    def type(self, value: Value) -> TileType:
        assert isinstance(value.type, TileType)
        return TileType(value.type.dtype, [self.sized(extent) for extent in value.type.extents])

    def op(self, op: Op) -> Op:
        """The op over values and sizes of the instance."""
        if isinstance(op, Load):
            axes = self.axes(op.axes)
            guards = [self.guard(guard) for guard in op.guards]
            indices = [self.place(i) for i in op.indices]
            buffer = self.values[op.buffer]
            return Load(buffer, axes, indices, guards=guards, otherwise=op.otherwise, location=op.location)
        if isinstance(op, Store):
            axes = self.axes(op.axes)
            guards = [self.guard(guard) for guard in op.guards]
            indices = [self.place(i) for i in op.indices]
            value, buffer = self.values[op.value], self.values[op.buffer]
            return Store(value, buffer, axes, indices, guards=guards, atomic=op.atomic, location=op.location)
        if isinstance(op, Map):
            axes = self.axes(op.axes)
            return Map(axes, self.scalar(op.body), dtype=op.result.type.dtype, location=op.location)
        if isinstance(op, Reduce):
            axes, reduced = self.axes(op.axes), self.axes(op.reduced)
            body = self.scalar(op.body)
            return Reduce(axes, reduced, op.monoid, body, dtype=op.result.type.dtype, location=op.location)
        if isinstance(op, Dot):
            a, b, accumulator = (self.values[value] for value in (op.a, op.b, op.accumulator))
            return Dot(a, b, accumulator, precision=op.precision, location=op.location)
        if isinstance(op, For):
            return self.loop(op)
        if isinstance(op, When):
            condition, otherwise = self.values[op.condition], [self.values[value] for value in op.otherwise]
            return When(condition, otherwise, self.block(op.body), location=op.location)
        if isinstance(op, Band):
            return self.band(op)
        raise TypeError(f"a template has no {op!r}")

    def loop(self, op: For) -> For:
        initial = [self.values[value] for value in op.initial]
        lower, upper, step = self.place(op.lower), self.place(op.upper), self.sized(op.step)
        self.loops[op.variable] = (upper, step)
        body = self.block(op.body)
        del self.loops[op.variable]
        depth = self.sized(op.depth)
        return For(op.variable, lower, upper, step, initial, body, pipeline=depth, location=op.location)

    def band(self, op: Band) -> Band:
        bounds = self.template.bounds
        grid = tuple(GridDim(dim.name, self.sized(dim.extent).simplify(bounds)) for dim in op.grid)
        self.extents.update({dim.name: dim.extent for dim in grid})
        return Band(op.variable, self.sized(op.first).simplify(bounds), grid, self.block(op.body), location=op.location)

    def sized(self, expression: Index) -> Index:
        return expression.substitute(self.sizes)

    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        found = tuple(Axis(axis.name, self.sized(axis.extent)) for axis in axes)
        self.extents.update({axis.name: axis.extent for axis in found})
        return found

    def guard(self, guard: Guard) -> Guard:
        sides = (None if side is None else self.sized(side) for side in (guard.low, guard.high))
        return Guard(self.place(guard.value), *sides)

    def scalar(self, scalar: Scalar) -> Scalar:
        """A body over the instance's tiles, its index values simplified."""

        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Read):
                return Read(
                    self.values.get(node.source, node.source), node.indices, node.otherwise
                )  # perhaps seen before, in an index
            if isinstance(node, IndexValue):
                return IndexValue(self.place(node.index), node.dtype)
            return None

        return scalar.rewrite(change)

    def place(self, expression: Index) -> Index:
        """An index expression in numbers, without divisions that tiles of these sizes make needless."""
        expression = expression.substitute(self.sizes, self.scalar)
        steps = {
            f"{name} step": (name, step.constant)
            for name in sorted(expression.variables() & self.loops.keys())
            if (step := self.loops[name][1]).is_constant and step.constant > 1
        }
        # what the algebra sees: a loop's variable is a multiple of its step
        counted = expression.substitute({name: index(counter) * size for counter, (name, size) in steps.items()})
        if not any(isinstance(atom, (FloorDiv, Mod, Extremum)) for atom in counted.atoms()):
            return expression
        ranges = {name: upper for name, (upper, _) in self.loops.items()}
        ranges |= {counter: ceildiv(self.loops[name][0], size) for counter, (name, size) in steps.items()}
        known = self.template.bounds.with_extents({**self.extents, **ranges})
        return _over_variables(counted.simplify(known), steps)


def _over_variables(expression: Index, steps: Mapping[str, tuple[str, int]]) -> Index:
    """The expression over loop variables, given over counters of their steps: `counter * size` is the variable itself."""
    total = index(0)
    for monomial, coefficient in expression.terms:
        product = index(1)
        for atom in monomial:
            if isinstance(atom, Var) and atom.name in steps:
                variable, size = steps[atom.name]
                whole = coefficient % size == 0
                coefficient = coefficient // size if whole else coefficient
                factor = index(variable) if whole else index(variable) // size
            else:
                factor = Index.atom(atom).substitute({step: index(v) // size for step, (v, size) in steps.items()})
            product = product * factor
        total = total + product * coefficient
    return total
