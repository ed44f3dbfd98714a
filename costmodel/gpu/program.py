"""One program of a kernel's text, over the dims of its group: what it moves, issues and multiplies in which loops.

Read off the features of a template once; tiles and trips of a batch of schedules are put in by `done` and the code generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary

from codesign.costmodel.accesses import access_of
from codesign.costmodel.factors import Factors
from codesign.costmodel.features import Arithmetic, Features, Loop, Move, Product, Slot
from codesign.costmodel.gpu.slots import slots_of
from codesign.costmodel.structures import Text
from codesign.costmodel.summary import Access, KernelSummary, label_of
from codesign.ir.analysis import slot_of
from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import DTYPES
from codesign.ir.index import Index
from codesign.ir.precision import precision_of
from codesign.ir.reach import Stretch
from codesign.ir.scalar import Apply, Read, Scalar
from codesign.ir.tile import Dot, For, Load, Map, Reduce, Store

Dims = tuple[str, ...]
Steps = tuple[tuple[str, Stretch | None], ...]
"""Loops by the dim that each goes along, and which of the steps along it (None: all)."""
Operations = Mapping[str, float]
"""Operations of a lane by who does them: `vector`, `integer`, `special` and `double` slots; `multiply_adds` and `double_multiply_adds`
of sums of products."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """A load or store. `around`: the loops that it is done in each step of; `pipelined`: the last of them has no loop within; `tested`: dims
    along which lanes may lie outside, as far as the text says; `positions`: loads that it waits for, as they say where."""

    op: Load | Store
    access: Access
    kind: str
    around: Steps
    pipelined: bool
    tested: Dims
    positions: tuple[Transfer, ...] = ()

    @cached_property
    def followed(self) -> Dims:
        """The dims that it depends on, by its positions too."""
        further = (dim for load in self.positions for dim in load.followed)
        return tuple(dict.fromkeys((*self.access.dims, *further)))

    @property
    def key(self) -> tuple[str, tuple[Index, ...]]:
        """Equal for transfers of the same data."""
        return self.access.tensor, self.access.index


@dataclass(frozen=True, eq=False)
class Multiply:
    """A matrix product. `rows`, `columns`: dims of the sides of its tile, `depth` of what it sums; `plain`: which factors are loads as
    they are, converted at most; the rest as of transfers. `lead`: sides of the last product of the same loop body, if there are several;
    `followed`: whether another there is of its results, `follows`: whether it is of another's."""

    op: Dot
    rows: str
    columns: str
    depth: str
    factors: Factors
    plain: tuple[Transfer | None, Transfer | None]
    around: Steps
    pipelined: bool
    lead: tuple[str, str] | None = None
    followed: bool = False
    follows: bool = False


@dataclass(frozen=True, eq=False)
class Elements:
    """Element-wise work, or a reduction of it over the last `reduced` of its dims: `operations` on a lane of all dims, and all by the dims
    of the lanes that take them; `periodic`: functions whose argument is first brought into a period."""

    dims: Dims
    reduced: Dims
    operations: float
    parts: tuple[tuple[Dims, Operations], ...]
    periodic: int
    around: Steps


@dataclass(frozen=True)
class Program:
    """What a program, or a part of one, does in the order of its text. `loops`: for each loop, those around it and itself."""

    text: Text
    transfers: Mapping[Op, Transfer]
    multiplies: Mapping[Op, Multiply]
    elements: Mapping[Op, Elements]
    loops: Mapping[Op, Steps]
    sides: Mapping[str, str]
    """The dim of each size symbol."""
    inner: frozenset[str]
    """The dims that are reduced."""
    labels: Mapping[str, str]
    """The name that an operand has in the summary of the group."""
    whole: bool = True
    """Whether it is all that a block does, and not a part."""

    def part(self, ops: Set[Op]) -> Program:
        """That which some of the ops do."""
        return replace(
            self,
            transfers={op: one for op, one in self.transfers.items() if op in ops},
            multiplies={op: one for op, one in self.multiplies.items() if op in ops},
            elements={op: one for op, one in self.elements.items() if op in ops},
            loops={op: one for op, one in self.loops.items() if op in ops},
            whole=False,
        )

    @cached_property
    def steps(self) -> tuple[Steps, ...]:
        """Loops that follow each other alike: those along one dim, which masks may have parted, are one where all is there."""
        found = self.loops.values()
        return tuple(dict.fromkeys(tuple((dim, None) for dim, _ in loops) if self.whole else loops for loops in found))

    @cached_property
    def moves(self) -> tuple[tuple[Transfer, int], ...]:
        """Loads and stores, those that do the same counted together."""
        found: dict[object, tuple[Transfer, int]] = {}
        for transfer in self.transfers.values():
            key = transfer.kind, transfer.access, transfer.around, transfer.tested
            found[key] = transfer, found.get(key, (transfer, 0))[1] + 1
        return tuple(found.values())

    def dims_of(self, value: Value) -> Dims:
        """The dims that the axes of a tile go along."""
        return tuple(self.sides[name] for extent in value.type.extents if (name := extent.variable) is not None)

    @cached_property
    def operations(self) -> tuple[tuple[Dims, Steps, Operations], ...]:
        """Operations by the dims of their lanes and the loops that they are done in."""
        found: dict[tuple[Dims, Steps], dict[str, float]] = {}
        for one in self.elements.values():
            for dims, operations in one.parts:
                into = found.setdefault((dims, one.around), {})
                for name, cost in operations.items():
                    into[name] = into.get(name, 0.0) + cost
        return tuple((dims, around, costs) for (dims, around), costs in found.items())


_KNOWN: WeakKeyDictionary[Text, Program] = WeakKeyDictionary()


def program_of(text: Text, kernel: KernelSummary) -> Program:
    """The program of a text of a kernel, read once."""
    found = _KNOWN.get(text)
    if found is None:
        found = _KNOWN[text] = _Reader(text, kernel).program()
    return found


class _Reader:
    def __init__(self, text: Text, kernel: KernelSummary) -> None:
        self.text, self.extents, self.inner = text, kernel.extents, frozenset(kernel.inner)
        self.features: Features = text.features
        assert kernel.group is not None
        params = text.template.kernel.params
        self.labels = {param.name: label_of(value) for param, value in zip(params, kernel.group.uses(), strict=False)}
        self.along = text.template.along
        self.sides = {symbol: dim for dim, symbol in text.template.tiles.items()}
        body = text.template.kernel.body
        inner = [op for op in body.walk() if isinstance(op, For)]
        self.innermost = {op.variable for op in inner if not any(isinstance(below, For) for below in op.body.walk())}
        self.carried = {arg for op in inner for arg in op.body.args}
        self.transfers: dict[Op, Transfer] = {}

    def program(self) -> Program:
        multiplies: dict[Op, Multiply] = {}
        elements: dict[Op, Elements] = {}
        loops: dict[Op, Steps] = {}
        for op in self.text.template.kernel.body.walk():
            found = self.features.of.get(op)
            if isinstance(found, Move):
                assert isinstance(op, (Load, Store))
                self.transfers[op] = self._transfer(op, found)
            elif isinstance(found, Product):
                assert isinstance(op, Dot)
                multiplies[op] = self._multiply(op, found)
            elif isinstance(found, Arithmetic):
                assert isinstance(op, (Map, Reduce))
                elements[op] = self._elements(op, found)
            elif isinstance(found, Loop):
                assert isinstance(op, For)
                loops[op] = self._steps((*found.around, op.variable))
        multiplies = self._neighbours(multiplies)
        return Program(self.text, self.transfers, multiplies, elements, loops, self.sides, self.inner, self.labels)

    def _neighbours(self, multiplies: Mapping[Op, Multiply]) -> dict[Op, Multiply]:
        """The products with what they are told of others in the body of the same loop."""
        body = self.text.template.kernel.body
        found = dict(multiplies)
        for block in (body, *(op.body for op in body.walk() if isinstance(op, For))):
            dots = [op for op in block.ops if op in multiplies]
            if len(dots) < 2:
                continue
            lead = multiplies[dots[-1]].rows, multiplies[dots[-1]].columns
            reached = {dot: _reached(dot, block) for dot in dots}
            for dot in dots:
                others = [other for other in dots if other is not dot]
                followed = any(not reached[dot].isdisjoint(other.uses()) for other in others)
                follows = any(not reached[other].isdisjoint(dot.uses()) for other in others)
                found[dot] = replace(multiplies[dot], lead=lead, followed=followed, follows=follows)
        return found

    def _steps(self, variables: Iterable[str]) -> Steps:
        return tuple((self.along[name], self.text.template.stretches.get(name)) for name in variables)

    def _pipelined(self, around: tuple[str, ...]) -> bool:
        return bool(around) and around[-1] in self.innermost

    def _transfer(self, op: Load | Store, move: Move) -> Transfer:
        access = access_of(op, move, self.text.template, self.extents)
        positions = tuple(
            load
            for expression in op.indices
            for scalar in expression.data()
            for read in scalar.reads()
            if (load := self._loaded(read.source)) is not None
        )
        guarded = {name for guard in op.guards for name in guard.value.variables()}
        tested = tuple(dim for dim in access.dims if dim not in self.inner or dim in guarded)
        around, pipelined = self._steps(move.around), self._pipelined(move.around)
        return Transfer(op, access, move.kind, around, pipelined, tested, positions)

    def _loaded(self, value: Value) -> Transfer | None:
        """The load that a tile is, converted at most."""
        owner = value.owner
        while isinstance(owner, Map):
            body = _strip(owner.body)
            owner = body.source.owner if isinstance(body, Read) else None
        return self.transfers.get(owner) if isinstance(owner, Load) else None

    def _multiply(self, op: Dot, found: Product) -> Multiply:
        rows, columns, depth = (self.sides[side.variable or ""] for side in (found.m, found.n, found.k))
        return Multiply(
            op,
            rows,
            columns,
            depth,
            Factors(DTYPES[found.operand], found.precision),
            (self._loaded(op.a), self._loaded(op.b)),
            self._steps(found.around),
            self._pipelined(found.around),
        )

    def _elements(self, op: Map | Reduce, found: Arithmetic) -> Elements:
        slots = [(tuple(sorted(used)), slot, cost) for used, slot, cost in found.slots]
        every = tuple(sorted(axis.name for axis in (*found.axes, *found.reduced)))
        whole = sum(cost for used, _, cost in slots if used == every)
        parts: dict[Dims, dict[str, float]] = {}
        if (multiplied := self._sum_of_products(op)) is not None:
            slots.remove((every, multiplied, 1.0))
            last = max(k for k, (used, (unit, _), _) in enumerate(slots) if used == every and unit == "fma")
            _, (_, dtype), _ = slots.pop(last)
            name = "double_multiply_adds" if dtype == "f64" else "multiply_adds"
            parts[every] = {name: 1.0}
        for used, slot, cost in slots:
            into = parts.setdefault(used, {})
            name, cost = slots_of(*slot, cost)
            into[name] = into.get(name, 0.0) + cost
        periodic = sum(isinstance(node, Apply) and node.function in ("sin", "cos") for node in op.body.walk())
        dims = tuple(axis.name for axis in (*found.axes, *found.reduced))
        reduced = tuple(axis.name for axis in found.reduced)
        return Elements(dims, reduced, whole, tuple(parts.items()), periodic, self._steps(found.around))

    def _sum_of_products(self, op: Map | Reduce) -> Slot | None:
        """The slot of the product that an op sums up, in floating point: one instruction multiplies and adds."""
        body = op.body
        if isinstance(op, Reduce):
            summed = body if op.monoid == "sum" else None
        else:
            rest = [arg for arg in body.children() if not (isinstance(arg, Read) and arg.source in self.carried)]
            adds = isinstance(body, Apply) and body.function == "add" and len(rest) == 1
            summed = rest[0] if adds else None
        if not isinstance(summed, Apply) or precision_of(summed.function) is None or not summed.dtype.is_float:
            return None
        names = {axis.name for axis in (*op.axes, *(op.reduced if isinstance(op, Reduce) else ()))}
        unit, dtype, _ = slot_of(summed)
        return (unit, dtype.name) if summed.variables() >= names else None


def _reached(dot: Op, block: Block) -> set[Value]:
    """The values of a block that depend on a product's."""
    found = {*dot.results}
    for op in block.ops:
        if not found.isdisjoint(op.uses()):
            found.update(op.results)
    return found


def _strip(node: Scalar) -> Scalar:
    """The expression below conversions."""
    while isinstance(node, Apply) and node.function == "cast":
        node = node.args[0]
    return node
