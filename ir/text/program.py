"""Text of accelerator programs: `print_program` and `parse_program`, which undo each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import lark

from codesign.ir.core import Value
from codesign.ir.dtypes import DTYPES, F32, I64, DType
from codesign.ir.errors import CodesignError, ParseError
from codesign.ir.functions import FUNCTIONS, result_dtype
from codesign.ir.index import Datum, FloorDiv, Index, Mod, Var, index, maximum, minimum
from codesign.ir.index import Extremum as IndexExtremum
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.precision import PRECISIONS
from codesign.ir.program import (
    ENGINES,
    Instruction,
    Load,
    Loop,
    Matmul,
    Program,
    Scratch,
    Semaphore,
    Set,
    Share,
    Statement,
    Store,
    Sync,
    Vector,
    Wait,
    buffer_shape,
    scratch,
)
from codesign.ir.scalar import Apply, IndexValue, Read, Scalar
from codesign.ir.scalar import Literal as ScalarLiteral
from codesign.ir.tensor import MONOIDS
from codesign.ir.text.places import place_text
from codesign.ir.tile import Axis, Guard
from codesign.ir.types import BufferType, row_major

_AnyInstruction = TypeVar("_AnyInstruction", bound=Instruction)
_SYMBOLS = {row.symbol: row.name for row in FUNCTIONS.values() if row.symbol}


# -- printing -------------------------------------------------------------------------------------------------------
def print_program(program: Program) -> str:
    """The program as text, with the place in the source that each instruction came from."""
    inputs, results = (", ".join(map(_param, part)) for part in (program.inputs, program.results))
    head = f"program @{program.name}({inputs}) -> ({results}) on {program.cores} cores"
    lines = [f"{head}{' dataflow ' + program.dataflow if program.dataflow else ''} {{"]
    for item in program.scratches:
        sizes = ", ".join(map(str, item.shape))
        place = "" if item.level == "core" else f" in {item.level}"
        lines.append(f"  scratch {item.name}: {item.dtype}[{sizes}] at {item.address}{place}")
    for scope in dict.fromkeys(s.scope for s in program.semaphores):
        names = ", ".join(s.name for s in program.semaphores if s.scope == scope)
        lines.append(f"  semaphore {names}{'' if scope == 'core' else f' in {scope}'}")
    lines.append("")
    _print_block(program.body, 1, lines)
    return "\n".join([*lines, "}"]) + "\n"


def _param(value: Value) -> str:
    kind = value.type
    assert isinstance(kind, BufferType)
    sizes = ", ".join(map(str, kind.shape))
    text = f"%{value.name}: {kind.dtype}[{sizes}]"
    return text if kind.contiguous else f"{text} strides [{', '.join(map(str, kind.strides))}]"


def _print_block(body: list[Statement], depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    for statement in body:
        if isinstance(statement, Loop):
            bounds = f"{_text(statement.lower)} to {_text(statement.upper)} step {_text(statement.step)}"
            count = f" count {statement.count}" if statement.count else ""
            lines.append(f"{pad}for {statement.variable} in {bounds}{count} {{")
            _print_block(statement.body, depth + 1, lines)
            lines.append(f"{pad}}}")
        elif isinstance(statement, Set):
            lines.append(f"{pad}set {statement.name} = {_text(statement.value)}")
        else:
            lines.append(f"{pad}{_instruction(statement)}{_location(statement.location)}")


def _instruction(op: Instruction) -> str:
    if isinstance(op, Load):
        text = f"load {_place(op.target)} {_axes(op.axes)} = {_memory(op.source, op.indices)}{_guards(op.guards)}"
        if op.otherwise is not None:
            text += f" else {_number(op.otherwise)}"
        if op.share is not None:
            text += f" shared {_text(op.share.key)} by {_text(op.share.members)}"
    elif isinstance(op, Store):
        kind = f"atomic_{op.atomic} " if op.atomic else ""
        text = (
            f"store {kind}{_memory(op.target, op.indices)} {_axes(op.axes)} = {_place(op.source)}{_guards(op.guards)}"
        )
    elif isinstance(op, Vector):
        reduce = f" reduce {op.monoid} {_axes(op.reduced)}" if op.monoid else ""
        text = f"vector {_place(op.target)} {_axes(op.axes)}{reduce} = {_scalar(op.body)}"
    elif isinstance(op, Matmul):
        sign = "+=" if op.accumulate else "="
        text = f"matmul {_place(op.target)} {sign} {_place(op.a)} @ {_place(op.b)} {_axes(op.axes)}"
        text += f" first {_text(op.first)}" if op.first is not None else ""
        text += f" precision {op.precision}" if op.precision != "ieee" else ""
    else:
        text = f"sync {op.engine}"
    if op.waits:
        text += f" wait {', '.join(f'{w.name} >= {_text(w.value)}' for w in op.waits)}"
    if op.signals:
        text += f" signal {', '.join(op.signals)}"
    return text


def _location(location: Location) -> str:
    return f" loc({place_text(location, ', ')})" if location.known else ""


def _place(read: Read) -> str:
    return f"{read.source.name}[{', '.join(map(_text, read.indices))}]"


def _memory(source: Value, indices: tuple[Index, ...]) -> str:
    sign = "%" if isinstance(source.type, BufferType) else ""
    return f"{sign}{source.name}[{', '.join(map(_text, indices))}]"


def _axes(axes: tuple[Axis, ...]) -> str:
    return f"[{', '.join(map(str, axes))}]"


def _guards(guards: tuple[Guard, ...]) -> str:
    parts = []
    for g in guards:
        if g.low is not None and g.high is not None:
            parts.append(f"{_text(g.low)} <= {_text(g.value)} < {_text(g.high)}")
        elif g.high is not None:
            parts.append(f"{_text(g.value)} < {_text(g.high)}")
        elif g.low is not None:
            parts.append(f"{_text(g.value)} >= {_text(g.low)}")
    return f" where {' and '.join(parts)}" if parts else ""


def _text(value: Index) -> str:
    """An index expression; data-dependent parts are written `data(scalar)`."""
    if not value.data():
        return str(value)
    text = ""
    for monomial, c in value.terms:
        factors = [_atom(atom) for atom in monomial]
        body = "*".join([*factors, *([str(abs(c))] if abs(c) != 1 or not factors else [])])
        text += (body if c > 0 else f"-{body}") if not text else (f" + {body}" if c > 0 else f" - {body}")
    return text


def _atom(atom: object) -> str:
    if isinstance(atom, Datum):
        return f"data({_scalar(atom.scalar, lets=False)})"
    if isinstance(atom, FloorDiv | Mod):
        sign = "//" if isinstance(atom, FloorDiv) else "%"
        return f"(({_text(atom.numerator)}) {sign} ({_text(atom.denominator)}))"
    if isinstance(atom, IndexExtremum):
        return f"{atom.kind}({', '.join(map(_text, atom.args))})"
    assert isinstance(atom, Var)
    return atom.name


def _number(value: ScalarLiteral) -> str:
    if isinstance(value.value, bool):
        return "true" if value.value else "false"
    if value.dtype.is_float:
        magnitude = abs(value.value)
        text = "inf" if magnitude == math.inf else "nan" if math.isnan(value.value) else repr(float(magnitude))
        text = text if value.dtype is F32 else f"{text}_{value.dtype}"
        return f"-{text}" if math.copysign(1.0, value.value) < 0 and not math.isnan(value.value) else text
    return str(value.value) if value.dtype is I64 else f"{value.value}_{value.dtype}"


def _scalar(expression: Scalar, lets: bool = True) -> str:
    """The expression, shared nodes bound by `let` so that the text is as long as the graph is big."""
    nodes = list(expression.walk())
    uses: dict[int, int] = {}
    for node in nodes:
        for child in node.children():
            uses[id(child)] = uses.get(id(child), 0) + 1
    texts: dict[int, str] = {}
    bindings: list[str] = []
    for node in nodes:
        text = _node(node, texts)
        if lets and isinstance(node, Apply) and uses.get(id(node), 0) > 1:
            bindings.append(f"t{len(bindings)} = {_bare(text)}")
            text = f"t{len(bindings) - 1}"
        texts[id(node)] = text
    result = _bare(texts[id(expression)])
    return f"let {', '.join(bindings)} in {result}" if bindings else result


def _bare(text: str) -> str:
    """Without the parentheses around all of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if position == len(text) - 1 else text
    return text


def _node(node: Scalar, texts: dict[int, str]) -> str:
    if isinstance(node, ScalarLiteral):
        return _number(node)
    if isinstance(node, IndexValue):
        return f"index({_text(node.index)})" if node.dtype is I64 else f"index<{node.dtype}>({_text(node.index)})"
    if isinstance(node, Read):
        return _place(node)
    assert isinstance(node, Apply)
    args = [texts[id(arg)] for arg in node.args]
    if node.function == "cast":
        return f"{node.dtype}({_bare(args[0])})"
    if node.function == "bitcast":
        return f"bitcast_{node.dtype}({_bare(args[0])})"
    symbol = FUNCTIONS[node.function].symbol
    return f"({args[0]} {symbol} {args[1]})" if symbol else f"{node.function}({', '.join(map(_bare, args))})"


# -- parsing --------------------------------------------------------------------------------------------------------
@cache
def _grammar() -> lark.Lark:
    text = (Path(__file__).parent / "program.lark").read_text(encoding="utf-8")
    return lark.Lark(text, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def parse_programs(text: str, file: str = "<string>", first_line: int = 1) -> list[Program]:
    """Every program of a text.

    `first_line` is the line of the file that the text begins on. Raises ParseError with line and column.
    """
    lines = text.splitlines()

    def fail(message: str, line: int, column: int) -> ParseError:
        source = lines[line - 1] if 0 < line <= len(lines) else ""
        return ParseError(message, file=file, line=line + first_line - 1, column=max(column, 1), source_line=source)

    try:
        tree = _grammar().parse(text)
        return cast(list[Program], _Build().transform(tree))
    except lark.exceptions.UnexpectedEOF as error:
        raise fail("unexpected end of the program", len(lines), len(lines[-1]) if lines else 1) from error
    except lark.exceptions.UnexpectedToken as error:
        expected = ", ".join(sorted(_spelled(name) for name in error.accepts or error.expected)[:8])
        what = "the end of the text" if error.token.type == "$END" else f"'{error.token}'"
        raise fail(f"unexpected {what}; expected {expected}", error.line, error.column) from error
    except lark.exceptions.UnexpectedCharacters as error:
        raise fail(f"unexpected character {text[error.pos_in_stream or 0]!r}", error.line, error.column) from error
    except lark.exceptions.VisitError as error:
        meta = getattr(error.obj, "meta", None)
        line = getattr(meta, "line", None) or getattr(error.obj, "line", None) or 1
        column = getattr(meta, "column", None) or getattr(error.obj, "column", None) or 1
        original = error.orig_exc
        if isinstance(original, CodesignError | ValueError | KeyError | ArithmeticError | RecursionError):
            message = original.message if isinstance(original, CodesignError) else str(original)
            raise fail(message, line, column) from error
        raise


def parse_program(text: str, file: str = "<string>", first_line: int = 1) -> Program:
    """The only program of a text; ParseError when there are more."""
    found = parse_programs(text, file, first_line)
    if len(found) != 1:
        raise ParseError(f"expected one program, found {len(found)}", file=file, line=first_line, column=1)
    return found[0]


def _spelled(terminal: str) -> str:
    for definition in _grammar().terminals:
        if definition.name == terminal and isinstance(definition.pattern, lark.lexer.PatternStr):
            return f"'{definition.pattern.value}'"
    return terminal.lower()


def _dtype(name: str) -> DType:
    if name not in DTYPES:
        raise ValueError(f"unknown element type '{name}'; known: {', '.join(DTYPES)}")
    return DTYPES[name]


def _listed(items: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(item for item in items if item is not None)


@lark.v_args(inline=True)
class _Build(lark.Transformer[Any, Any]):
    """Builds a program from its tree; declarations are met before the statements that use them."""

    def __init__(self) -> None:
        super().__init__()
        self._reset()

    def _reset(self) -> None:
        self.buffers: dict[str, Value] = {}
        self.scratches: dict[str, Scratch] = {}
        self.semaphores_known: dict[str, Semaphore] = {}
        self.lets: dict[str, Scalar] = {}

    def start(self, *programs: Program) -> list[Program]:
        return list(programs)

    def program(self, name: str, inputs: Any, results: Any, cores: str, dataflow: str | None, *rest: Any) -> Program:
        body = [item for item in rest if isinstance(item, Instruction | Set | Loop)]
        program = Program(
            name[1:],
            [*inputs, *results],
            len(results),
            int(cores),
            list(self.scratches.values()),
            list(self.semaphores_known.values()),
            body,
            dataflow or "",
        )
        self._reset()
        return program

    # declarations
    def params(self, *items: Any) -> list[Value]:
        return list(_listed(items))

    def param(self, name: str, dtype: str, sizes: Any, strides: Any) -> Value:
        shape = tuple(index(size) for size in sizes)
        steps = row_major(shape) if strides is None else tuple(index(s) for s in strides)
        value = Value(BufferType(_dtype(dtype), shape, steps), str(name[1:]))
        if value.name in self.buffers:
            raise ValueError(f"buffer %{value.name} is declared twice")
        self.buffers[value.name] = value
        return value

    def sizes(self, *items: Any) -> tuple[int, ...]:
        return tuple(int(item) for item in _listed(items))

    def dataflow(self, name: str | None) -> str | None:
        return None if name is None else str(name)

    def scratch(self, name: str, dtype: str, sizes: Any, address: str, level: str | None) -> Scratch:
        if name in self.scratches:
            raise ValueError(f"scratch {name} is declared twice")
        self.scratches[str(name)] = scratch(str(name), _dtype(dtype), sizes, int(address), str(level or "core"))
        return self.scratches[str(name)]

    def semaphores(self, *names: Any) -> None:
        scope = str(names[-1] or "core")
        if scope not in ("core", "cluster", "chip"):
            raise ValueError(f"a semaphore is in core, cluster or chip, not in '{scope}'")
        for name in names[:-1]:
            if name in self.semaphores_known:
                raise ValueError(f"semaphore {name} is declared twice")
            self.semaphores_known[str(name)] = Semaphore(str(name), cast(Any, scope))

    # statements
    def loop(self, variable: str, lower: Index, upper: Index, step: Index, count: str | None, *body: Statement) -> Loop:
        return Loop(str(variable), lower, upper, step, list(body), str(count or ""))

    def set(self, name: str, value: Index) -> Set:
        return Set(str(name), value)

    def load(self, target: Read, axes: Any, memory: Any, guards: Any, otherwise: Any, share: Any, *rest: Any) -> Load:
        source, indices = memory
        return self._with(Load(target, axes, source, indices, guards, otherwise, share), rest)

    def store(self, *items: Any) -> Store:
        atomic = None
        if isinstance(items[0], lark.Token):
            atomic = cast(Literal["add", "max", "min"], str(items[0]).removeprefix("atomic_"))
            items = items[1:]
        (target, indices), axes, source, guards, *rest = items
        return self._with(Store(target, indices, axes, source, guards, atomic), rest)

    def vector(self, target: Read, axes: Any, reduce: Any, body: Scalar, *rest: Any) -> Vector:
        monoid, reduced = reduce
        return self._with(Vector(target, axes, body, reduced, monoid), rest)

    def matmul(
        self, target: Read, sign: str, a: Read, b: Read, axes: Any, first: Any, precision: Any, *rest: Any
    ) -> Matmul:
        if len(axes) != 3:
            raise ValueError(f"matmul needs three axes (m, n, k), got {len(axes)}")
        return self._with(Matmul(target, a, b, axes, sign == "+=", first, precision or "ieee"), rest)

    def sync(self, engine: str, *rest: Any) -> Sync:
        if engine not in ENGINES:
            raise ValueError(f"unknown engine '{engine}'; engines are {', '.join(ENGINES)}")
        return self._with(Sync(cast(Any, str(engine))), rest)

    def _with(self, instruction: _AnyInstruction, rest: Sequence[Any]) -> _AnyInstruction:
        """The instruction with its last clauses: waits, signals, location."""
        instruction.waits, instruction.signals, instruction.location = rest
        return instruction

    def location(self, found: Location | None) -> Location:
        return found or UNKNOWN

    def place_in_source(self, file: str | None, line: str | None, module: str | None, origin: str | None) -> Location:
        texts = ["" if text is None else str(json.loads(text)) for text in (file, module, origin)]
        return Location(texts[0], int(line or 0), texts[1], texts[2])

    def places_in_source(self, *parts: Location) -> Location:
        return Location(parts=parts)

    # clauses
    def axes(self, *items: Any) -> tuple[Axis, ...]:
        return _listed(items)

    def axis(self, name: str, size: str) -> Axis:
        return Axis(str(name), int(size))

    def place(self, name: str, *indices: Any) -> Read:
        found = self.scratches.get(str(name))
        if found is None:
            raise ValueError(f"unknown scratch '{name}'")
        listed = _listed(indices)
        if len(listed) != len(found.shape):
            raise ValueError(f"scratch {name} has {len(found.shape)} dimensions but {len(listed)} indices")
        return Read(found.value, listed)

    def memory(self, name: str, *indices: Any) -> tuple[Value, tuple[Index, ...]]:
        listed = _listed(indices)
        if not name.startswith("%"):
            return self.place(name, *indices).source, listed
        value = self.buffers.get(name[1:])
        if value is None:
            raise ValueError(f"unknown buffer '{name}'")
        if len(listed) != len(buffer_shape(value)):
            raise ValueError(f"buffer {name} has {len(buffer_shape(value))} dimensions but {len(listed)} indices")
        return value, listed

    def guards(self, *items: Any) -> tuple[Guard, ...]:
        return _listed(items)

    def guard_both(self, low: Index, value: Index, high: Index) -> Guard:
        return Guard(value, low, high)

    def guard_below(self, value: Index, high: Index) -> Guard:
        return Guard(value, None, high)

    def guard_above(self, value: Index, low: Index) -> Guard:
        return Guard(value, low, None)

    def share(self, key: Index | None, members: Index | None) -> Share | None:
        return None if key is None or members is None else Share(key, members)

    def otherwise(self, value: Any) -> ScalarLiteral | None:
        return cast(ScalarLiteral | None, value)

    def reduce(self, monoid: str | None, axes: Any) -> tuple[str | None, tuple[Axis, ...]]:
        if monoid is not None and monoid not in MONOIDS:
            raise ValueError(f"unknown reduction '{monoid}'; known: {', '.join(MONOIDS)}")
        return (None, ()) if monoid is None else (str(monoid), axes)

    def first(self, value: Any) -> Index | None:
        return cast(Index | None, value)

    def precision(self, name: str | None) -> str | None:
        if name is not None and name not in PRECISIONS:
            raise ValueError(f"unknown precision '{name}'; known: {', '.join(PRECISIONS)}")
        return None if name is None else str(name)

    def waits(self, *items: Any) -> tuple[Wait, ...]:
        return _listed(items)

    def wait(self, name: str, value: Index) -> Wait:
        self._semaphore(name)
        return Wait(str(name), value)

    def signals(self, *names: Any) -> tuple[str, ...]:
        for name in _listed(names):
            self._semaphore(name)
        return tuple(str(name) for name in _listed(names))

    def _semaphore(self, name: str) -> None:
        if name not in self.semaphores_known:
            raise ValueError(f"unknown semaphore '{name}'; declare it with `semaphore {name}`")

    # index expressions
    def index_integer(self, text: str) -> Index:
        return index(int(text))

    def index_name(self, name: str) -> Index:
        return index(str(name))

    def index_add(self, a: Index, b: Index) -> Index:
        return a + b

    def index_sub(self, a: Index, b: Index) -> Index:
        return a - b

    def index_mul(self, a: Index, b: Index) -> Index:
        return a * b

    def index_floordiv(self, a: Index, b: Index) -> Index:
        return a // b

    def index_mod(self, a: Index, b: Index) -> Index:
        return a % b

    def index_neg(self, a: Index) -> Index:
        return -a

    def index_min(self, *args: Index) -> Index:
        return minimum(*args)

    def index_max(self, *args: Index) -> Index:
        return maximum(*args)

    def index_data(self, value: Scalar) -> Index:
        return value.as_index()

    # scalar expressions
    def body(self, *items: Any) -> Scalar:
        self.lets = {}
        return cast(Scalar, items[-1])

    def binding(self, name: str, value: Scalar) -> None:
        self.lets[str(name)] = value

    def number(self, sign: Any, text: str) -> ScalarLiteral:
        digits, _, suffix = str(text).partition("_")
        real = not digits.isdigit()
        dtype = _dtype(suffix) if suffix else (F32 if real else I64)
        if real and not dtype.is_float:
            raise ValueError(f"{text} is not an integer")
        value = float(digits) if dtype.is_float else int(digits)
        return ScalarLiteral(-value if sign is not None else value, dtype)

    def boolean(self, text: str) -> ScalarLiteral:
        return ScalarLiteral(text == "true", DTYPES["bool"])

    def read(self, place: Read) -> Read:
        return place

    def name(self, name: str) -> Scalar:
        if str(name) not in self.lets:
            raise ValueError(f"unknown name '{name}' (indices as values are written index({name}))")
        return self.lets[str(name)]

    def call(self, name: str, *args: Any) -> Scalar:
        values = _listed(args)
        if name in DTYPES:
            if len(values) != 1:
                raise ValueError(f"conversion to {name} takes one argument")
            return Apply("cast", values, DTYPES[str(name)])
        if name.startswith("bitcast_") and name.removeprefix("bitcast_") in DTYPES:
            return Apply("bitcast", values, DTYPES[str(name.removeprefix("bitcast_"))])
        return Apply(str(name), values, result_dtype(str(name), tuple(v.dtype for v in values)))

    def infix(self, a: Scalar, symbol: str, b: Scalar) -> Scalar:
        name = _SYMBOLS[str(symbol)]
        return Apply(name, (a, b), result_dtype(name, (a.dtype, b.dtype)))

    def index_value(self, dtype: str | None, value: Index) -> IndexValue:
        return IndexValue(value, I64 if dtype is None else _dtype(str(dtype)))
