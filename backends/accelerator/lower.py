"""Lowers a tile-level kernel to a program: the grid over the cores, loads and stores to DMA, maps to the vector unit, dots to the
tensor unit, loops to control loops whose loads run ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from codesign.backends.accelerator.ahead import stage_ahead
from codesign.backends.accelerator.allocate import arrange
from codesign.backends.accelerator.dma import memory_order
from codesign.backends.accelerator.grid import Grid
from codesign.backends.accelerator.keep import Keeping
from codesign.backends.accelerator.naming import RESERVED, names_of, spelled
from codesign.backends.accelerator.narrowing import COMPARISONS, narrow_comparison
from codesign.backends.accelerator.places import Fill, Inline, Place, Scaled
from codesign.backends.accelerator.rewrite import map_guards
from codesign.backends.accelerator.synchronise import synchronise
from codesign.costmodel.dataflow.engines import apart
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.machine import Machine
from codesign.ir.analysis import operation_counts
from codesign.ir.core import Op, Value
from codesign.ir.dtypes import F4E2M1
from codesign.ir.errors import ScheduleError, UnsupportedError
from codesign.ir.index import Bounds, Index, index, product
from codesign.ir.program import (
    Instruction,
    Load,
    Loop,
    Matmul,
    Program,
    Scratch,
    Statement,
    Store,
    Vector,
    scratch,
)
from codesign.ir.reuse import count_uses, in_place, only_accumulates
from codesign.ir.scalar import Apply, Read, Scalar, apply, cast
from codesign.ir.scalar import Literal as ScalarLiteral
from codesign.ir.scaled import packed, scaled_factors
from codesign.ir.tile import Axis, Dot, For, Kernel, Map, Reduce
from codesign.ir.tile import Load as TileLoad
from codesign.ir.tile import Store as TileStore
from codesign.ir.types import BufferType, TileType


def lower(
    kernel: Kernel, machine: Machine, sizes: Mapping[str, int] | None = None, *, cores: int | None = None
) -> Program:
    """The program that runs a kernel on a dataflow machine.

    `sizes` gives values of the kernel's size symbols; `cores` limits how many cores are used. Raises ScheduleError when the tiles
    do not fit the scratchpad (with bytes needed and limit), UnsupportedError for an op that the machine lacks.
    """
    missing = [name for name in kernel.symbols if name not in (sizes or {})]
    if missing:
        raise ScheduleError(
            f"kernel @{kernel.name} needs a value for size {', '.join(missing)}", hint="give it in `sizes`"
        )
    target = target_of(machine)
    return _Lowering(kernel, target, dict(sizes or {}), cores).program()


class _Lowering:
    def __init__(self, kernel: Kernel, target: Target, sizes: dict[str, int], cores: int | None) -> None:
        self.kernel = kernel
        self.target = target
        self.sizes = sizes
        self.buffer_names: set[str] = set()
        self.buffers = {value: self._buffer(value) for value in kernel.params}
        self.extents = {dim.name: self._index(dim.extent) for dim in kernel.grid}
        total = product(self.extents.values())
        if not total.is_constant:
            raise ScheduleError(f"kernel @{kernel.name}: the grid has unknown size {total}", hint="give it in `sizes`")
        self.places: dict[Value, Place | Fill | Inline | Scaled] = {}
        self.scaled = scaled_factors(kernel, target.array.scaled, target.array.scales, target.array.mixed_bits)
        self.packed = packed(self.scaled)
        self.scratches: list[Scratch] = []
        self.names = {"core", "cores", "m", "n", "k", *names_of(kernel)}
        known = {name: extent.constant for name, extent in self.extents.items()}
        self.grid = Grid(known, kernel.schedule, target, cores, self._fresh)
        self.around: list[For] = []
        """The loops around the op that is lowered, outermost first."""
        self.keeping = Keeping(kernel, self.grid, target, lambda i: i.substitute(self.sizes), self.packed)
        self.uses = count_uses(kernel)
        self.ranges = self._ranges()
        self.forced: dict[Value, Scratch] = {}
        self.depths: dict[int, int] = {}
        self.local: set[Value] = set()
        self.users: dict[Value, Op] = {}

    # -- the whole -----------------------------------------------------------------------------------------------
    def program(self) -> Program:
        body: list[Statement] = []
        self._block(self.kernel.body.ops, body)
        depth = max([2 if self.kernel.schedule.pipeline > 1 else 1, *(min(d, 2) for d in self.depths.values())])
        statements, inner = self.grid.loop(body)
        self.depths[id(inner)] = depth
        program = Program(
            spelled(self.kernel.name),
            [self.buffers[value] for value in self.kernel.params],
            self.kernel.outputs,
            self.grid.cores,
            self.scratches,
            [],
            statements,
            self._dataflow(),
            self.kernel.location,
        )
        schedule = self.kernel.schedule
        program.joined = bool(schedule.extras.get("joined", False))
        program.resting = {
            self.buffers[value].name: self.target.ports[port].place for value, port in self.keeping.resting.items()
        }
        slots = arrange(program, self.target, self.depths, inner)
        synchronise(program, slots)
        program.scratches += self.keeping.scratches
        stage_ahead(program, self.grid, self.keeping.sets, self._fresh)
        if len(program.semaphores) > self.target.semaphores:
            raise ScheduleError(
                f"@{program.name} needs {len(program.semaphores)} semaphores, limit {self.target.semaphores} of {self.target.name}"
            )
        return program

    def _dataflow(self) -> str:
        """The dataflow that the schedule wants, where it is not what the array does anyway."""
        wanted = str(self.kernel.schedule.extras.get("dataflow", ""))
        return "" if wanted == self.target.array.dataflows[0] else wanted

    def _ranges(self) -> Bounds:
        """What axes, grid indices and loop variables range over."""
        extents = dict(self.extents)
        for op in self.kernel.body.walk():
            axes = (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))
            extents.update({axis.name: index(axis.size) for axis in axes})
            if isinstance(op, For):
                extents[op.variable] = op.upper.substitute(self.sizes)
        return Bounds(extents)

    def _block(self, ops: list[Op], out: list[Statement], args: Iterable[Value] = ()) -> None:
        outside, self.local = self.local, {*args, *(value for op in ops for value in op.results)}
        self.users.update((value, op) for op in ops for value in op.operands())
        for op in ops:
            self._op(op, out)
        self.local = outside

    def _op(self, op: Op, out: list[Statement]) -> None:
        if isinstance(op, TileLoad):
            self._load(op, out)
        elif isinstance(op, TileStore):
            self._store(op, out)
        elif isinstance(op, Map):
            self._map(op, out)
        elif isinstance(op, Reduce):
            body = self._hoisted(self._scalar(op.body, out), (*op.axes, *op.reduced), out)
            place = self._target_place(op.result, tuple(op.axes))
            out.append(Vector(self._read(place, op.axes), op.axes, body, op.reduced, op.monoid, location=op.location))
        elif isinstance(op, Dot):
            self._dot(op, out)
        elif isinstance(op, For):
            self._for(op, out)
        else:
            raise UnsupportedError(
                f"no lowering of tile op '{op.opcode}' to the accelerator", place=str(op.location) or None
            )

    # -- ops -----------------------------------------------------------------------------------------------------
    def _load(self, op: TileLoad, out: list[Statement]) -> None:
        indices = tuple(self._index(i, out, op.axes) for i in op.indices)
        guards = map_guards(op.guards, lambda i: self._index(i, out, op.axes))
        buffer = self.buffers[op.buffer]
        order = memory_order(op.axes, indices, buffer)
        half = self.packed.get(op.result)
        if half is None:
            place = self._target_place(op.result, op.axes, order)
        else:
            held = TileType(F4E2M1, _tile_type(op.result).shape)
            place = self.places[op.result] = self._new_place(held, op.result.name or "v", order)
            half = self._index(half)
        otherwise = op.otherwise if guards else None
        share = None if any(i.data() for i in _expressions(op)) else self.grid.share(self._depends(op))
        target = self._read(place, op.axes)
        keep = self.keeping.places.get(op)
        where = op.location
        out.append(Load(target, op.axes, buffer, indices, guards, otherwise, share, keep, half, location=where))

    def _depends(self, op: TileLoad) -> frozenset[str]:
        """The grid variables that a load depends on, through the bounds of the loops around it too."""
        loops = [side.substitute(self.sizes) for loop in self.around for side in (loop.lower, loop.upper, loop.step)]
        return frozenset(name for i in (*_expressions(op), *loops) for name in i.variables() & self.extents.keys())

    def _store(self, op: TileStore, out: list[Statement]) -> None:
        indices = tuple(self._index(i, out, op.axes) for i in op.indices)
        guards = map_guards(op.guards, lambda i: self._index(i, out, op.axes))
        source = self._read(self._stored(op.value, out), op.axes)
        out.append(Store(self.buffers[op.buffer], indices, op.axes, source, guards, op.atomic, location=op.location))

    def _map(self, op: Map, out: list[Statement]) -> None:
        factor = self.scaled.get(op.result)
        if factor is not None and all(self._lasts(read) for read in factor.reads):
            elements, *scales = (self._along(read, op.axes) for read in factor.reads)
            self.places[op.result] = Scaled(elements, tuple(scales))
            return
        body = self._scalar(op.body, out)
        dtype = _tile_type(op.result).dtype
        if isinstance(body, ScalarLiteral) and body.dtype is dtype and op.result not in self.forced:
            self.places[op.result] = Fill(body)
            return
        if isinstance(op.body, Read) and op.result not in self.forced and body.dtype is dtype:
            if self._lasts(op.body) and all(i.variable for i in op.body.indices):
                self.places[op.result] = self._along(op.body, op.axes)
                return
        if self._inlinable(op):
            self.places[op.result] = Inline(op.axes, cast(body, dtype))
            return
        body = self._hoisted(body, op.axes, out)
        place = self._target_place(op.result, op.axes)
        out.append(Vector(self._read(place, op.axes), op.axes, body, location=op.location))

    def _lasts(self, read: Read) -> bool:
        """Whether what is read is stored, and not written over."""
        source = self.places[read.source]
        return isinstance(source, Place) and not source.mutable

    def _along(self, read: Read, axes: tuple[Axis, ...]) -> Place:
        """What is stored already, as a value over some axes."""
        source = self.places[read.source]
        assert isinstance(source, Place)
        positions = {axis.name: f"${i}" for i, axis in enumerate(axes)}
        indices = source.read(read.indices).indices
        return Place(source.scratch, tuple(i.substitute(positions) for i in indices), alias=True)

    def _hoisted(self, body: Scalar, axes: tuple[Axis, ...], out: list[Statement]) -> Scalar:
        """The expression with parts that need far fewer points computed by instructions of their own before it.

        A vector instruction computes all of its expression at each of its points.
        """
        sizes = {axis.name: axis.size for axis in axes}
        points = prod(sizes.values())
        chosen: dict[Scalar, Scalar] = {}

        def visit(node: Scalar) -> None:
            if node in chosen or not isinstance(node, Apply):
                return
            used = tuple(axis for axis in axes if axis.name in node.variables())
            slots = sum(operation_counts(node).values())
            if apart(points, prod(axis.size for axis in used), slots):
                place = self._new_place(TileType(node.dtype, tuple(axis.size for axis in used)), "part")
                out.append(Vector(self._read(place, used), used, node, location=self.kernel.location))
                chosen[node] = self._read(place, used)
                return
            for child in node.children():
                visit(child)

        visit(body)
        return body.rewrite(chosen.get) if chosen else body

    def _inlinable(self, op: Map) -> bool:
        """Whether the only user is element-wise work on as many points, and what is read will still be there."""
        user = self.users.get(op.result)
        if self.uses.get(op.result) != 1 or op.result in self.forced or not isinstance(user, Map | Reduce):
            return False
        axes = (*user.axes, *(user.reduced if isinstance(user, Reduce) else ()))
        if prod(axis.size for axis in axes) != prod(axis.size for axis in op.axes):
            return False
        places = [self.places[value] for value in op.operands()]
        return not any(isinstance(place, Place) and place.mutable for place in places)

    def _dot(self, op: Dot, out: list[Statement]) -> None:
        m, n = _tile_type(op.accumulator).shape
        k = _tile_type(op.a).shape[1]
        axes = (Axis("m", m), Axis("n", n), Axis("k", k))
        (a, scale_a), (b, scale_b) = (
            self._operand(value, sides, out)
            for value, sides in ((op.a, (axes[0], axes[2])), (op.b, (axes[2], axes[1])))
        )
        start = self.places[op.accumulator]
        accumulate = not (isinstance(start, Fill) and start.value.value == 0)
        forced = self.forced.get(op.result)
        if isinstance(start, Place) and (
            start.scratch is forced or (forced is None and self._adoptable(op.accumulator, start))
        ):
            place = start
        else:
            place = self._target_place(op.result, axes[:2])
            if accumulate:
                out.append(self._copy(op.accumulator, place))
        self.places[op.result] = place
        target, scales = self._read(place, axes[:2]), (scale_a, scale_b)
        if self._multiplies(op):
            out.append(Matmul(target, a, b, axes, accumulate, None, op.precision, scales, location=op.location))
            return
        part = self._read(self._new_place(_tile_type(op.result), "part"), axes[:2]) if accumulate else target
        body = self._hoisted(apply("mul", cast(a, target.dtype), cast(b, target.dtype)), axes, out)
        out.append(Vector(part, axes[:2], body, axes[2:], "sum", location=op.location))
        if accumulate:
            out.append(Vector(target, axes[:2], apply("add", target, part), location=op.location))

    def _multiplies(self, op: Dot) -> bool:
        """Whether the tensor unit does a product, not the vector unit."""
        return op.a in self.scaled or op.b in self.scaled or self.target.multiplies(_tile_type(op.a).dtype)

    def _operand(self, value: Value, axes: tuple[Axis, ...], out: list[Statement]) -> tuple[Read, tuple[Read, ...]]:
        """An operand of a product, and the scales of its blocks where it has some."""
        place = self.places[value]
        if isinstance(place, Scaled):
            return self._read(place.elements, axes), tuple(self._read(scale, axes) for scale in place.scales)
        return self._read(self._stored(value, out), axes), ()

    def _for(self, op: For, out: list[Statement]) -> None:
        lower, upper, step = (self._index(i) for i in (op.lower, op.upper, op.step))
        if any(i.data() for i in (lower, upper, step)):
            raise UnsupportedError("a loop whose bounds depend on data", place=str(op.location) or None)
        runs = lower.is_constant and upper.is_constant and lower.constant < upper.constant
        carried: list[Scratch] = []
        firsts: dict[Value, int] = {}
        for position, (arg, initial) in enumerate(zip(op.body.args, op.initial, strict=True)):
            start = self._place(initial)
            if isinstance(start, Fill):
                place = self._new_place(_tile_type(arg), arg.name or "carried")
                if runs and start.value.value == 0 and only_accumulates(op, position, self.uses, self._multiplies):
                    firsts[op.body.yields[position]] = position
                else:
                    out.append(self._copy(initial, place))
            elif self._adoptable(initial, start):
                place = start
            else:
                place = self._new_place(_tile_type(arg), arg.name or "carried")
                out.append(self._copy(initial, place))
            self.places[arg] = Place(place.scratch, place.template, mutable=True)
            carried.append(place.scratch)
        for position, value in enumerate(op.body.yields):
            if in_place(op, position):
                self.forced[value] = carried[position]
        body: list[Statement] = []
        self.around.append(op)
        self._block(op.body.ops, body, op.body.args)
        self.around.pop()
        for value in firsts:
            self._start_at_first(body, self._place(value), index(op.variable) - lower)
        self._yield(op, carried, body)
        loop = Loop(op.variable, lower, upper, step, body)
        self.depths[id(loop)] = max(op.pipeline, 1)
        out.append(loop)
        for result, arg in zip(op.results, op.body.args, strict=True):
            held = self._place(arg)
            assert isinstance(held, Place)
            self.places[result] = Place(held.scratch, held.template)

    def _yield(self, op: For, carried: list[Scratch], body: list[Statement]) -> None:
        """Copy what was not computed in place, through temporaries when a carried value moves to another place."""
        moves: list[tuple[Value, Place]] = []
        for arg, value in zip(op.body.args, op.body.yields, strict=True):
            place, now = self.places[arg], self.places[value]
            assert isinstance(place, Place)
            if isinstance(now, Place) and now.scratch is place.scratch and now.template == place.template:
                continue
            moves.append((value, place))
        for position, (value, place) in enumerate(moves):
            now = self.places[value]
            if isinstance(now, Place) and now.scratch in carried:
                kept = self._new_place(_tile_type(value), "moved")
                body.append(self._copy(value, kept))
                held = Value(value.type, value.name)
                self.places[held] = kept
                moves[position] = (held, place)
        body.extend(self._copy(value, place) for value, place in moves)

    def _start_at_first(self, body: list[Statement], place: Place | Fill, first: Index) -> None:
        assert isinstance(place, Place)
        for statement in body:
            if isinstance(statement, Matmul) and statement.target.source is place.scratch.value:
                statement.first = first

    def _adoptable(self, value: Value, place: Place) -> bool:
        """Whether a value's storage can be taken over: this is its only use, and it is made anew whenever this is reached."""
        return place.whole and not place.alias and self.uses[value] == 1 and value in self.local

    # -- places --------------------------------------------------------------------------------------------------
    def _stored(self, value: Value, out: list[Statement]) -> Place:
        """The place of a value, filled now when it is a constant."""
        place = self._place(value)
        if isinstance(place, Fill):
            made = self._new_place(_tile_type(value), value.name or "fill")
            out.append(self._copy(value, made))
            return made
        return place

    def _place(self, value: Value) -> Place | Fill:
        place = self.places[value]
        assert not isinstance(place, Inline | Scaled), "only its one user reads what is not stored as it is"
        return place

    def _copy(self, value: Value, place: Place) -> Instruction:
        axes = tuple(Axis(f"d{i}", size) for i, size in enumerate(_tile_type(value).shape))
        source = self._place(value)
        body: Scalar = source.value if isinstance(source, Fill) else self._read(source, axes)
        where = value.owner.location if value.owner else self.kernel.location
        return Vector(self._read(place, axes), axes, body, location=where)

    def _read(self, place: Place, axes: tuple[Axis, ...]) -> Read:
        return place.read(tuple(index(axis.name) for axis in axes))

    def _target_place(self, value: Value, axes: tuple[Axis, ...], order: tuple[int, ...] | None = None) -> Place:
        forced = self.forced.get(value)
        if forced is not None:
            place = Place(forced, tuple(index(f"${i}") for i in range(len(axes))))
        else:
            place = self._new_place(_tile_type(value), value.name or "v", order)
        self.places[value] = place
        return place

    def _new_place(self, type: TileType, name: str, order: tuple[int, ...] | None = None) -> Place:
        positions = tuple(range(len(type.shape))) if order is None else order
        made = scratch(self._fresh(name), type.dtype, tuple(type.shape[i] for i in positions))
        self.scratches.append(made)
        return Place(made, tuple(index(f"${i}") for i in positions))

    def _fresh(self, name: str) -> str:
        base = spelled(name).replace(".", "_")
        base = base if base and not base[0].isdigit() else f"v{base}"
        found, number = base, 2
        while found in self.names or found in RESERVED:
            found, number = f"{base}_{number}", number + 1
        self.names.add(found)
        return found

    # -- expressions ---------------------------------------------------------------------------------------------
    def _buffer(self, value: Value) -> Value:
        kind = value.type
        assert isinstance(kind, BufferType)
        shape, strides = (tuple(i.substitute(self.sizes) for i in part) for part in (kind.shape, kind.strides))
        for size in (*shape, *strides):
            if not size.is_constant:
                raise ScheduleError(f"buffer %{value.name} has unknown size {size}", hint="give it in `sizes`")
        name, number = spelled(value.name), 2
        while name in self.buffer_names:
            name, number = f"{spelled(value.name)}_{number}", number + 1
        self.buffer_names.add(name)
        return Value(BufferType(kind.dtype, shape, strides), name)

    def _index(self, value: Index, out: list[Statement] | None = None, axes: tuple[Axis, ...] = ()) -> Index:
        """The expression with sizes put in; positions that are worked out from data go through the vector unit first."""
        value = value.substitute(self.sizes) if self.sizes else value
        if not value.data() or out is None:
            return value

        def change(scalar: Scalar) -> Scalar:
            found = self._scalar(scalar, out)
            if isinstance(found, Read):
                return found
            used = tuple(axis for axis in axes if axis.name in found.variables())
            place = self._new_place(TileType(found.dtype, tuple(axis.size for axis in used)), "positions")
            out.append(Vector(self._read(place, used), used, found, location=self.kernel.location))
            return self._read(place, used)

        return value.substitute({}, change)

    def _scalar(self, body: Scalar, out: list[Statement]) -> Scalar:
        """The expression over scratchpad places in place of tiles."""
        body = body.substitute(dict(self.sizes)) if self.sizes else body

        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Apply) and node.function in COMPARISONS:
                return narrow_comparison(node, self.ranges)
            if not isinstance(node, Read) or node.source not in self.places:
                return None
            place = self.places[node.source]
            if isinstance(place, Inline):
                return place.body.substitute({a.name: i for a, i in zip(place.axes, node.indices, strict=True)})
            assert not isinstance(place, Scaled), "only a product reads blocks with scales"
            return place.value if isinstance(place, Fill) else place.read(node.indices)

        return body.rewrite(change)


def _tile_type(value: Value) -> TileType:
    assert isinstance(value.type, TileType)
    return value.type


def _expressions(op: TileLoad) -> tuple[Index, ...]:
    """What says which elements a load brings."""
    sides = (side for guard in op.guards for side in guard.sides)
    return (*op.indices, *sides)
