"""The SSA core that all levels share: values, ops, blocks, functions, modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from codesign.ir.errors import CodesignError
from codesign.ir.index import Bounds, Index
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.types import TensorType, TileType, Type


class Value:
    """An SSA value: defined once, by an op or as an argument of a block. Compared by identity.

    `name` is how it prints (`%name`); the printer makes names unique within a function.
    """

    __slots__ = ("name", "owner", "type")

    def __init__(self, type: Type, name: str = "", owner: Op | None = None) -> None:
        self.type = type
        self.name = name
        self.owner = owner

    @property
    def shape(self) -> tuple[Index, ...]:
        """Sizes of a tensor or buffer value."""
        if isinstance(self.type, TileType):
            raise TypeError("a tile has integer sizes: use .type.shape")
        return self.type.shape

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Op:
    """Base of operations.

    Subclasses hold their operands in typed fields and list them by `operands()`; `replace(mapping)` swaps operands in
    place. Regions (bodies of fusions and control flow) are blocks in `blocks()`; ops in a region may use values from
    outside.
    """

    opcode: ClassVar[str] = ""

    def __init__(self, results: Iterable[Value], location: Location = UNKNOWN) -> None:
        self.results = tuple(results)
        self.location = location
        for value in self.results:
            value.owner = self

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    def operands(self) -> tuple[Value, ...]:
        """Values used directly (not those used inside regions), each once, in order."""
        return ()

    def blocks(self) -> tuple[Block, ...]:
        """Bodies of nested regions."""
        return ()

    def runs(self, sizes: Mapping[str, int]) -> tuple[float, ...]:
        """How often each region runs when the op does; of branches, each as often as the others."""
        return (1.0,) * len(self.blocks())

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        """Use other values in place of some operands, in regions too."""
        for block in self.blocks():
            block.replace(mapping)

    def uses(self) -> tuple[Value, ...]:
        """Values from outside used by the op, inside its regions too, each once, in order."""
        used = dict.fromkeys(self.operands())
        for block in self.blocks():
            used.update(dict.fromkeys(block.free_values()))
        return tuple(used)

    def __repr__(self) -> str:
        return f"<{self.opcode} {', '.join('%' + value.name for value in self.results)}>"


class Block:
    """Arguments, ops in order, and the values that it ends with (`return` of a function, `yield` of a region)."""

    __slots__ = ("args", "ops", "yields")

    def __init__(self, args: Iterable[Value] = (), ops: Iterable[Op] = (), yields: Iterable[Value] = ()) -> None:
        self.args = list(args)
        self.ops = list(ops)
        self.yields = tuple(yields)

    def add(self, op: Op) -> Op:
        """Append an op."""
        self.ops.append(op)
        return op

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        for op in self.ops:
            op.replace(mapping)
        self.yields = tuple(mapping.get(value, value) for value in self.yields)

    def defined(self) -> Iterator[Value]:
        """Arguments and results of the ops directly in it."""
        yield from self.args
        for op in self.ops:
            yield from op.results

    def free_values(self) -> tuple[Value, ...]:
        """Values used but not defined here, each once, in order."""
        defined: set[Value] = set(self.args)
        free: dict[Value, None] = {}
        for op in self.ops:
            for value in op.uses():
                if value not in defined:
                    free[value] = None
            defined.update(op.results)
        for value in self.yields:
            if value not in defined:
                free[value] = None
        return tuple(free)

    def walk(self) -> Iterator[Op]:
        """Every op, outer before inner."""
        for op in self.ops:
            yield op
            for block in op.blocks():
                yield from block.walk()


@dataclass(eq=False)
class Function:
    """A tensor-level function: the whole model or a part; `body.yields` is what it returns.

    `updates`: results, by position, that are the new value of an argument (its position) or of a constant (its name), whose old one
    nobody wants after the call: they may be made in its memory.
    """

    name: str
    body: Block
    location: Location = UNKNOWN
    updates: dict[int, int | str] = field(default_factory=dict)

    @property
    def args(self) -> list[Value]:
        return self.body.args

    @property
    def results(self) -> tuple[Value, ...]:
        return self.body.yields


@dataclass(frozen=True)
class Symbol:
    """A dynamic size with its range, `low <= name <= high` (high None: no limit). `example`: the size it was captured at."""

    name: str
    low: int = 1
    high: int | None = None
    example: int | None = None


@dataclass(eq=False)
class Module:
    """What a `.tile` file holds.

    `functions`: tensor level, by name. `kernels`: tile level (`codesign.ir.tile.Kernel`). `programs`: accelerator
    level. `constants`: values of `constant` ops by their name, as NumPy arrays or anything with `__array__`; a name
    without an entry has no data (a meta model). Data is not part of the text.
    """

    name: str = "module"
    symbols: dict[str, Symbol] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)
    programs: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Function:
        """The function named `main`, or the first one; CodesignError where there is none."""
        if not self.functions:
            raise CodesignError(f"{self.name} has no function", hint="a `func` at the tensor level is needed here")
        return self.functions["main"] if "main" in self.functions else next(iter(self.functions.values()))

    def bounds(self) -> Bounds:
        """Ranges of the size symbols, for index simplification."""
        return Bounds({}, {symbol.name: (symbol.low, symbol.high) for symbol in self.symbols.values()})


def tensor_type(value: Value) -> TensorType:
    """The value's type, which must be a tensor's."""
    if not isinstance(value.type, TensorType):
        raise TypeError(f"%{value.name} is not a tensor but {value.type}")
    return value.type


def uses_of(block: Block) -> dict[Value, list[Op]]:
    """For each value, the ops of this block that use it (directly or in their regions), in order."""
    users: dict[Value, list[Op]] = {}
    for op in block.ops:
        for value in op.uses():
            users.setdefault(value, []).append(op)
    return users
