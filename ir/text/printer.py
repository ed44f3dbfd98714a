"""Prints IR as `.tile` text that parses back to the same IR, in time linear in its size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from codesign.ir import tensor, tile
from codesign.ir.core import Block, Function, Module, Op, Value
from codesign.ir.dtypes import BOOL, F32, I64
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Datum, Extremum, FloorDiv, Index, Mod, Var
from codesign.ir.location import Location
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.ir.text.places import place_text
from codesign.ir.text.program import print_program
from codesign.ir.types import TensorType, TileType, Type

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9.$]*")
_RESERVED = frozenset(
    """at atomic band bool buffer call collective compute cond constant data descending dim do dot else example false for
    from func fused fusion grid if in index inf keep kernel launch let load loc map module nan none notes null of offset over
    pipeline precision program random reduce return scan scatter schedule seed sort step store strides symbol symbols
    to true when where while within yield i8 i16 i32 i64 u8 u16 u32 u64
    f8e4m3 f8e5m2 f8e4m3fnuz f8e5m2fnuz f6e2m3 f6e3m2 f4e2m1 f8e0m7 f5e0m4
    f8e8m0 f4x2 f1e1m0 f16 bf16 f32 f64""".split()  # noqa: SIM905
)
_PRECEDENCE = {
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 1),
    "|": 2,
    "^": 3,
    "&": 4,
    "<<": 5,
    ">>": 5,
    "+": 6,
    "-": 6,
    "*": 7,
    "/": 7,
    "//": 7,
    "%": 7,
    "**": 9,
}
_PRIMARY = 10
_DEEP = 24
"""Sub-expressions nested deeper than this get a name of their own by `let`."""


def print_module(module: Module) -> str:
    """The whole module."""
    parts = [f"module {_global(module.name)}"]
    for symbol in module.symbols.values():
        example = "" if symbol.example is None else f" example {symbol.example}"
        high = "inf" if symbol.high is None else symbol.high
        parts.append(f"symbol {_name(symbol.name)}: {symbol.low} to {high}{example}")
    text = "\n".join(parts) + "\n"
    for function in module.functions.values():
        text += "\n" + print_function(function)
    for kernel in module.kernels.values():
        text += "\n" + print_kernel(kernel)
    for program in module.programs.values():
        text += "\n" + print_program(program)
    return text


def print_function(function: Function) -> str:
    """A tensor-level function."""
    printer = _Printer()
    args = ", ".join(f"{printer.define(value)}: {printer.type(value.type)}" for value in function.args)
    updates = ", ".join(
        f"{k}: {json.dumps(name) if isinstance(name, str) else printer.use(function.args[name])}"
        for k, name in function.updates.items()
    )
    head = f"func {_global(function.name)}({args}){f' updates ({updates})' if updates else ''} {{"
    lines = [head, *printer.ops(function.body.ops, 1)]
    lines.append(" ".join(["  return", ", ".join(map(printer.use, function.results))]).rstrip())
    return "\n".join([*lines, "}" + _location(function.location)]) + "\n"


def print_kernel(kernel: tile.Kernel) -> str:
    """A tile-level kernel with the schedule that it was lowered with."""
    printer = _Printer()
    inputs = ", ".join(f"{printer.define(value)}: {printer.type(value.type)}" for value in kernel.inputs)
    outputs = ", ".join(f"{printer.define(value)}: {printer.type(value.type)}" for value in kernel.results)
    grid = ", ".join(f"{_name(dim.name)}: {printer.index(dim.extent)}" for dim in kernel.grid)
    over = ", ".join(f"{output}: {source}" for output, source in kernel.overwrites.items())
    arrow = f"-> ({outputs}){f' overwrites ({over})' if over else ''}"
    head = [f"kernel {_global(kernel.name)}({inputs}) {arrow}", f"    grid({grid})"]
    if kernel.symbols:
        head.append(f"    symbols({', '.join(map(_name, kernel.symbols))})")
    head.append(f"    schedule {json.dumps(kernel.schedule.to_json())}")
    if kernel.notes:
        head.append(f"    notes {json.dumps(kernel.notes)}")
    lines = ["\n".join(head) + " {", *printer.ops(kernel.body.ops, 1)]
    return "\n".join([*lines, "}" + _location(kernel.location)]) + "\n"


def print_op(op: Op) -> str:
    """One op with its regions, as it would stand in a block."""
    return "\n".join(_Printer().ops([op], 0))


def print_scalar(scalar: Scalar) -> str:
    """A scalar expression, with `let`s before it where parts are shared."""
    return "; ".join(_Printer().scalar_lines(scalar))


class _Printer:
    """Prints the ops of one function or kernel; gives its values names that differ."""

    def __init__(self) -> None:
        self._names: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._stand_ins: dict[Value, Value] = {}

    # -- names and types ----------------------------------------------------------------------------------------------
    def define(self, value: Value) -> str:
        """A fresh name for a value."""
        base = re.sub(r"[^A-Za-z0-9_.$]", "_", value.name) or "v"
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        self._names[value] = name
        return f"%{name}"

    def use(self, value: Value) -> str:
        """The name of a value (of one from outside, a name that is then its own)."""
        return f"%{self._names[value]}" if value in self._names else self.define(value)

    def type(self, kind: Type) -> str:
        """A type."""
        if isinstance(kind, TileType):
            return str(kind)
        shape = f"{kind.dtype}{self.indices(kind.shape)}"
        if isinstance(kind, TensorType):
            return shape
        return f"buffer<{shape}>" if kind.contiguous else f"buffer<{shape}, strides {self.indices(kind.strides)}>"

    # -- expressions --------------------------------------------------------------------------------------------------
    def indices(self, expressions: Iterable[Index], lets: dict[int, str] | None = None) -> str:
        """A bracketed list of index expressions."""
        return f"[{', '.join(self.index(i, lets) for i in expressions)}]"

    def index(self, expression: Index, lets: dict[int, str] | None = None) -> str:
        """An index expression."""
        if lets is None and len(expression.data()) > 1:
            whole = self._by_printed_names(IndexValue(expression))
            assert isinstance(whole, IndexValue)
            expression = whole.index
        if not expression.terms:
            return "0"
        text = ""
        for monomial, c in expression.terms:
            factors = [self._atom(atom, lets or {}) for atom in monomial]
            if abs(c) != 1 or not factors:
                factors.append(str(abs(c)))
            body = "*".join(factors)
            if text:
                text += f" + {body}" if c > 0 else f" - {body}"
            else:
                text = body if c > 0 else f"-{body}"
        return text

    def _atom(self, atom: Any, lets: dict[int, str]) -> str:
        if isinstance(atom, Var):
            return _name(atom.name)
        if isinstance(atom, (FloorDiv, Mod)):
            sign = "//" if isinstance(atom, FloorDiv) else "%"
            return f"({self._operand(atom.numerator, lets)} {sign} {self._operand(atom.denominator, lets)})"
        if isinstance(atom, Extremum):
            return f"{atom.kind}({', '.join(self.index(arg, lets) for arg in atom.args)})"
        if isinstance(atom, Datum):
            if isinstance(atom.scalar, Read) and atom.scalar.otherwise is None:
                return self._read(atom.scalar, lets)
            return f"data({lets.get(id(atom.scalar)) or self._scalar(atom.scalar, lets)[0]})"
        raise TypeError(f"unknown atom {atom!r}")

    def _operand(self, expression: Index, lets: dict[int, str]) -> str:
        text = self.index(expression, lets)
        terms = expression.terms
        simple = not terms or (
            len(terms) == 1 and terms[0][1] > 0 and (not terms[0][0] or terms[0] == (terms[0][0][:1], 1))
        )
        return text if simple else f"({text})"

    def _read(self, read: Read, lets: dict[int, str]) -> str:
        return self.use(read.source) + self.indices(read.indices, lets)

    def _by_printed_names(self, scalar: Scalar) -> Scalar:
        """The expression over values of the names that are printed: these decide in which order sums of data stand when it is parsed."""

        def change(node: Scalar) -> Scalar | None:
            if not isinstance(node, Read):
                return None
            name = self.use(node.source)[1:]
            if node.source not in self._stand_ins:
                self._stand_ins[node.source] = stand_in = Value(node.source.type, name)
                self._names[stand_in] = name
            return Read(self._stand_ins[node.source], node.indices, node.otherwise)

        return scalar.rewrite(change)

    def scalar_lines(self, scalar: Scalar) -> list[str]:
        """`let` definitions of what is shared or deep, then the expression."""
        if any(len(expression.data()) > 1 for node in scalar.walk() for expression in node.index_expressions()):
            scalar = self._by_printed_names(scalar)
        nodes = list(scalar.walk())
        uses: dict[int, int] = {}
        for node in nodes:
            for child in node.children():
                uses[id(child)] = uses.get(id(child), 0) + 1
        variables = scalar.variables()
        lets: dict[int, str] = {}
        depth: dict[int, int] = {}
        lines: list[str] = []
        for node in nodes:
            depth[id(node)] = 1 + max((depth[id(child)] for child in node.children()), default=0)
            shared = uses.get(id(node), 0) > 1 and isinstance(node, Apply)
            if node is not scalar and (shared or depth[id(node)] > _DEEP):
                text = self._scalar(node, lets)[0]
                number = len(lets)
                while (name := f"t{number}") in variables or name in lets.values():
                    number += 1
                lets[id(node)] = name
                depth[id(node)] = 0
                lines.append(f"let {name} = {text}")
        lines.append(self._scalar(scalar, lets)[0])
        return lines

    def _scalar(self, node: Scalar, lets: dict[int, str]) -> tuple[str, int]:
        """The text of a node and how tightly it binds."""

        def part(child: Scalar, least: int) -> str:
            if id(child) in lets:
                return lets[id(child)]
            text, level = self._scalar(child, lets)
            return text if level >= least else f"({text})"

        if isinstance(node, Literal):
            text = _literal(node)
            return text, (8 if text.startswith("-") else _PRIMARY)
        if isinstance(node, IndexValue):
            name = node.index.variable
            if name is not None and node.dtype is I64:
                return _name(name), _PRIMARY
            kind = "" if node.dtype is I64 else f"<{node.dtype}>"
            return f"index{kind}({self.index(node.index, lets)})", _PRIMARY
        if isinstance(node, Read):
            text = self._read(node, lets)
            return (text if node.otherwise is None else f"{text} else {part(node.otherwise, _PRIMARY)}"), _PRIMARY
        if isinstance(node, Apply):
            if node.function == "cast":
                return f"{node.dtype}({part(node.args[0], 0)})", _PRIMARY
            if node.function == "bitcast":
                return f"bitcast_{node.dtype}({part(node.args[0], 0)})", _PRIMARY
            symbol = FUNCTIONS[node.function].symbol
            if symbol and len(node.args) == 2:
                level = _PRECEDENCE[symbol]
                left, right = (_PRIMARY, _PRIMARY) if symbol == "**" else (level, level + 1)
                if level == 1:
                    left = 2  # comparisons of comparisons read better in parentheses
                return f"{part(node.args[0], left)} {symbol} {part(node.args[1], right)}", level
            return f"{node.function}({', '.join(part(arg, 0) for arg in node.args)})", _PRIMARY
        raise TypeError(f"unknown scalar {node!r}")

    def body(self, scalar: Scalar, level: int) -> str:
        """A body in braces: on one line when it is one short expression."""
        lines = self.scalar_lines(scalar)
        if len(lines) == 1 and len(lines[0]) <= 100:
            return f"{{ {lines[0]} }}"
        pad = "  " * (level + 1)
        return "{\n" + ";\n".join(pad + line for line in lines) + "\n" + "  " * level + "}"

    # -- ops ----------------------------------------------------------------------------------------------------------
    def ops(self, ops: Iterable[Op], level: int) -> Iterator[str]:
        """Lines of ops."""
        for op in ops:
            text = self._op(op, level)
            results = ", ".join(self.define(value) for value in op.results)
            yield "  " * level + (f"{results} = " if results else "") + text + _location(op.location)

    def block(self, block: Block, level: int) -> str:
        """A region in braces, on lines of its own."""
        lines = ["{", *self.ops(block.ops, level + 1)]
        values = ", ".join(map(self.use, block.yields))
        lines.append("  " * (level + 1) + f"yield {values}".rstrip())
        return "\n".join([*lines, "  " * level + "}"])

    def _dims(self, dims: Iterable[tensor.Dim]) -> str:
        return ", ".join(f"{_name(dim.name)}: {self.index(dim.extent)}" for dim in dims)

    def _op(self, op: Op, level: int) -> str:
        if isinstance(op, tensor.Compute):
            reduction = f" {op.monoid}({self._dims(op.reductions)})" if op.monoid else ""
            accumulate = f" in {op.accumulate}" if op.accumulate is not op.body.dtype else ""
            return f"compute {op.dtype}[{self._dims(op.dims)}]{reduction}{accumulate} {self.body(op.body, level)}"
        if isinstance(op, tensor.Constant):
            return f"constant {json.dumps(op.constant)}: {self.type(op.result.type)}"
        if isinstance(op, tensor.Empty):
            return f"empty {self.type(op.result.type)}"
        if isinstance(op, tensor.Fusion):
            text = f"fusion {json.dumps(op.label) + ' ' if op.label else ''}{self.block(op.body, level)}"
            writes = (
                f"{k}: {'' if w.combine == 'set' else w.combine + ' '}{self.use(w.base)} "
                f"{'within' if w.within else 'at'} {self.indices(w.at)}"
                for k, w in op.writes.items()
            )
            shapes = (f"{k}: [{', '.join(map(self.index, shape))}]" for k, shape in op.shapes.items())
            text += f" writes ({', '.join(writes)})" if op.writes else ""
            return f"{text} shapes ({', '.join(shapes)})" if op.shapes else text
        if isinstance(op, tensor.Scatter):
            place = "within" if op.within else "at"
            where = f"over ({self._dims(op.dims)}) {place} {self.indices(op.target)}"
            return f"scatter {op.combine} {self.use(op.init)} {where} {self.body(op.body, level)}"
        if isinstance(op, tensor.Scan):
            accumulate = f" in {op.accumulate}" if op.accumulate is not op.body.dtype else ""
            head = f"scan {op.result.type.dtype}[{self._dims(op.dims)}] {op.monoid} over {_name(op.over)}"
            return f"{head}{accumulate} {self.body(op.body, level)}"
        if isinstance(op, tensor.Sort):
            order = " descending" if op.descending else ""
            keep = "" if op.keep is None else f" keep {self.index(op.keep)}"
            return f"sort {self.use(op.source)} dim {op.dim % max(len(op.source.shape), 1)}{order}{keep}"
        if isinstance(op, tensor.Random):
            key = "" if op.key is None else f"{self.use(op.key)} + "
            return f"random {op.distribution} {self.type(op.result.type)} seed {key}{op.seed} offset {op.offset}"
        if isinstance(op, (tensor.Call, tensor.Collective, tensor.Launch)):
            inputs = ", ".join(map(self.use, op.inputs))
            kinds = ", ".join(self.type(value.type) for value in op.results)
            if isinstance(op, tensor.Launch):
                return f"launch {_global(op.kernel)}({inputs}) : {kinds}".rstrip()
            if isinstance(op, tensor.Collective):
                return f"collective {op.kind} {op.combine}({inputs}) over {op.devices} : {kinds}"
            given = ", ".join(f"{_name(key)} = {_datum(value)}" for key, value in op.attributes.items())
            return f"call {json.dumps(op.target)}({inputs}){' {' + given + '}' if given else ''} : {kinds}".rstrip()
        if isinstance(op, tensor.If):
            then, otherwise = (self.block(block, level) for block in op.blocks())
            return f"if {self.use(op.inputs[0])} {then} else {otherwise}"
        if isinstance(op, tensor.While):
            return self._while(op, level)
        return self._tile_op(op, level)

    def _while(self, op: tensor.While, level: int) -> str:
        start = [self.use(value) for value in op.inputs]
        names = [self.define(value) for value in op.condition.args]
        for value, name in zip(op.body.args, names, strict=True):  # both regions take the values by the same names
            self._names[value] = name[1:]
        bindings = ", ".join(f"{name} = {value}" for name, value in zip(names, start, strict=True))
        condition, body = self.block(op.condition, level), self.block(op.body, level)
        times = json.dumps(op.trips) if isinstance(op.trips, str) else self.index(op.trips)
        return f"while ({bindings}){f' times {times}' if op.trips != '' else ''} cond {condition} do {body}"

    def _axes(self, axes: Iterable[tile.Axis]) -> str:
        return ", ".join(f"{_name(axis.name)}: {self.index(axis.extent)}" for axis in axes)

    def _tile_op(self, op: Op, level: int) -> str:
        if isinstance(op, (tile.Load, tile.Store)):
            guards = ", ".join(map(self._guard, op.guards))
            where = f"[{self._axes(op.axes)}] at {self.indices(op.indices)}{' where ' + guards if guards else ''}"
            if isinstance(op, tile.Store):
                atomic = f" atomic {op.atomic}" if op.atomic else ""
                return f"store {self.use(op.value)} -> {self.use(op.buffer)} {where}{atomic}"
            default = op.otherwise == Literal(0, op.buffer.type.dtype)
            return f"load {self.use(op.buffer)} {where}{'' if default else ' else ' + _literal(op.otherwise)}"
        if isinstance(op, tile.Map):
            return f"map {op.result.type.dtype}[{self._axes(op.axes)}] {self.body(op.body, level)}"
        if isinstance(op, tile.Reduce):
            reduced = f"{op.monoid}({self._axes(op.reduced)})"
            return f"reduce {op.result.type.dtype}[{self._axes(op.axes)}] {reduced} {self.body(op.body, level)}"
        if isinstance(op, tile.Dot):
            operands = ", ".join(map(self.use, (op.a, op.b, op.accumulator)))
            return f"dot {operands}{'' if op.precision == 'ieee' else ' precision ' + op.precision}"
        if isinstance(op, tile.For):
            start = [self.use(value) for value in op.initial]
            names = [self.define(value) for value in op.body.args]
            bindings = ", ".join(f"{name} = {value}" for name, value in zip(names, start, strict=True))
            step = self.index(op.step)
            step = step if op.step.is_constant else f"({step})"  # a name before the bindings would read as a call
            limits = f"{self.index(op.lower)} to {self.index(op.upper)} step {step}"
            pipeline = "" if op.depth == 1 else f" pipeline {self.index(op.depth)}"
            return f"for {_name(op.variable)} in {limits} ({bindings}){pipeline} {self.block(op.body, level)}"
        if isinstance(op, tile.When):
            others = ", ".join(map(self.use, op.otherwise))
            return f"when {self.use(op.condition)} else ({others}) {self.block(op.body, level)}"
        if isinstance(op, tile.Band):
            grid = ", ".join(f"{_name(dim.name)}: {self.index(dim.extent)}" for dim in op.grid)
            first = self.index(op.first)
            first = first if op.first.is_constant else f"({first})"  # a name before the grid would read as a call
            return f"band {_name(op.variable)} from {first} ({grid}) {self.block(op.body, level)}"
        raise TypeError(f"no text known for {op!r}")

    def _guard(self, guard: tile.Guard) -> str:
        low = "" if guard.low is None else f"{self.index(guard.low)} <= "
        return f"{low}{self.index(guard.value)}{'' if guard.high is None else f' < {self.index(guard.high)}'}"


def _name(name: str) -> str:
    """An identifier, in back-quotes where it would read as something else."""
    if _IDENTIFIER.fullmatch(name) and name not in _RESERVED:
        return name
    if not name or "`" in name or "\n" in name:
        raise ValueError(f"{name!r} cannot be a name in the text format")
    return f"`{name}`"


def _global(name: str) -> str:
    return f"@{name}" if re.fullmatch(r"[A-Za-z0-9_.$]+", name) else f"@{_name(name)}"


def _literal(node: Literal) -> str:
    if node.dtype is BOOL:
        return "true" if node.value else "false"
    text = repr(node.value)
    return text if node.dtype is (F32 if isinstance(node.value, float) else I64) else f"{text}:{node.dtype}"


def _datum(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"({''.join(_datum(item) + ', ' for item in value).rstrip(' ')})"
    raise TypeError(f"an attribute can't be a {type(value).__name__}: {value!r}")


def _location(location: Location) -> str:
    return "" if not location.known else f" loc({place_text(location, '; ')})"
