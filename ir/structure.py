"""Structure of IR as plain nested tuples: what equality of modules and structural hashes compare.

Values are numbered in order of appearance, so their names don't matter; scalar expressions are numbered node by node,
so that sharing neither matters nor costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from codesign.ir import tensor, tile
from codesign.ir.core import Block, Function, Module, Op, Value
from codesign.ir.index import Datum, Extremum, FloorDiv, Index, Mod, Var
from codesign.ir.program import Program
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.ir.schedule import AtLevel
from codesign.ir.types import TensorType, TileType, Type

Structure = tuple[Any, ...]


class Describer:
    """Turns IR into structures.

    `exact`: names of dimensions, labels, constants and source locations are part of the structure; else dimensions
    are numbered in order of appearance and the rest is left out.
    """

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self._values: dict[Value, Value] = {}
        self._names: dict[str, Index] = {}
        self._nodes: dict[Structure, int] = {}

    # -- names --------------------------------------------------------------------------------------------------------
    def value(self, value: Value) -> str:
        """The canonical name of a value."""
        return self._stand_in(value).name

    def _stand_in(self, value: Value) -> Value:
        if value not in self._values:
            self._values[value] = Value(value.type, f"v{len(self._values)}")
        return self._values[value]

    def name(self, name: str) -> str:
        """The canonical name of a dimension, axis, grid or loop index, which this call may introduce."""
        if self.exact:
            return name
        if name not in self._names:
            self._names[name] = Index.atom(Var(f"${len(self._names)}"))
        return str(self._names[name])

    # -- expressions --------------------------------------------------------------------------------------------------
    def index(self, expression: Index) -> Any:
        """An index expression over canonical names."""
        if not self.exact or expression.data():
            expression = expression.substitute(self._names, self._renamed)
        known = len(self._nodes)
        found = self._index(expression)
        return (tuple(list(self._nodes)[known:]), found) if expression.data() else found

    def _index(self, expression: Index) -> Any:
        if not expression.data():
            return str(expression)
        return tuple((c, tuple(self._atom(atom) for atom in monomial)) for monomial, c in expression.terms)

    def _place(self, expression: Index, plain: bool) -> Any:
        return str(expression.substitute(self._names)) if plain else self._index(expression)

    def _atom(self, atom: Any) -> Any:
        if isinstance(atom, (FloorDiv, Mod)):
            return type(atom).__name__, self._index(atom.numerator), self._index(atom.denominator)
        if isinstance(atom, Extremum):
            return atom.kind, tuple(self._index(arg) for arg in atom.args)
        if isinstance(atom, Datum):
            return "data", self._scalar(atom.scalar)
        return str(atom)

    def _renamed(self, scalar: Scalar) -> Scalar:
        return scalar.replace_sources({read.source: self._stand_in(read.source) for read in scalar.reads()})

    def scalar(self, expression: Scalar) -> Structure:
        """A scalar expression: the nodes that it adds to those seen before, and its own number."""
        known = len(self._nodes)
        if not self.exact and not any(i.data() for node in expression.walk() for i in node.index_expressions()):
            for read in expression.reads():
                self.value(read.source)
            root = self._scalar(expression, plain=True)
            return tuple(list(self._nodes)[known:]), root
        renamed = self._renamed(expression)
        if not self.exact:
            renamed = renamed.substitute(self._names)
        root = self._scalar(renamed)
        return tuple(list(self._nodes)[known:]), root

    def _scalar(self, root: Scalar, *, plain: bool = False) -> int:
        """The number of a scalar over canonical names, or of a `plain` one over its own, without numbers from data in its indices."""
        numbers: dict[int, int] = {}
        for node in root.walk():
            entry: Structure
            if isinstance(node, Literal):
                entry = ("literal", node.dtype.name, repr(node.value))
            elif isinstance(node, IndexValue):
                entry = ("index", node.dtype.name, self._place(node.index, plain))
            elif isinstance(node, Read):
                other = None if node.otherwise is None else numbers[id(node.otherwise)]
                name = self.value(node.source) if plain else node.source.name
                entry = ("read", name, tuple(self._place(i, plain) for i in node.indices), other)
            elif isinstance(node, Apply):
                entry = (node.function, node.dtype.name, *(numbers[id(arg)] for arg in node.args))
            else:
                raise TypeError(f"unknown scalar {node!r}")
            numbers[id(node)] = self._nodes.setdefault(entry, len(self._nodes))
        return numbers[id(root)]

    # -- types --------------------------------------------------------------------------------------------------------
    def type(self, kind: Type) -> Structure:
        """A type over canonical names."""
        if isinstance(kind, TileType):
            return "tile", kind.dtype.name, tuple(self.index(extent) for extent in kind.extents)
        shape = tuple(self.index(size) for size in kind.shape)
        if isinstance(kind, TensorType):
            return "tensor", kind.dtype.name, shape
        return "buffer", kind.dtype.name, shape, tuple(self.index(stride) for stride in kind.strides)

    def define(self, values: Iterable[Value]) -> Structure:
        """Values that are defined here, with their types."""
        return tuple((self.value(value), self.type(value.type)) for value in values)

    def _use(self, values: Iterable[Value]) -> Structure:
        used = []
        for value in values:
            known = value in self._values  # a value from outside what is described counts with its type
            used.append(self.value(value) if known else (self.value(value), self.type(value.type)))
        return tuple(used)

    def _dims(self, dims: Iterable[tensor.Dim | tile.GridDim]) -> Structure:
        return tuple((self.name(dim.name), self.index(dim.extent)) for dim in dims)

    def _axes(self, axes: Iterable[tile.Axis]) -> Structure:
        return tuple((self.name(axis.name), self.index(axis.extent)) for axis in axes)

    # -- ops ----------------------------------------------------------------------------------------------------------
    def op(self, op: Op) -> Structure:
        """An op with its regions."""
        operands = self._use(op.operands())
        inside = self._fields(op)
        place = str(op.location) if self.exact else ""
        return op.opcode, operands, inside, self.define(op.results), place

    def _fields(self, op: Op) -> Structure:
        if isinstance(op, tensor.Compute):
            dims, reductions = self._dims(op.dims), self._dims(op.reductions)
            accumulate = op.accumulate.name if op.reductions or op.accumulate is not op.body.dtype else ""
            return dims, reductions, op.monoid, accumulate, self.scalar(op.body)
        if isinstance(op, tensor.Constant):
            return (op.constant,) if self.exact else ()
        if isinstance(op, tensor.Empty):
            return ()
        if isinstance(op, tensor.Fusion):
            block = self.block(op.body)
            writes = tuple(
                (k, self.value(w.base), tuple(map(self.index, w.at)), w.within, w.combine) for k, w in op.writes.items()
            )
            shapes = tuple((k, tuple(map(self.index, shape))) for k, shape in op.shapes.items())
            return block, op.label if self.exact else "", writes, shapes
        if isinstance(op, tensor.Scatter):
            dims = self._dims(op.dims)
            target = tuple(map(self.index, op.target))
            return op.combine, op.within, self.value(op.init), dims, target, self.scalar(op.body)
        if isinstance(op, tensor.Scan):
            dims = self._dims(op.dims)
            return dims, op.monoid, self.name(op.over), op.accumulate.name, self.scalar(op.body)
        if isinstance(op, tensor.Sort):
            return op.dim, op.descending, None if op.keep is None else self.index(op.keep)
        if isinstance(op, tensor.Random):
            return op.distribution, op.seed, op.offset
        if isinstance(op, tensor.Call):
            return op.target, tuple(sorted((k, repr(v)) for k, v in op.attributes.items())), self._use(op.inputs)
        if isinstance(op, tensor.Collective):
            return op.kind, op.devices, op.combine, self._use(op.inputs)
        if isinstance(op, tensor.Launch):
            return op.kernel, self._use(op.inputs)
        if isinstance(op, (tensor.If, tensor.While)):
            trips = str(op.trips) if isinstance(op, tensor.While) and self.exact else ""
            return (self._use(op.inputs), trips, *(self.block(block) for block in op.blocks()))
        return self._tile_fields(op)

    def _tile_fields(self, op: Op) -> Structure:
        if isinstance(op, (tile.Load, tile.Store)):
            axes = self._axes(op.axes)
            guards = tuple(
                tuple(None if side is None else self.index(side) for side in (g.value, g.low, g.high))
                for g in op.guards
            )
            rest: Structure = (self.value(op.buffer), tuple(map(self.index, op.indices)), guards)
            if isinstance(op, tile.Load):
                return axes, rest, op.otherwise.dtype.name, repr(op.otherwise.value)
            return axes, rest, self.value(op.value), op.atomic
        if isinstance(op, tile.Map):
            return self._axes(op.axes), self.scalar(op.body)
        if isinstance(op, tile.Reduce):
            return self._axes(op.axes), self._axes(op.reduced), op.monoid, self.scalar(op.body)
        if isinstance(op, tile.Dot):
            return self._use((op.a, op.b, op.accumulator)), op.precision
        if isinstance(op, tile.For):
            limits = tuple(self.index(i) for i in (op.lower, op.upper, op.step))
            return self.name(op.variable), limits, self._use(op.initial), self.index(op.depth), self.block(op.body)
        if isinstance(op, tile.When):
            return self._use((op.condition, *op.otherwise)), self.block(op.body)
        if isinstance(op, tile.Band):
            return self.name(op.variable), self.index(op.first), self._dims(op.grid), self.block(op.body)
        raise TypeError(f"no structure known for {op!r}")

    def block(self, block: Block) -> Structure:
        """A block: arguments, ops, yields."""
        args = self.define(block.args)
        return args, tuple(self.op(op) for op in block.ops), self._use(block.yields)

    # -- whole things -------------------------------------------------------------------------------------------------
    def kernel(self, kernel: tile.Kernel) -> Structure:
        """A kernel; its name, notes, and the schedule's dims count only when exact."""
        params = self.define(kernel.params)
        grid = self._dims(kernel.grid)
        body = self.block(kernel.body)
        overwrites = tuple(sorted(kernel.overwrites.items()))
        common: Structure = (params, kernel.outputs, overwrites, grid, kernel.symbols, body)
        if self.exact:
            notes = tuple(sorted(kernel.notes.items()))
            return (kernel.name, *common, str(kernel.schedule), notes, str(kernel.location))
        extras = tuple(sorted((k, repr(v)) for k, v in kernel.schedule.extras.items()))
        positions = {dim.name: i for i, dim in enumerate(kernel.grid)}
        levels = tuple(_level(place, at, positions) for place, at in kernel.schedule.levels.items())
        return (*common, kernel.schedule.pipeline, extras, levels)

    def function(self, function: Function) -> Structure:
        """A tensor-level function."""
        updates = tuple(sorted(function.updates.items()))
        return function.name, updates, self.block(function.body), str(function.location) if self.exact else ""


def _level(place: str, at: AtLevel, positions: Mapping[str, int]) -> Structure:
    """What a schedule says of a level, by the positions of the grid's dims."""

    def named(counts: Mapping[str, int]) -> Structure:
        at_positions = {positions.get(tile.grid_variable(dim), -1): count for dim, count in counts.items()}
        return tuple(sorted((position, count) for position, count in at_positions.items() if position >= 0))

    order = tuple(positions.get(tile.grid_variable(dim), -1) for dim in at.order)
    return place, named(at.split), named(at.tile), order, tuple(sorted(at.stage.items()))


def equal(a: Module, b: Module) -> bool:
    """Whether two modules say the same: all but the names of values and the data of constants is compared."""
    if a is b:
        return True
    if (a.name, a.symbols) != (b.name, b.symbols):
        return False
    for left, right in ((a.functions, b.functions), (a.kernels, b.kernels), (a.programs, b.programs)):
        if list(left) != list(right):
            return False
    functions = all(
        Describer(True).function(f) == Describer(True).function(b.functions[name]) for name, f in a.functions.items()
    )
    kernels = all(Describer(True).kernel(k) == Describer(True).kernel(b.kernels[name]) for name, k in a.kernels.items())
    return functions and kernels and all(_same_program(p, b.programs[name]) for name, p in a.programs.items())


def _same_program(a: Program, b: Program) -> bool:
    """Equality of programs, whose text says all of them but what they came from."""
    from codesign.ir.text.program import print_program

    def text(program: Program) -> str:
        return "\n".join(line.partition(" ; ")[0] for line in print_program(program).splitlines())

    return a is b or text(a) == text(b)


def structural_hash(thing: Op | tile.Kernel | Block | Scalar) -> str:
    """A content hash, 16 hexadecimal digits, that is equal for things of the same structure.

    Names of values, dimensions and constants and source locations don't matter; types, sizes and the order of values
    do.
    """
    describer = Describer(False)
    if isinstance(thing, tile.Kernel):
        structure = describer.kernel(thing)
    elif isinstance(thing, Block):
        structure = describer.block(thing)
    elif isinstance(thing, Scalar):
        structure = describer.scalar(thing)
    else:
        structure = describer.op(thing)
    return hashlib.sha256(repr(structure).encode()).hexdigest()[:16]
