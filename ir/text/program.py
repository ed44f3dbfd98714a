"""Text of accelerator programs: `print_program` and `parse_program`, which undo each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import cast

import lark

from codesign.ir.errors import CodesignError, ParseError
from codesign.ir.program import (
    Program,
)
from codesign.ir.text.program_builder import ProgramBuilder
from codesign.ir.text.program_printer import print_program

__all__ = ["parse_program", "parse_programs", "print_program"]


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
        for token in tree.scan_values(lambda value: isinstance(value, lark.Token) and value.type == "INT"):
            digits, _, kind = token.partition("_")
            negative = text[: token.start_pos].endswith("-")
            if int(digits[:40]) - negative >= 2 ** (63 if kind[:1] in ("", "i") else 64):
                raise fail(f"{digits[:40]} does not fit into 64 bits", token.line or 1, token.column or 1)
        return cast(list[Program], ProgramBuilder().transform(tree))
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
