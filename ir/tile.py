"""Operations of the tile level: kernels over a grid whose program instances work on blocks of values.

Block-level like Triton, but target-neutral. An access keeps its index expression per tensor dimension over named tile
axes, the grid and loop indices, so that a kernel can still be counted, re-costed and lowered to machines that move
blocks by DMA.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import DType
from codesign.ir.index import Index, IndexLike, index, product
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.precision import Precision
from codesign.ir.scalar import Literal as ScalarLiteral
from codesign.ir.scalar import Read, Scalar, apply, cast
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Monoid
from codesign.ir.types import TileType


@dataclass(frozen=True, slots=True)
class Axis:
    """A named axis of a tile: `0 <= name < extent`; the extent is an integer, or in a template an expression of its size symbols."""

    name: str
    extent: Index

    def __init__(self, name: str, size: IndexLike) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "extent", index(size))

    @property
    def size(self) -> int:
        """The extent as an integer; ValueError in a template."""
        return self.extent.constant

    def __str__(self) -> str:
        return f"{self.name}: {self.extent}"


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition of a lane to be active: `low <= value < high`; a side that is None is known to hold."""

    value: Index
    low: Index | None
    high: Index | None

    @property
    def sides(self) -> tuple[Index, ...]:
        """Its expressions."""
        return tuple(side for side in (self.value, self.low, self.high) if side is not None)


@dataclass(frozen=True, slots=True)
class GridDim:
    """One dimension of the grid: program index `0 <= name < extent` (the first varies slowest unless the schedule groups them)."""

    name: str
    extent: Index


def grid_variable(dim: str) -> str:
    """The program index along a dim of the group that a kernel was made from."""
    return f"p{dim}"


@dataclass(eq=False)
class Kernel:
    """A tile-level kernel: `kernel @name(%x: buffer<...>, ...) grid(pm: 8, pn: 16) schedule {...} { ... }`.

    `params`: buffers, inputs then outputs (`outputs` of them at the end). `symbols`: names of dynamic sizes passed as
    integers. `overwrites`: outputs that are the memory of an input, of which only a part is written: output's position -> input's.
    """

    name: str
    params: list[Value]
    outputs: int
    grid: tuple[GridDim, ...]
    body: Block
    schedule: Schedule
    symbols: tuple[str, ...] = ()
    location: Location = UNKNOWN
    notes: dict[str, str] = field(default_factory=dict)
    overwrites: dict[int, int] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Value]:
        return self.params[: len(self.params) - self.outputs]

    @property
    def results(self) -> list[Value]:
        return self.params[len(self.params) - self.outputs :]


def _tile(dtype: DType, axes: Iterable[Axis], name: str) -> Value:
    return Value(TileType(dtype, tuple(axis.extent for axis in axes)), name)


class _Access(Op):
    """Base of loads and stores: a buffer, an index per buffer dimension over the axes, and guards."""

    def __init__(
        self,
        buffer: Value,
        axes: Iterable[Axis],
        indices: Iterable[IndexLike],
        guards: Iterable[Guard],
        results: Iterable[Value],
        location: Location,
    ) -> None:
        self.buffer = buffer
        self.axes = tuple(axes)
        self.indices = tuple(index(i) for i in indices)
        self.guards = tuple(guards)
        super().__init__(results, location)

    def _index_expressions(self) -> tuple[Index, ...]:
        return (*self.indices, *(side for guard in self.guards for side in guard.sides))

    def operands(self) -> tuple[Value, ...]:
        data = (read.source for i in self._index_expressions() for scalar in i.data() for read in scalar.reads())
        return tuple(dict.fromkeys((self.buffer, *data)))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        def swap(i: Index) -> Index:
            return i.substitute({}, lambda s: s.replace_sources(mapping)) if i.data() else i

        self.buffer = mapping.get(self.buffer, self.buffer)
        self.indices = tuple(swap(i) for i in self.indices)
        self.guards = tuple(
            Guard(swap(g.value), None if g.low is None else swap(g.low), None if g.high is None else swap(g.high))
            for g in self.guards
        )


class Load(_Access):
    """`%t = load %x [m: 128, k: 64] at [pm*128 + m, kk + k] where pm*128 + m < M else 0.0`.

    Lanes whose guards fail get `otherwise`. Data-dependent indices read tiles: `%table[%ids[m], d]`.
    """

    opcode: ClassVar[str] = "load"

    def __init__(
        self,
        buffer: Value,
        axes: Iterable[Axis],
        indices: Iterable[IndexLike],
        *,
        guards: Iterable[Guard] = (),
        otherwise: ScalarLiteral | None = None,
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        listed = tuple(axes)
        self.otherwise = otherwise or ScalarLiteral(0, buffer.type.dtype)
        super().__init__(buffer, listed, indices, guards, (_tile(buffer.type.dtype, listed, name),), location)


Atomic = Literal["add", "mul", "max", "min"]
"""What a store that combines makes of an element and of what was there before."""

ATOMICS: tuple[Atomic, ...] = get_args(Atomic)


class Store(_Access):
    """`store %t[m, n] -> %out [m: 128, n: 64] at [...] where ...`; `atomic` combines instead of
    writing.

    `value` is a tile whose axes are `axes` in order.
    """

    opcode: ClassVar[str] = "store"

    def __init__(
        self,
        value: Value,
        buffer: Value,
        axes: Iterable[Axis],
        indices: Iterable[IndexLike],
        *,
        guards: Iterable[Guard] = (),
        atomic: Atomic | None = None,
        location: Location = UNKNOWN,
    ) -> None:
        self.value = value
        self.atomic = atomic
        super().__init__(buffer, axes, indices, guards, (), location)

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys((self.value, *super().operands())))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.value = mapping.get(self.value, self.value)
        super().replace(mapping)


class Map(Op):
    """`%t = map f32[m: 128, n: 64] { exp(%x[m, n] - %mx[m]) }`: element-wise work on tiles.

    The body reads tiles by bare axis names (in any order or subset: transposition and broadcast), and may use grid,
    loop and axis indices as values (`index(pm*128 + m)`).
    """

    opcode: ClassVar[str] = "map"

    def __init__(
        self,
        axes: Iterable[Axis],
        body: Scalar,
        *,
        dtype: DType | None = None,
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        self.axes = tuple(axes)
        self.body = body
        super().__init__((_tile(dtype or body.dtype, self.axes, name),), location)

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(read.source for read in self.body.reads()))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.body = self.body.replace_sources(mapping)


class Reduce(Op):
    """`%t = reduce f32[m: 128] max(n: 64) { %x[m, n] }`: reduce a body over axes of the tile.

    For argmax/argmin the result (i64) is the position along the one reduced axis.
    """

    opcode: ClassVar[str] = "reduce"

    def __init__(
        self,
        axes: Iterable[Axis],
        reduced: Iterable[Axis],
        monoid: Monoid,
        body: Scalar,
        *,
        dtype: DType | None = None,
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        from codesign.ir.dtypes import BOOL, I64

        self.axes = tuple(axes)
        self.reduced = tuple(reduced)
        self.monoid: Monoid = monoid
        self.body = body
        natural = I64 if monoid in ("argmax", "argmin") else BOOL if monoid in ("any", "all") else body.dtype
        super().__init__((_tile(dtype or natural, self.axes, name),), location)

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(read.source for read in self.body.reads()))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.body = self.body.replace_sources(mapping)


class Dot(Op):
    """`%c = dot %a, %b, %acc`: `acc + a @ b` of tiles `a[m, k]`, `b[k, n]` in the accumulator's dtype.

    `precision`: what the unit rounds of f32 operands (`codesign.ir.precision`); "ieee" keeps them.
    """

    opcode: ClassVar[str] = "dot"

    def __init__(
        self,
        a: Value,
        b: Value,
        accumulator: Value,
        *,
        precision: Precision = "ieee",
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        self.a = a
        self.b = b
        self.accumulator = accumulator
        self.precision: Precision = precision
        super().__init__((Value(accumulator.type, name),), location)

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys((self.a, self.b, self.accumulator)))

    def summand(self) -> tuple[tuple[Axis, Axis, Axis], Scalar]:
        """Axes m, n and k, and what a product without a matrix unit sums over k at each m and n."""
        types = [value.type for value in (self.a, self.b, self.accumulator)]
        left, right, result = (kind for kind in types if isinstance(kind, TileType))
        axes = Axis("m", left.extents[0]), Axis("n", right.extents[1]), Axis("k", left.extents[1])
        m, n, k = (index(axis.name) for axis in axes)
        return axes, apply("mul", cast(Read(self.a, (m, k)), result.dtype), cast(Read(self.b, (k, n)), result.dtype))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.a = mapping.get(self.a, self.a)
        self.b = mapping.get(self.b, self.b)
        self.accumulator = mapping.get(self.accumulator, self.accumulator)


class For(Op):
    """`%r = for kk in 0 to K step 64 (%acc = %zero) pipeline 3 { ...; yield %next }`.

    `variable` is the loop index in index expressions (a multiple of step from `lower`). The block's arguments are the
    carried values; results are their last values. `depth`: how many iterations of loads are in flight (1 = none
    ahead); `pipeline` is the same as an integer.
    """

    opcode: ClassVar[str] = "for"

    def __init__(
        self,
        variable: str,
        lower: IndexLike,
        upper: IndexLike,
        step: IndexLike,
        initial: Iterable[Value],
        body: Block,
        *,
        pipeline: IndexLike = 1,
        names: Iterable[str] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.variable = variable
        self.lower = index(lower)
        self.upper = index(upper)
        self.step = index(step)
        self.initial = tuple(initial)
        self.body = body
        self.depth = index(pipeline)
        labels = list(names) or [value.name for value in self.initial]
        super().__init__((Value(v.type, n) for v, n in zip(self.initial, labels, strict=True)), location)

    @property
    def pipeline(self) -> int:
        """The depth as an integer; ValueError in a template."""
        return self.depth.constant

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(self.initial))

    def blocks(self) -> tuple[Block, ...]:
        return (self.body,)

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.initial = tuple(mapping.get(value, value) for value in self.initial)
        super().replace(mapping)


class When(Op):
    """`%r = when %any else (%acc) { ...; yield %next }`: what the block yields where a condition, a bool without axes, holds, else the others.

    Nothing in the block is done where it does not hold: no load, no product.
    """

    opcode: ClassVar[str] = "when"

    def __init__(
        self,
        condition: Value,
        otherwise: Iterable[Value],
        body: Block,
        *,
        names: Iterable[str] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.condition = condition
        self.otherwise = tuple(otherwise)
        self.body = body
        labels = list(names) or [value.name for value in self.otherwise]
        super().__init__((Value(v.type, n) for v, n in zip(self.otherwise, labels, strict=True)), location)

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys((self.condition, *self.otherwise)))

    def blocks(self) -> tuple[Block, ...]:
        return (self.body,)

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.condition = mapping.get(self.condition, self.condition)
        self.otherwise = tuple(mapping.get(value, value) for value in self.otherwise)
        super().replace(mapping)


class Band(Op):
    """`band p from 512 (pi: 32, pj: 4) { ... }`: what the programs `512 <= p < 512 + 32 * 4` do, each at its place in a grid of the band's own.

    `variable` is the kernel's only grid dim. A kernel of bands has nothing else in its body, and each begins where the one before ends: every
    program is of one band, so all its threads take the same way.
    """

    opcode: ClassVar[str] = "band"

    def __init__(
        self,
        variable: str,
        first: IndexLike,
        grid: Iterable[GridDim],
        body: Block,
        *,
        location: Location = UNKNOWN,
    ) -> None:
        self.variable = variable
        self.first = index(first)
        self.grid = tuple(grid)
        self.body = body
        super().__init__((), location)

    @property
    def programs(self) -> Index:
        """How many there are."""
        return product(dim.extent for dim in self.grid)

    @property
    def end(self) -> Index:
        """The first program that is no longer of the band."""
        return self.first + self.programs

    def places(self) -> dict[str, Index]:
        """The indices of its grid, by the program's number."""
        rest, found = index(self.variable) - self.first, {}
        for position, dim in reversed(list(enumerate(self.grid))):
            found[dim.name] = rest % dim.extent if position else rest
            rest = rest // dim.extent
        return found

    def blocks(self) -> tuple[Block, ...]:
        return (self.body,)
