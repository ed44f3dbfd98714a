"""The text of an accelerator program."""

from __future__ import annotations

import math

from codesign.ir.core import Value
from codesign.ir.dtypes import F32, I64
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Datum, FloorDiv, Index, Mod, Var
from codesign.ir.index import Extremum as IndexExtremum
from codesign.ir.location import Location
from codesign.ir.program import (
    Instruction,
    Load,
    Loop,
    Matmul,
    Program,
    Set,
    Statement,
    Store,
    Vector,
)
from codesign.ir.scalar import Apply, IndexValue, Read, Scalar
from codesign.ir.scalar import Literal as ScalarLiteral
from codesign.ir.text.places import place_text
from codesign.ir.tile import Axis, Guard
from codesign.ir.types import BufferType


def print_program(program: Program) -> str:
    """The program as text, with the place in the source that each instruction came from."""
    inputs, results = (
        ", ".join(_param(value, program.resting.get(value.name, "")) for value in part)
        for part in (program.inputs, program.results)
    )
    head = f"program @{program.name}({inputs}) -> ({results}) on {program.cores} cores{' joined' if program.joined else ''}"
    lines = [f"{head}{' dataflow ' + program.dataflow if program.dataflow else ''} {{"]
    for item in program.scratches:
        sizes = ", ".join(map(str, item.shape))
        place = "" if item.level == "core" else f" in {item.level}"
        place += f" over {item.over}" if item.over > 1 else ""
        lines.append(f"  scratch {item.name}: {item.dtype}[{sizes}] at {item.address}{place}")
    for scope in dict.fromkeys(s.scope for s in program.semaphores):
        names = ", ".join(s.name for s in program.semaphores if s.scope == scope)
        lines.append(f"  semaphore {names}{'' if scope == 'core' else f' in {scope}'}")
    lines.append("")
    _print_block(program.body, 1, lines)
    return "\n".join([*lines, "}"]) + "\n"


def _param(value: Value, place: str) -> str:
    kind = value.type
    assert isinstance(kind, BufferType)
    sizes = ", ".join(map(str, kind.shape))
    text = f"%{value.name}: {kind.dtype}[{sizes}]"
    text += "" if kind.contiguous else f" strides [{', '.join(map(str, kind.strides))}]"
    return f"{text} in {place}" if place else text


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
        text = (
            f"{op.engine} {_place(op.target)} {_axes(op.axes)} = {_memory(op.source, op.indices)}"
            f"{'' if op.half is None else f' half {_text(op.half)}'}{_guards(op.guards)}"
        )
        if op.otherwise is not None:
            text += f" else {_number(op.otherwise)}"
        if op.share is not None:
            text += f" shared {_text(op.share.key)} by {_text(op.share.members)}"
        if op.keep is not None:
            text += f" kept {_place(op.keep.place)} again {_text(op.keep.again)}"
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
        a, b = (
            " scaled ".join(_place(each) for each in (factor, *scales))
            for factor, scales in zip((op.a, op.b), op.scales, strict=True)
        )
        text = f"matmul {_place(op.target)} {sign} {a} @ {b} {_axes(op.axes)}"
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
