"""Parses `.tile` text into modules. Nothing in a file is executed: trees are built into data, node by node."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from codesign.ir import tile
from codesign.ir.core import Block, Function, Module, Symbol, Value
from codesign.ir.errors import ParseError
from codesign.ir.schedule import Schedule
from codesign.ir.text.builder import Builder, all_children, child, children
from codesign.ir.text.expressions import Branch, Node, Source
from codesign.ir.text.operations import OPERATIONS
from codesign.ir.text.program import parse_program
from codesign.ir.types import BufferType


def parse(text: str, file: str = "<string>") -> Module:
    """The module that a `.tile` text says; ParseError (with line, column and a caret) when it isn't one."""
    source = Source(text, file)
    rest, programs = _cut_programs(text, source)
    try:
        tree = _grammar().parse(rest)
        module = ModuleBuilder(source).module(tree)
    except UnexpectedInput as error:
        raise _explain(error, source) from None
    except RecursionError:
        raise source.error("nested too deeply", 1, 1) from None
    for name, chunk, line, column in programs:
        if name in module.programs:
            raise source.error(f"program @{name} is defined twice", line, column)
        module.programs[name] = parse_program(chunk, file, line)
    return module


@cache
def _grammar() -> Lark:
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


_WORDS = {"$END": "the end of the file", "VALUE": "%value", "GLOBAL": "@name", "NAME": "a name", "INT": "an integer"}


def _explain(error: UnexpectedInput, source: Source) -> ParseError:
    """The parser's refusal in words: what was found, and what could stand there when that is a short list."""
    if isinstance(error, UnexpectedEOF) or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        lines = [number for number, line in enumerate(source.lines, 1) if line.strip()] or [1]
        line, column = lines[-1], len(source.lines[lines[-1] - 1]) + 1
        found = "the file ends too early"
    else:
        line, column = error.line, error.column
        if isinstance(error, UnexpectedToken):
            found = f"unexpected {str(error.token)!r}"
        else:
            found = f"unexpected character {source.lines[line - 1][column - 1 : column]!r}"
    wanted: set[str] = set()
    if isinstance(error, UnexpectedToken):
        wanted = error.accepts or error.expected
    elif isinstance(error, UnexpectedCharacters):
        wanted = error.allowed or set()
    terminals = {terminal.name: terminal for terminal in _grammar().terminals}
    words = set()
    for name in wanted:
        pattern = terminals[name].pattern if name in terminals else None
        literal = pattern is not None and pattern.type == "str"
        words.add(_WORDS.get(name) or (repr(pattern.value) if pattern is not None and literal else name.lower()))
    hint = f", expected {' or '.join(sorted(words))}" if 0 < len(words) <= 5 else ""
    return source.error(found + hint, line, column)


_PROGRAM = re.compile(r"^[ \t]*program\s+@(`[^`\n]+`|[A-Za-z0-9_.$]+)", re.MULTILINE)
_BRACES = re.compile(r";[^\n]*|[{}]")


def _cut_programs(text: str, source: Source) -> tuple[str, list[tuple[str, str, int, int]]]:
    """Take the accelerator programs out of a text, leaving blank lines in their place.

    Gives the rest, and name, text, first line and column of each program.
    """
    programs: list[tuple[str, str, int, int]] = []
    pieces: list[str] = []
    done = 0
    while found := _PROGRAM.search(text, done):
        start, depth, end = found.start(), 0, -1
        for brace in _BRACES.finditer(text, found.end()):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if brace[0] == "}" and depth <= 0:
                end = brace.end()
                break
        line = text.count("\n", 0, start) + 1
        if end < 0:
            raise source.error(f"the braces of program @{found[1]} do not close", line, 1)
        programs.append((found[1].strip("`"), text[start:end], line, 1))
        pieces += [text[done:start], "\n" * text.count("\n", start, end)]
        done = end
    return "".join([*pieces, text[done:]]), programs


class ModuleBuilder(Builder):
    """Builds a module from its parse tree."""

    rules = OPERATIONS

    def module(self, tree: Node) -> Module:
        """The whole file."""
        head, *items = tree.children
        module = Module(self.name(child(head, 0))[1:].strip("`") if head is not None else "module")
        for item in items:
            assert isinstance(item, Tree)
            with self.guarded(item):
                if item.data == "symbol":
                    symbol = self._symbol(item)
                    self._put(module.symbols, symbol.name, symbol, item.children[0], "symbol ")
                elif item.data == "function":
                    function = self._function(item)
                    self._put(module.functions, function.name, function, item.children[0], "function @")
                else:
                    kernel = self._kernel(item)
                    self._put(module.kernels, kernel.name, kernel, item.children[0], "kernel @")
        return module

    def _put(self, table: dict[str, Any], name: str, thing: object, at: Branch, kind: str) -> None:
        if name in table:
            self.fail(f"{kind}{name} is defined twice", at)
        table[name] = thing

    def _symbol(self, node: Node) -> Symbol:
        name, low, high, example = node.children
        assert isinstance(high, Token)
        return Symbol(
            self.name(name),
            self.integer(low),
            None if high.type == "INF" else self.integer(high),
            None if example is None else self.integer(example),
        )

    def _function(self, node: Node) -> Function:
        name, *rest = node.children
        *middle, values, place = rest
        params = [part for part in middle if isinstance(part, Tree) and part.data == "parameter"]
        ops = [part for part in middle if isinstance(part, Tree) and part.data == "op"]
        self.scopes.append({})
        block = Block()
        for param in params:
            block.args.append(self.define(param.children[0], self.tensor_type(param.children[1])))
        self.ops(block, ops)
        block.yields = self.values(values)
        listed = next((part for part in middle if isinstance(part, Tree) and part.data == "updates"), None)
        updates = dict(self._update(part, block) for part in children(listed))
        self.scopes.pop()
        return Function(self.name(name)[1:].strip("`"), block, self.location(place), updates)

    def _update(self, node: Branch, block: Block) -> tuple[int, int | str]:
        position, target = all_children(node)
        assert isinstance(target, Token)
        if target.type == "STRING":
            return self.integer(position), self.string(target)
        value = self.lookup(target)
        if value not in block.args:
            self.fail(f"%{value.name} is not an argument", target)
        return self.integer(position), block.args.index(value)

    def _kernel(self, node: Node) -> tile.Kernel:
        name, inputs, outputs, overwrites, grid, symbols, schedule, notes, *rest = node.children
        *ops, place = rest
        self.scopes.append({})
        params = [self._buffer(part) for part in (*children(inputs), *children(outputs))]
        dims = tuple(tile.GridDim(dim.name, dim.extent) for dim in self.dims(grid))
        with self.guarded(schedule):
            plan = Schedule.from_json(self.json(child(schedule, 0)))
        block = Block()
        self.ops(block, [op for op in ops if isinstance(op, Tree)])
        self.scopes.pop()
        return tile.Kernel(
            self.name(name)[1:].strip("`"),
            params,
            len(children(outputs)),
            dims,
            block,
            plan,
            tuple(self.name(token) for token in children(symbols)),
            self.location(place),
            {} if notes is None else {key: str(value) for key, value in self.json(child(notes, 0)).items()},
            {self.integer(child(pair, 0)): self.integer(child(pair, 1)) for pair in children(overwrites)},
        )

    def _buffer(self, node: Branch) -> Value:
        name, kind, strides = all_children(node)
        described = self.tensor_type(kind)
        given = () if strides is None else self.indices(strides)
        if strides is not None and len(given) != len(described.shape):
            self.fail(f"{len(given)} strides for rank {len(described.shape)}", strides)
        return self.define(name, BufferType(described.dtype, described.shape, given))
