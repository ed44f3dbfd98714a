"""What a kernel does, read off its template in one walk: moves, issue slots, matrix products, loops and the lives of its tiles.

Everything is an expression of the template's size symbols, so one walk serves all schedules of a structure: `Features.at` evaluates it for
numbers or for arrays of them. A kernel that is no template has the same features, which then are numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from codesign.ir.analysis import dependence, slot_of
from codesign.ir.core import Block, Op, Value
from codesign.ir.functions import Unit
from codesign.ir.index import Index, ceildiv, index, maximum, minimum, product
from codesign.ir.precision import Precision
from codesign.ir.scalar import Apply, Scalar
from codesign.ir.tile import Axis, Band, Dot, For, GridDim, Kernel, Load, Map, Reduce, Store, When
from codesign.ir.types import TileType

Array = Any
"""A NumPy array or a Python number."""

Kind = Literal["load", "store", "atomic"]
Slot = tuple[Unit, str]
"""A unit and the name of the dtype that it works on."""


@dataclass(frozen=True)
class Loop:
    """A loop: steps of one pass, passes of one program, iterations of loads in flight, and the values that it carries; the loops `around`."""

    variable: str
    trips: Index
    times: Index
    depth: Index
    carried: int
    around: tuple[str, ...] = ()


@dataclass(frozen=True)
class Move:
    """One load or store of the text.

    `tensor`: position among the kernel's buffers. `element_bytes`: of one lane. `lanes`: of one execution; `times`: executions by one
    program. `passes`: how often a program sweeps the same data, by the loops around that the access does not follow. `masks`: comparisons
    of a lane. `sharers`: grid dims along which programs touch the same data. `gathers`: an index is data. `follows`: variables of the grid,
    of loops and of axes that its addresses follow, through positions that are data too. `bounds`: those of the grid that the loops around
    begin or end with. `around`: variables of the loops around, outermost first.
    """

    kind: Kind
    tensor: int
    element_bytes: int
    lanes: Index
    times: Index
    passes: Index
    masks: int
    sharers: tuple[str, ...]
    gathers: bool
    follows: frozenset[str]
    bounds: frozenset[str]
    around: tuple[str, ...] = ()

    @property
    def bytes(self) -> Index:
        """Moved by one program, idle lanes included, each execution counted."""
        return self.lanes * self.times * self.element_bytes


@dataclass(frozen=True)
class Product:
    """One matrix product of the text: `m x n x k` multiply-adds, `times` by one program, of operands of a dtype. `around`: as of moves."""

    m: Index
    n: Index
    k: Index
    times: Index
    operand: str
    accumulate: str
    precision: Precision
    around: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arithmetic:
    """Element-wise work on tiles, or a reduction of it over `reduced` axes, `times` by one program.

    `slots`: of each operation, the names of the axes that it depends on, the slot and its cost in issue slots; what combines lanes comes
    last. `around`: as of moves.
    """

    axes: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    slots: tuple[tuple[frozenset[str], Slot, float], ...]
    times: Index
    around: tuple[str, ...]

    @property
    def parts(self) -> tuple[tuple[Slot, float, Index], ...]:
        """Slots and costs with the points that take them."""
        sizes = {axis.name: axis.extent for axis in (*self.axes, *self.reduced)}
        return tuple(
            (slot, cost, self.times * product(sizes[name] for name in sorted(used))) for used, slot, cost in self.slots
        )


Feature = Move | Product | Arithmetic | Loop


@dataclass(frozen=True)
class Work:
    """Features in numbers (of one program, in the mean over the grid, all lanes active), each an array over the schedules asked for or a
    number.

    `load_bytes`, `store_bytes`, `atomic_bytes`; `products`: multiply-adds by dtype of the operands; `slots`: issue slots by unit and dtype;
    `reductions`: executions of reductions over lanes; `masks`: comparisons of lanes of moves; `live_bytes`: most that live tiles hold at
    once; `trips`: steps that a loop makes in all; `programs`: of the grid.
    """

    programs: Array
    load_bytes: Array
    store_bytes: Array
    atomic_bytes: Array
    masks: Array
    reductions: Array
    live_bytes: Array
    products: dict[str, Array]
    slots: dict[Slot, Array]
    trips: dict[str, Array]


@dataclass(frozen=True, eq=False)
class Features:
    """All features of a kernel. Where a mask cuts a loop, they are expressions of the indices of the `grid`, too."""

    grid: tuple[GridDim, ...]
    moves: tuple[Move, ...]
    products: tuple[Product, ...]
    loops: tuple[Loop, ...]
    arithmetic: tuple[Arithmetic, ...]
    kernel: Kernel = field(repr=False)
    of: Mapping[Op, Feature] = field(repr=False)
    """By op of the text, in its order."""

    @property
    def programs(self) -> Index:
        return product(dim.extent for dim in self.grid)

    @cached_property
    def slots(self) -> Mapping[Slot, tuple[tuple[float, Index], ...]]:
        """For each unit and dtype, costs with the points that take them."""
        found: dict[Slot, dict[float, Index]] = {}
        for work in self.arithmetic:
            for slot, cost, points in work.parts:
                costs = found.setdefault(slot, {})
                costs[cost] = costs.get(cost, index(0)) + points
        return {slot: tuple(costs.items()) for slot, costs in found.items()}

    @property
    def reductions(self) -> Index:
        """Executions of reductions over lanes."""
        return _total(work.times for work in self.arithmetic if work.reduced)

    @cached_property
    def lives(self) -> tuple[Index, ...]:
        """Bytes of the tiles that live at each op of the text."""
        return tuple(_Lives(self.kernel).found)

    def bytes(self, kind: Kind) -> Index:
        """Bytes that one program moves in moves of a kind."""
        return _total(move.bytes for move in self.moves if move.kind == kind)

    def at(self, sizes: Mapping[str, Array]) -> Work:
        """The features with numbers (or arrays of them) for the size symbols; KeyError names one without."""
        products: dict[str, Array] = {}
        for found in self.products:
            points = self.mean(found.m * found.n * found.k * found.times, sizes)
            products[found.operand] = products.get(found.operand, 0) + points
        slots = {
            key: sum(cost * self.mean(points, sizes) for cost, points in parts) for key, parts in self.slots.items()
        }
        live: Array = 0
        for held in self.lives:
            live = np.maximum(live, held.evaluate(sizes))
        return Work(
            programs=self.programs.evaluate(sizes),
            load_bytes=self.mean(self.bytes("load"), sizes),
            store_bytes=self.mean(self.bytes("store"), sizes),
            atomic_bytes=self.mean(self.bytes("atomic"), sizes),
            masks=self.mean(_total(move.lanes * move.times * move.masks for move in self.moves), sizes),
            reductions=self.mean(self.reductions, sizes),
            live_bytes=live,
            products=products,
            slots=slots,
            trips={loop.variable: self.mean(loop.trips * loop.times, sizes) for loop in self.loops},
        )

    def mean(self, expression: Index, sizes: Mapping[str, Array]) -> Array:
        """The value of an expression in the mean over the programs of the grid."""
        along = [dim for dim in self.grid if dim.name in expression.variables()]
        if not along:
            return expression.evaluate(sizes)
        given = np.broadcast_arrays(*sizes.values()) if sizes else []
        shape = given[0].shape if given else ()
        found = np.empty(shape)
        for place in np.ndindex(shape):
            here = {name: int(column[place]) for name, column in zip(sizes, given, strict=True)}
            programs = np.indices([int(dim.extent.evaluate(here)) for dim in along])
            every = expression.evaluate({**here, **{dim.name: each for dim, each in zip(along, programs, strict=True)}})
            found[place] = np.mean(np.broadcast_to(every, programs.shape[1:]))
        return found if shape else float(found)


def features(kernel: Kernel) -> Features:
    """The features of a kernel or of a template's kernel."""
    return _Walk(kernel).result()


class _Walk:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.moves: list[Move] = []
        self.products: list[Product] = []
        self.loops: list[Loop] = []
        self.arithmetic: list[Arithmetic] = []
        self.of: dict[Op, Feature] = {}
        self.around: list[tuple[str, Index]] = []
        """Variables and trips of the loops around."""
        self.programs = frozenset(dim.name for dim in kernel.grid)
        self.grid = kernel.grid
        """That of the band, inside of one."""
        self.places: dict[str, Index] = {}
        """Indices of a band's grid, by the program's number."""

    def result(self) -> Features:
        self.block(self.kernel.body, index(1))
        return Features(
            grid=self.kernel.grid,
            moves=tuple(self.moves),
            products=tuple(self.products),
            loops=tuple(self.loops),
            arithmetic=tuple(self.arithmetic),
            kernel=self.kernel,
            of=self.of,
        )

    def block(self, block: Block, times: Index) -> None:
        for op in block.ops:
            self.op(op, times)

    def op(self, op: Op, times: Index) -> None:
        if isinstance(op, For):
            trips = ceildiv((op.upper - op.lower).substitute(self.places), op.step)
            if op.lower != 0 or trips.variables() & self.programs:  # of some programs a mask leaves nothing
                trips = maximum(trips, 0)
            found = self.of[op] = Loop(op.variable, trips, times, op.depth, len(op.initial), self.loops_around)
            self.loops.append(found)
            self.around.append((op.variable, trips))
            self.block(op.body, times * trips)
            self.around.pop()
        elif isinstance(op, When):  # as if it held for every step: what data say is not known
            self.block(op.body, times)
        elif isinstance(op, Band):
            self.band(op, times)
        elif isinstance(op, (Load, Store)):
            self.move(op, times)
        elif isinstance(op, Map):
            self.work(op, _slots(op.body, op.axes), times)
        elif isinstance(op, Reduce):
            axes = (*op.axes, *op.reduced)
            unit: Unit = "fma" if op.monoid in ("sum", "prod") else "alu"
            combine = frozenset(axis.name for axis in axes), (unit, op.body.dtype.name), 1.0
            self.work(op, (*_slots(op.body, axes), combine), times)
        elif isinstance(op, Dot):
            (m, k), n = op.a.type.extents, op.b.type.extents[1]
            dtypes = op.a.type.dtype.name, op.accumulator.type.dtype.name
            multiply = self.of[op] = Product(m, n, k, times, *dtypes, op.precision, self.loops_around)
            self.products.append(multiply)

    @property
    def loops_around(self) -> tuple[str, ...]:
        return tuple(variable for variable, _ in self.around)

    def work(self, op: Map | Reduce, slots: Iterable[tuple[frozenset[str], Slot, float]], times: Index) -> None:
        reduced = op.reduced if isinstance(op, Reduce) else ()
        found = self.of[op] = Arithmetic(op.axes, reduced, tuple(slots), times, self.loops_around)
        self.arithmetic.append(found)

    def band(self, op: Band, times: Index) -> None:
        """Its ops, once for each of its programs and never for the others."""
        begun, ended = (maximum(minimum(index(op.variable) - edge + 1, 1), 0) for edge in (op.first, op.end))
        self.grid, self.places = op.grid, op.places()
        self.block(op.body, times * (begun - ended))
        self.grid, self.places = self.kernel.grid, {}

    def move(self, op: Load | Store, times: Index) -> None:
        kind: Kind = "load" if isinstance(op, Load) else "store" if op.atomic is None else "atomic"
        names = self.followed(op)
        passes = product(trips for variable, trips in self.around if variable not in names)
        found = Move(
            kind=kind,
            tensor=self.kernel.params.index(op.buffer),
            element_bytes=int(op.buffer.type.dtype.bytes),
            lanes=_points(op.axes),
            times=times,
            passes=passes,
            masks=sum((guard.low is not None) + (guard.high is not None) for guard in op.guards),
            sharers=tuple(dim.name for dim in self.grid if dim.name not in names),
            gathers=any(i.data() for i in op.indices),
            follows=names,
            bounds=frozenset(name for _, trips in self.around for name in trips.variables() & self.programs),
            around=self.loops_around,
        )
        self.moves.append(found)
        self.of[op] = found

    def followed(self, op: Load | Store) -> frozenset[str]:
        """Variables that the address of an access follows, those of the tiles that it reads positions from included."""
        found: set[str] = set()
        pending, seen = [*op.indices], set[Value]()
        while pending:
            expression = pending.pop()
            found |= expression.variables()
            reads = [read for scalar in expression.data() for read in scalar.reads()]
            while reads:
                owner = reads.pop().source.owner
                if owner is None or owner.results[0] in seen:
                    continue
                seen.add(owner.results[0])
                if isinstance(owner, Load):
                    pending.extend(owner.indices)
                elif isinstance(owner, (Map, Reduce)):
                    pending.extend(i for node in owner.body.walk() for i in node.index_expressions())
                    reads.extend(owner.body.reads())
        return frozenset(found)


def _slots(body: Scalar, axes: Iterable[Axis]) -> Iterator[tuple[frozenset[str], Slot, float]]:
    """Operations of an expression, each with the axes that it depends on; what is written twice is done once."""
    for node, used in dependence(body, {axis.name for axis in axes}):
        if isinstance(node, Apply):
            unit, dtype, cost = slot_of(node)
            if unit != "free":
                yield used, (unit, dtype.name), cost


class _Lives:
    """Bytes of the tiles that are alive at each op.

    A tile lives from the op that makes it to the last that uses it; what a loop uses from outside lives as long as the loop, and what it
    carries is held once.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.found: list[Index] = []
        self.block(kernel.body, index(0))

    def block(self, block: Block, outside: Index) -> None:
        last = {value: position for position, op in enumerate(block.ops) for value in op.uses()}
        last.update(dict.fromkeys(block.yields, len(block.ops)))
        alive: dict[Value, Index] = {value: _bytes(value) for value in block.args}
        for position, op in enumerate(block.ops):
            held = outside + _total(alive.values())
            if isinstance(op, (Band, When)):
                self.block(op.body, held)
            if isinstance(op, For):
                initial = dict.fromkeys(op.initial)
                carried = _total(_bytes(value) for value in initial if last[value] == position and value in alive)
                self.block(op.body, held - carried)
            alive.update({value: _bytes(value) for value in op.results})
            self.found.append(outside + _total(alive.values()))
            alive = {value: size for value, size in alive.items() if last.get(value, -1) > position}


def _bytes(value: Value) -> Index:
    kind = value.type
    return product(kind.extents) * int(kind.dtype.bytes) if isinstance(kind, TileType) else index(0)


def _points(axes: Iterable[Axis]) -> Index:
    return product(axis.extent for axis in axes)


def _total(parts: Iterable[Index]) -> Index:
    total = index(0)
    for part in parts:
        total = total + part
    return total
