"""Programs of the accelerator level: what every core of a dataflow accelerator runs.

One text serves all cores (`core` is the core's number). The control processor walks loops, works out addresses and puts
instructions into the queues of five asynchronous engines: `load` and `store` (DMA), `tensor` (matrix products), `vector`
(element-wise work and reductions) and `stage` (the DMA of the memories between DRAM and the cores). An engine takes its instructions in
order; engines are ordered among each other only by semaphores: an instruction starts when every `wait name >= value` holds and adds one to
each `signal name` when it is done.

`#name` in an expression is the number of signals on `name` that this core has issued so far, so `wait loaded >= #loaded` means
"all of them up to here" on every path through the loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from codesign.ir.core import Value
from codesign.ir.dtypes import DType
from codesign.ir.index import Index, index
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.precision import Precision
from codesign.ir.scalar import Literal as ScalarLiteral
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Monoid
from codesign.ir.tile import Atomic, Axis, Guard
from codesign.ir.types import TileType

Engine = Literal["load", "store", "tensor", "vector", "stage"]
ENGINES: tuple[Engine, ...] = ("load", "store", "tensor", "vector", "stage")

Scope = Literal["core", "cluster", "chip"]
"""Who shares a semaphore or a scratchpad allocation: one core, the cores of one cluster, or all of them."""


@dataclass(eq=False)
class Scratch:
    """An array in a software-managed memory: `scratch a: f16[2, 64, 64] at 0 in core`.

    Row-major from byte `address` of the memory `level` (of the machine); a leading dimension is usually the slot of a double
    buffer. `value` is how expressions read and write it. `over` more than one: so many instances of the memory hold an even part each, and all
    cores reach it.
    """

    value: Value
    address: int = 0
    level: str = "core"
    over: int = 1

    @property
    def name(self) -> str:
        return self.value.name

    @property
    def type(self) -> TileType:
        assert isinstance(self.value.type, TileType)
        return self.value.type

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def bytes(self) -> int:
        """Storage in bytes."""
        return -(-int(prod(self.shape) * self.dtype.bytes * 8) // 8)

    @property
    def end(self) -> int:
        """First byte after it, or after the part of it that an instance holds."""
        return self.address + -(-self.bytes // self.over)


def scratch(name: str, dtype: DType, shape: tuple[int, ...], address: int = 0, level: str = "core") -> Scratch:
    """A scratchpad array from its name and type."""
    return Scratch(Value(TileType(dtype, shape), name), address, level)


@dataclass(frozen=True)
class Semaphore:
    """A counter that starts at zero; `scope` says who shares it."""

    name: str
    scope: Scope = "core"


@dataclass(frozen=True)
class Wait:
    """The instruction starts when semaphore `name` is at least `value`."""

    name: str
    value: Index


@dataclass(eq=False)
class Instruction:
    """Base of what goes into an engine's queue."""

    waits: tuple[Wait, ...] = field(default=(), kw_only=True)
    signals: tuple[str, ...] = field(default=(), kw_only=True)
    location: Location = field(default=UNKNOWN, kw_only=True)

    @property
    def engine(self) -> Engine:
        raise NotImplementedError

    def reads(self) -> tuple[Read, ...]:
        """Scratchpad reads."""
        return ()

    def writes(self) -> tuple[Read, ...]:
        """Scratchpad places that it writes."""
        return ()


def _data_reads(indices: tuple[Index, ...], guards: tuple[Guard, ...]) -> tuple[Read, ...]:
    sides = [side for g in guards for side in g.sides]
    return tuple(dict.fromkeys(read for i in (*indices, *sides) for datum in i.data() for read in datum.reads()))


@dataclass(frozen=True)
class Share:
    """Cores that make a load together: those with one `key`, `members` of them. It starts when all of them could start it, and its data passes
    each memory as often as its machine needs to reach them all."""

    key: Index
    members: Index


@dataclass(frozen=True)
class Keep:
    """Data that an outer memory keeps as it passes: where `again` is zero it comes from the load's source and is left at `place`, else it
    comes from there."""

    place: Read
    again: Index


@dataclass(eq=False)
class Load(Instruction):
    """`load a[i % 2, m, k] [m: 64, k: 64] = %x[pm*64 + m, kk + k] where pm*64 + m < 100 else 0.0`: DMA into scratchpad.

    `source` is a buffer in DRAM or a scratch of an outer level. Indices that are linear in the axes make strided descriptors;
    others (data dependent, divisions) make gather descriptors. Lanes whose guards fail are filled with `otherwise`. With `shared pm by 4`
    the four cores of one `pm`, which all load the same, do so together. With `kept s[k0 // 64, m, k] again pn` the memory that `s` is in
    keeps the tile where `pn` is zero, and gives it where it is not. With `half k % 2` a byte of the source is two numbers of 4 bits, of which the
    load leaves one (0: the lower bits) at each point.
    """

    target: Read
    axes: tuple[Axis, ...]
    source: Value
    indices: tuple[Index, ...]
    guards: tuple[Guard, ...] = ()
    otherwise: ScalarLiteral | None = None
    share: Share | None = None
    keep: Keep | None = None
    half: Index | None = None

    @property
    def engine(self) -> Engine:
        return "load"

    def reads(self) -> tuple[Read, ...]:
        return _data_reads(self.indices, self.guards)

    def writes(self) -> tuple[Read, ...]:
        return (self.target,)


@dataclass(eq=False)
class Stage(Load):
    """`stage s[k0 // 64, m, k] [m: 64, k: 64] = %x[pm*64 + m, k0 + k]`: an outer memory's own DMA brings a tile into it, ahead of the loads that
    take it from there (`kept s[...] again 1`). Its target is a scratch in an outer memory. What it says is what a load says."""

    @property
    def engine(self) -> Engine:
        return "stage"


@dataclass(eq=False)
class Store(Instruction):
    """`store %y[pm*64 + m, n] [m: 64, n: 64] = o[m, n] where ...`: DMA out of scratchpad; `atomic` combines in memory."""

    target: Value
    indices: tuple[Index, ...]
    axes: tuple[Axis, ...]
    source: Read
    guards: tuple[Guard, ...] = ()
    atomic: Atomic | None = None

    @property
    def engine(self) -> Engine:
        return "store"

    def reads(self) -> tuple[Read, ...]:
        return tuple(dict.fromkeys((self.source, *_data_reads(self.indices, self.guards))))


@dataclass(eq=False)
class Vector(Instruction):
    """`vector e[m, n] [m: 64, n: 64] = exp(x[m, n] - mx[m])`, or with `reduce max [n: 64]` before the expression.

    The expression is evaluated for each point of `axes` (and of `reduced`, combined by `monoid`), converted to the target's dtype.
    Its intermediate values stay in vector registers.
    """

    target: Read
    axes: tuple[Axis, ...]
    body: Scalar
    reduced: tuple[Axis, ...] = ()
    monoid: Monoid | None = None

    @property
    def engine(self) -> Engine:
        return "vector"

    def reads(self) -> tuple[Read, ...]:
        return self.body.reads()

    def writes(self) -> tuple[Read, ...]:
        return (self.target,)


@dataclass(eq=False)
class Matmul(Instruction):
    """`matmul acc[m, n] += a[i % 2, m, k] @ b[i % 2, k, n] [m: 64, n: 64, k: 64]` on the tensor unit.

    The operands may be stored in any order of their axes. With `a[m, k] scaled s[m, k // 32]` each element counts times the scale of its block: a
    power of two, whose exponent has type f8e8m0 (`ir.microscaling`), or a float of type f8e4m3; a second one, of type f1e1m0, is the
    shared exponent of a pair (`a[m, k] scaled s[m, k // 16] scaled p[m, k // 2]`). With `accumulate` false the product overwrites the
    target; with `first` given it overwrites when that expression is zero (the first step of a loop) and adds otherwise.
    """

    target: Read
    a: Read
    b: Read
    axes: tuple[Axis, Axis, Axis]
    accumulate: bool = True
    first: Index | None = None
    precision: Precision = "ieee"
    scales: tuple[tuple[Read, ...], tuple[Read, ...]] = ((), ())

    @property
    def engine(self) -> Engine:
        return "tensor"

    def factors(self) -> tuple[Read, ...]:
        """The operands and their scales."""
        return (self.a, self.b, *self.scales[0], *self.scales[1])

    def reads(self) -> tuple[Read, ...]:
        return (*self.factors(), self.target) if self.accumulate else self.factors()

    def writes(self) -> tuple[Read, ...]:
        return (self.target,)


@dataclass(eq=False)
class Sync(Instruction):
    """`sync tensor wait ... signal ...`: takes a place in an engine's queue and does nothing else."""

    on: Engine

    @property
    def engine(self) -> Engine:
        return self.on


@dataclass(eq=False)
class Set:
    """`set pm = t // 8`: a register of the control processor."""

    name: str
    value: Index


@dataclass(eq=False)
class Loop:
    """`for kk in 0 to 512 step 64 count i { ... }`.

    `count`, when named, numbers the iterations that this core has begun in this loop, over all entries into it.
    """

    variable: str
    lower: Index
    upper: Index
    step: Index
    body: list[Statement]
    count: str = ""


Statement = Instruction | Set | Loop


@dataclass(eq=False)
class Program:
    """`program @name(%x: f16[256, 512]) -> (%y: f16[256, 256]) on 4 cores { declarations; statements }`.

    `params`: buffers in DRAM, inputs then `outputs` results, of constant sizes. `dataflow` selects how the array works where the
    machine has a choice ("" leaves the machine's first). `resting`: by name, the buffers that are not in DRAM but in a memory nearer to the cores,
    and its place. `joined`: it goes on in the launch of the program before it, as soon as all cores are done with that.
    """

    name: str
    params: list[Value]
    outputs: int
    cores: int
    scratches: list[Scratch]
    semaphores: list[Semaphore]
    body: list[Statement]
    dataflow: str = ""
    location: Location = UNKNOWN
    notes: dict[str, str] = field(default_factory=dict)
    resting: dict[str, str] = field(default_factory=dict)
    joined: bool = False

    @property
    def inputs(self) -> list[Value]:
        return self.params[: len(self.params) - self.outputs]

    @property
    def results(self) -> list[Value]:
        return self.params[len(self.params) - self.outputs :]

    def scratch_of(self, value: Value) -> Scratch:
        """The declaration behind a scratchpad read."""
        return next(s for s in self.scratches if s.value is value)

    def walk(self) -> Iterator[Statement]:
        """Every statement, outer before inner."""
        return walk(self.body)

    def instructions(self) -> list[Instruction]:
        """The instructions in program order."""
        return [s for s in self.walk() if isinstance(s, Instruction)]

    def scratch_bytes(self, level: str) -> int:
        """The highest byte used of a memory."""
        return max((s.end for s in self.scratches if s.level == level), default=0)


def walk(body: list[Statement]) -> Iterator[Statement]:
    """Every statement of a block, outer before inner."""
    for statement in body:
        yield statement
        if isinstance(statement, Loop):
            yield from walk(statement.body)


def buffer_shape(value: Value) -> tuple[int, ...]:
    """Constant sizes of a buffer parameter."""
    return tuple(index(size).constant for size in value.shape)
