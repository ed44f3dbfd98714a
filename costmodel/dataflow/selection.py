"""Which instructions the text of a kernel becomes on a dataflow machine, and what they keep in scratchpad.

Text is walked once for all schedules of a structure; sizes stay expressions. What costs nothing there: constants, which take no storage until
something needs it; element-wise work that its only user does in passing; sums that stay where they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from codesign.costmodel.accesses import access_of
from codesign.costmodel.dataflow.buffers import Buffer
from codesign.costmodel.dataflow.items import Item, Multiply, Part, Slots, Touch, Transfer, Vectors
from codesign.costmodel.dataflow.lanes import COMPARISONS, by_lane, narrow, parts_of, slots_apart, slots_of
from codesign.costmodel.dataflow.placing import Storage
from codesign.costmodel.dataflow.resting import names_of
from codesign.costmodel.dataflow.target import Array
from codesign.costmodel.features import Features, Move, Product
from codesign.costmodel.features import Loop as LoopFeature
from codesign.costmodel.structures import Text
from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import F4E2M1, DType
from codesign.ir.index import Index, index, product
from codesign.ir.reach import Stretch
from codesign.ir.reuse import count_uses, in_place, only_accumulates
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply, cast
from codesign.ir.scaled import packed, scaled_factors
from codesign.ir.template import Template
from codesign.ir.tile import Axis, Dot, For, Load, Map, Reduce, Store
from codesign.ir.types import TileType


@dataclass(eq=False)
class Section:
    """Straight code, or the steps of a loop. `loops`: those along which it goes, outermost first, with those of the section `around`; `stretch`:
    only these of the steps of the innermost."""

    loops: tuple[LoopFeature, ...] = ()
    dims: tuple[str, ...] = ()
    items: list[Item] = field(default_factory=list)
    touched: list[tuple[tuple[Touch, ...], ...]] = field(default_factory=list)
    """By item and instruction of it, which buffers that reads and which it writes: of parts of an expression, and then of what needs them."""
    around: Section | None = None
    span: tuple[int, int] = (0, 0)
    stretch: Stretch | None = None


@dataclass(frozen=True)
class Selection:
    """All sections in order of their work, a loop before what the steps around it do besides; and what they keep."""

    template: Template
    sections: tuple[Section, ...]
    storage: Storage


_KNOWN: WeakKeyDictionary[Text, dict[tuple[Set[str] | int, ...], Selection]] = WeakKeyDictionary()


def select(text: Text, extents: Mapping[str, Index], array: Array) -> Selection:
    """The instructions of a template's kernels on a machine's units, worked out once. `extents`: of the group's dims."""
    known, key = _KNOWN.setdefault(text, {}), (array.scaled, array.scales, frozenset(array.slowdown), array.mixed_bits)
    if key not in known:
        known[key] = _Selector(text.template, text.features, extents, *key).result()
    return known[key]


@dataclass(frozen=True)
class _Inline:
    axes: tuple[Axis, ...]
    body: Scalar


@dataclass(frozen=True)
class _Scaled:
    """Numbers of blocks and their scales (or no more than narrow numbers), which a product takes as they are."""

    held: tuple[Buffer, ...]
    dtype: str


@dataclass(frozen=True)
class _Held:
    buffer: Buffer
    mutable: bool = False
    alias: bool = False


@dataclass(frozen=True, eq=False)
class _Alone:
    """A part of an expression with what it reads: so many bytes (`read`), and those that the rest does not read too (`inline`), as `inline_slots` are
    those that the rest does not have too."""

    buffer: Buffer
    points: Index
    slots: Slots
    inline_slots: Slots
    reads: tuple[Read, ...]
    read: Index
    inline: Index


class _Selector:
    def __init__(
        self,
        template: Template,
        features: Features,
        extents: Mapping[str, Index],
        scaled: Set[str],
        scales: Set[str],
        multiplied: Set[str],
        mixed_bits: int,
    ) -> None:
        """`scaled`: dtypes that the tensor unit multiplies in blocks with scales, of these dtypes (`scales`), beside an operand of so many bits
        (`mixed_bits`) at the most where it is another; `multiplied`: all that it takes."""
        self.multiplied = multiplied
        self.template = template
        self.features = features
        self.extents = extents
        self.kernel = template.kernel
        self.uses = count_uses(self.kernel)
        self.places: dict[Value, _Held | _Inline | Literal | _Scaled] = {}
        self.scaled = scaled_factors(self.kernel, scaled, scales, mixed_bits)
        self.packed = packed(self.scaled)
        self.forced: dict[Value, Buffer] = {}
        self.users: dict[Value, Op] = {}
        self.local: set[Value] = set()
        self.buffers: list[Buffer] = []
        self.sections: list[Section] = []
        self.path: tuple[Section, ...] = ()
        self.section = Section()
        self.loaded: dict[Value, Section] = {}
        self.touched: list[Touch] = []
        self.instructions: list[tuple[Touch, ...]] = []
        self.position = 0

    def result(self) -> Selection:
        self._open(Section())
        self._block(self.kernel.body)
        used = [
            section for section in self.sections if section.items or any(s.around is section for s in self.sections)
        ]
        found = [buffer for buffer in self.buffers if buffer.paths]
        return Selection(self.template, tuple(used), Storage(tuple(found)))

    def _open(self, section: Section) -> None:
        self.section = section
        self.sections.append(section)

    def _block(self, block: Block) -> None:
        outside, self.local = self.local, {*block.args, *(value for op in block.ops for value in op.results)}
        self.users.update((value, op) for op in block.ops for value in op.operands())
        for op in block.ops:
            self.position += 1
            if isinstance(op, Load | Store):
                self._transfer(op)
            elif isinstance(op, Map):
                self._map(op)
            elif isinstance(op, Reduce):
                axes = (*op.axes, *op.reduced)
                self._vectors(self._scalar(op.body), axes, op.result, _points(op.axes), monoid=op.monoid)
            elif isinstance(op, Dot):
                self._dot(op)
            elif isinstance(op, For):
                self._for(op)
        self.local = outside

    # -- memory --------------------------------------------------------------------------------------------------
    def _transfer(self, op: Load | Store) -> None:
        move = self.features.of[op]
        assert isinstance(move, Move)
        kind = "load" if isinstance(op, Load) else "store"
        for expression in op.indices:
            for scalar in expression.data():
                self._positions(scalar, op.axes)
        if isinstance(op, Load):
            buffer = self._target(op.result)
            self.loaded[op.result] = self.section
        else:
            buffer = self._stored(op.value)
        self._touch(buffer, kind, writes=kind == "load")
        sources = [read.source for i in op.indices for scalar in i.data() for read in scalar.reads()]
        follows = any(self.loaded.get(source) is self.section for source in sources)
        variables = {dim.name for dim in self.kernel.grid}
        cut = any(loop.trips.variables() & variables for loop in self.section.loops)
        operand = names_of(self.kernel)[self.kernel.params.index(op.buffer)]
        access = access_of(op, move, self.template, self.extents)
        along = (self.template.along.get(name, name) for name in move.follows | move.bounds)
        dims = frozenset(along).intersection(self.extents)
        self._add(Transfer(kind, move, access, buffer, follows, cut, operand, dims))

    def _positions(self, scalar: Scalar, axes: tuple[Axis, ...]) -> None:
        """Positions that are worked out from data go through the vector unit first."""
        body = self._scalar(scalar)
        if not isinstance(body, Read):
            used = tuple(axis for axis in axes if axis.name in body.variables())
            buffer = self._buffer(_size_of(_points(used), body.dtype))
            self._vectors(body, used, buffer, _points(used))
        else:
            self._read(body, "load")

    # -- the vector unit -----------------------------------------------------------------------------------------
    def _map(self, op: Map) -> None:
        factor = self.scaled.get(op.result)
        if factor is not None:
            places = [self.places[read.source] for read in factor.reads]
            lasting = tuple(place.buffer for place in places if isinstance(place, _Held) and not place.mutable)
            if len(lasting) == len(places):
                self.places[op.result] = _Scaled(lasting, factor.dtype.name)
                return
        body = self._scalar(op.body)
        dtype = op.result.type.dtype
        if op.result not in self.forced and body.dtype is dtype:
            if isinstance(body, Literal):
                self.places[op.result] = body
                return
            if isinstance(op.body, Read) and isinstance(held := self.places[op.body.source], _Held):
                if not held.mutable and all(i.variable for i in op.body.indices):
                    self.places[op.result] = _Held(held.buffer, alias=True)
                    return
        if self._inlinable(op):
            self.places[op.result] = _Inline(op.axes, cast(body, dtype))
            return
        self._vectors(body, op.axes, op.result, _points(op.axes))

    def _inlinable(self, op: Map) -> bool:
        """Whether the only user is element-wise work on as many points, and what is read will still be there."""
        user = self.users.get(op.result)
        if self.uses.get(op.result) != 1 or op.result in self.forced or not isinstance(user, Map | Reduce):
            return False
        axes = (*user.axes, *(user.reduced if isinstance(user, Reduce) else ()))
        if _points(axes) != _points(op.axes):
            return False
        places = [self.places[value] for value in op.operands()]
        return not any(isinstance(place, _Held) and place.mutable for place in places)

    def _vectors(
        self, body: Scalar, axes: tuple[Axis, ...], into: Buffer | Value, written: Index, *, monoid: str | None = None
    ) -> None:
        """Element-wise work; what it makes `into` has its buffer after those of the parts."""
        names = {axis.name: axis.extent for axis in axes}
        body = by_lane(body, frozenset(names))
        points = _points(axes)
        alone, rest, whole = self._alone(body, names)
        buffer = self._target(into) if isinstance(into, Value) else into
        if monoid is not None:
            key = ("fma" if monoid in ("sum", "prod") else "alu", body.dtype.name)
            whole[key] = whole.get(key, 0.0) + 1.0
        elif not whole and not alone:
            whole = {("alu", body.dtype.name): 1.0}  # a copy or a fill passes the pipe once
        for part in alone:
            self._touch(part.buffer, "vector")
        for read in body.reads():
            through = [part.buffer for part in alone if read in part.reads] if read not in rest else []
            self._read(read, "vector", through)
        self._touch(buffer, "vector", writes=True)
        made = buffer.size if monoid is None else _size_of(written, body.dtype)
        parts = tuple(
            Part(part.points, part.slots, part.inline_slots, part.read, part.inline, part.buffer.size) for part in alone
        )
        self._add(Vectors(points, whole, parts, _bytes_of(rest, names), made, monoid is not None))

    def _alone(
        self, body: Scalar, names: Mapping[str, Index]
    ) -> tuple[list[_Alone], tuple[Read, ...], dict[tuple[str, str], float]]:
        """Instructions of the parts of an expression that may be worked out alone, what the rest reads, and its slots."""
        found: list[_Alone] = []
        nodes = dict(parts_of(body, frozenset(names)))
        rest = body.rewrite(lambda node: Literal(0.0, node.dtype) if node in nodes else None).reads()
        seen = set(rest)
        points = product(names.values())
        whole, inline_slots = slots_apart(body, nodes)
        for (node, used), more in zip(nodes.items(), inline_slots, strict=True):
            lanes, slots, reads = product(names[name] for name in sorted(used)), slots_of(node), node.reads()
            buffer = self._buffer(_size_of(lanes, node.dtype))
            buffer.part = (points, lanes, sum(slots.values()))
            for read in reads:
                self._read(read, "vector")
            self._touch(buffer, "vector", writes=True)
            self._next()
            inline = [read for read in reads if read not in seen]
            seen.update(inline)
            found.append(_Alone(buffer, lanes, slots, more, reads, _bytes_of(reads, names), _bytes_of(inline, names)))
        return found, rest, whole

    def _copy(self, value: Value, buffer: Buffer) -> None:
        kind = value.type
        assert isinstance(kind, TileType)
        place, points = self.places[value], product(kind.extents)
        read = index(0)
        if isinstance(place, _Held):
            self._touch(place.buffer, "vector")
            read = buffer.size
        self._touch(buffer, "vector", writes=True)
        self._add(Vectors(points, {("alu", kind.dtype.name): 1.0}, (), read, buffer.size, False))

    def _scalar(self, body: Scalar) -> Scalar:
        """The expression with what is constant or done in passing in place."""

        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Apply) and node.function in COMPARISONS:
                return narrow(node)
            if not isinstance(node, Read) or node.source not in self.places:
                return None
            place = self.places[node.source]
            if isinstance(place, _Inline):
                return place.body.substitute({a.name: i for a, i in zip(place.axes, node.indices, strict=True)})
            return place if isinstance(place, Literal) else None

        return body.rewrite(change)

    # -- products ------------------------------------------------------------------------------------------------
    def _dot(self, op: Dot) -> None:
        found = self.features.of[op]
        assert isinstance(found, Product)
        if not self._multiplies(op):
            self._summed(op)
            return
        dtypes: list[str] = []
        operands: list[Buffer] = []
        for value in (op.a, op.b):
            place = self.places[value]
            dtypes.append(place.dtype if isinstance(place, _Scaled) else found.operand)
            operands += place.held if isinstance(place, _Scaled) else (self._stored(value),)
        start = self.places[op.accumulator]
        forced = self.forced.get(op.result)
        if isinstance(start, _Held) and (
            start.buffer is forced or (forced is None and self._adoptable(op.accumulator, start))
        ):
            buffer = start.buffer
        else:
            buffer = self._target(op.result)
            if not (isinstance(start, Literal) and start.value == 0):
                self._copy(op.accumulator, buffer)
        self.places[op.result] = _Held(buffer)
        for operand in operands:
            self._touch(operand, "tensor")
            operand.operand = True
        self._touch(buffer, "tensor", writes=True)
        buffer.summed = True
        self._add(Multiply(found, buffer, *dtypes))

    def _multiplies(self, op: Dot) -> bool:
        """Whether the tensor unit does a product, not the vector unit."""
        assert isinstance(op.a.type, TileType)
        return op.a in self.scaled or op.b in self.scaled or op.a.type.dtype.name in self.multiplied

    def _summed(self, op: Dot) -> None:
        """A product on the vector unit: its sum, and what it is added to."""
        axes, body = op.summand()
        start, result = self.places[op.accumulator], axes[:2]
        if isinstance(start, Literal) and start.value == 0:
            self._vectors(self._scalar(body), axes, op.result, _points(result), monoid="sum")
            return
        part = Value(op.result.type, "part")
        self.places[part] = _Held(self._buffer(self._bytes(part)))
        self._vectors(self._scalar(body), axes, self._stored(part), _points(result), monoid="sum")
        here = tuple(index(axis.name) for axis in result)
        total = self._scalar(apply("add", Read(op.accumulator, here), Read(part, here)))
        if isinstance(start, _Held) and op.result not in self.forced and self._adoptable(op.accumulator, start):
            self.places[op.result], buffer = start, start.buffer
        else:
            buffer = self._target(op.result)
        self._vectors(total, result, buffer, _points(result))

    # -- loops ---------------------------------------------------------------------------------------------------
    def _for(self, op: For) -> None:
        carried: list[Buffer] = []
        for position, (arg, initial) in enumerate(zip(op.body.args, op.initial, strict=True)):
            start = self.places[initial]
            if isinstance(start, _Held) and self._adoptable(initial, start):
                buffer = start.buffer
            else:
                buffer = self._buffer(self._bytes(arg))
                alone = only_accumulates(op, position, self.uses, self._multiplies)
                first = isinstance(start, Literal) and start.value == 0 and alone
                if not first:
                    self._copy(initial, buffer)
            self.places[arg] = _Held(buffer, mutable=True)
            carried.append(buffer)
        for position, value in enumerate(op.body.yields):
            if in_place(op, position):
                self.forced[value] = carried[position]
        before, path = self.section, self.path
        self._enter(op)
        begun = self.position
        self._block(op.body)
        for value, buffer in zip(op.body.yields, carried, strict=True):
            place = self.places[value]
            if not (isinstance(place, _Held) and place.buffer is buffer and not place.alias):
                self._copy(value, buffer)
        self.position += 1
        inside = self.section
        inside.span = (begun, self.position)
        self.path = path
        self._leave(before)
        for result, buffer in zip(op.results, carried, strict=True):
            self.places[result] = _Held(buffer)

    def _enter(self, op: For) -> None:
        loop = self.features.of[op]
        assert isinstance(loop, LoopFeature)
        outer = self.section if self.path else None
        dims = (*(outer.dims if outer else ()), self.template.along[op.variable])
        section = Section((*(outer.loops if outer else ()), loop), dims, around=outer)
        section.stretch = self.template.stretches.get(op.variable)
        self._open(section)
        self.path = (*self.path, section)

    def _leave(self, before: Section) -> None:
        """Go on after a loop: in the steps of the loop around, which come after it in the order of work, or in straight code."""
        if before.loops:
            self.sections.remove(before)
            self.sections.append(before)
            self.section = before
        else:
            self._open(Section())

    # -- scratchpad ----------------------------------------------------------------------------------------------
    def _adoptable(self, value: Value, held: _Held) -> bool:
        """Whether a value's storage can be taken over: this is its only use, and it is made anew whenever this is reached."""
        return not held.alias and self.uses[value] == 1 and value in self.local

    def _stored(self, value: Value) -> Buffer:
        """Where a value lies, filled now when it is a constant."""
        place = self.places[value]
        if isinstance(place, _Held):
            return place.buffer
        buffer = self._buffer(self._bytes(value))
        self._copy(value, buffer)
        return buffer

    def _target(self, value: Value) -> Buffer:
        buffer = self.forced.get(value) or self._buffer(self._bytes(value))
        self.places[value] = _Held(buffer)
        return buffer

    def _bytes(self, value: Value) -> Index:
        """As it lies in scratchpad."""
        kind = value.type
        assert isinstance(kind, TileType)
        return _size_of(product(kind.extents), F4E2M1 if value in self.packed else kind.dtype)

    def _buffer(self, size: Index) -> Buffer:
        made = Buffer(size)
        self.buffers.append(made)
        return made

    def _read(self, node: Read, engine: str, through: Sequence[Buffer] = ()) -> None:
        place = self.places.get(node.source)
        if isinstance(place, _Held):
            self._touch(place.buffer, engine, through=through)

    def _add(self, item: Item) -> None:
        """The item whose instructions touch what was touched since the last one."""
        self._next()
        self.section.items.append(item)
        self.section.touched.append(tuple(self.instructions))
        self.instructions.clear()

    def _next(self) -> None:
        """The instruction that touches what was touched since the last one."""
        self.instructions.append(tuple(dict.fromkeys(self.touched)))
        self.touched.clear()
        self.position += 1

    def _touch(self, buffer: Buffer, engine: str, *, writes: bool = False, through: Sequence[Buffer] = ()) -> None:
        """`through`: what it is read by, if not here."""
        self.touched.append((buffer, writes))
        buffer.engines.add(engine)
        buffer.paths.append(self.path)
        if through:
            buffer.through += [(part, self.position) for part in through]
            return
        buffer.first, buffer.last = min(buffer.first, self.position), max(buffer.last, self.position)


def _bytes_of(reads: Iterable[Read], names: Mapping[str, Index]) -> Index:
    """Bytes that reads bring out of scratchpad: each element that they reach, once. `names`: of axes."""
    total = index(0)
    for read in reads:
        used = {name for i in read.indices for name in i.variables()}
        total = total + _size_of(product(names[name] for name in names if name in used), read.dtype)
    return total


def _points(axes: Iterable[Axis]) -> Index:
    return product(axis.extent for axis in axes)


def _size_of(points: Index, dtype: DType) -> Index:
    """Bytes of so many numbers side by side."""
    return points * int(dtype.bytes) if dtype.bytes.is_integer() else (points * dtype.bits + 7) // 8
