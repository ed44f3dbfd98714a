"""Builds index and scalar expressions from parse trees, and what both need: positions for errors and names in scope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lark import Token, Tree

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, DTYPES, F32, I64, DType
from codesign.ir.errors import CodesignError, ParseError
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Datum, Index, index, maximum, minimum
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply

Node = Tree[Token]
Branch = Node | Token | None

MAX_DEPTH = 80
"""How deep expressions and regions may nest; the printer names parts by `let` long before that."""

_INFIX = {row.symbol: row.name for row in FUNCTIONS.values() if row.symbol}


class Source:
    """The text being parsed, for errors with their place."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.lines = text.split("\n")

    def error(self, message: str, line: int, column: int) -> ParseError:
        """A ParseError at a place (both count from 1)."""
        found = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return ParseError(message, file=self.file, line=line, column=column, source_line=found.rstrip("\r"))


class ExpressionBuilder:
    """Turns expression trees into Index and Scalar objects; values are looked up in the scopes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.scopes: list[dict[str, Value]] = []
        self.lets: dict[str, Scalar] = {}
        self._depth = 0
        self._near: Branch = None

    # -- errors and names ---------------------------------------------------------------------------------------------
    def fail(self, message: str, at: Branch) -> NoReturn:
        """Raise a ParseError at a token or tree."""
        line, column = _position(at) or _position(self._near) or (1, 1)
        raise self.source.error(message, line, column)

    @contextmanager
    def guarded(self, at: Branch) -> Iterator[None]:
        """Turn errors of constructors into ParseErrors at this place, and limit how deep things nest."""
        self._depth += 1
        if _position(at):
            self._near = at
        try:
            if self._depth > MAX_DEPTH:
                self.fail("nested too deeply", at)
            yield
        except ParseError:
            raise
        except CodesignError as error:
            self.fail(error.message, at)
        except (ValueError, TypeError, ZeroDivisionError, OverflowError, AttributeError) as error:
            self.fail(str(error), at)
        finally:
            self._depth -= 1

    def lookup(self, token: Token) -> Value:
        """The value of this name in the innermost scope that has it."""
        found = next((scope[token[1:]] for scope in reversed(self.scopes) if token[1:] in scope), None)
        if found is None:
            self.fail(f"{token} is not defined", token)
        return found

    # -- tokens -------------------------------------------------------------------------------------------------------
    def name(self, token: Branch) -> str:
        """An identifier, without its back-quotes."""
        return str(token).strip("`")

    def integer(self, token: Branch) -> int:
        """A natural number."""
        with self.guarded(token):
            return int(str(token))

    def string(self, token: Branch) -> str:
        """The content of a string literal."""
        with self.guarded(token):
            return str(json.loads(str(token)))

    # -- index expressions --------------------------------------------------------------------------------------------
    def index(self, node: Branch) -> Index:
        """An index expression."""
        assert isinstance(node, Tree)
        with self.guarded(node):
            kind, parts = str(node.data), node.children
            if kind == "index_int":
                return index(self.integer(parts[0]))
            if kind == "index_name":
                return index(self.name(parts[0]))
            if kind == "index_neg":
                return -self.index(parts[0])
            if kind == "index_read":
                return Index.atom(Datum(self._read(parts[0], parts[1], None)))
            if kind == "index_data":
                return Index.atom(Datum(self.scalar(parts[0])))
            if kind == "index_extremum":
                function = self.name(parts[0])
                if function not in ("min", "max"):
                    self.fail(f"unknown function {function!r} of an index; min and max are known", parts[0])
                args = [self.index(part) for part in parts[1:]]
                return minimum(*args) if function == "min" else maximum(*args)
            left, right = self.index(parts[0]), self.index(parts[1])
            if kind == "index_add":
                return left + right
            if kind == "index_sub":
                return left - right
            if kind == "index_mul":
                return left * right
            return left // right if kind == "index_floordiv" else left % right

    def indices(self, node: Branch) -> tuple[Index, ...]:
        """A bracketed list of index expressions."""
        assert isinstance(node, Tree)
        return tuple(self.index(part) for part in node.children if part is not None)

    # -- scalar expressions -------------------------------------------------------------------------------------------
    def body(self, node: Branch) -> Scalar:
        """`{ let a = ...; expression }`."""
        assert isinstance(node, Tree)
        outer, self.lets = self.lets, {}
        for part in node.children[:-1]:
            assert isinstance(part, Tree)
            name = self.name(part.children[0])
            if name in self.lets:
                self.fail(f"{name} is defined twice", part.children[0])
            self.lets[name] = self.scalar(part.children[1])
        result = self.scalar(node.children[-1])
        self.lets = outer
        return result

    def scalar(self, node: Branch) -> Scalar:
        """A scalar expression."""
        assert isinstance(node, Tree)
        with self.guarded(node):
            kind, parts = str(node.data), node.children
            if kind == "infix":
                left, right = self.scalar(parts[0]), self.scalar(parts[2])
                with self.guarded(parts[1]):
                    return apply(_INFIX[str(parts[1])], left, right)
            if kind == "plain_number":
                return self.number(node)
            if kind == "negate":
                inner = parts[0]
                if isinstance(inner, Tree) and inner.data == "plain_number":
                    return self.number(inner, negative=True)
                return apply("neg", self.scalar(inner))
            if kind == "scalar_name":
                name = self.name(parts[0])
                return self.lets[name] if name in self.lets else IndexValue(name)
            if kind == "function_call":
                function = self.name(parts[0])
                bits_as = DTYPES.get(function.removeprefix("bitcast_")) if function.startswith("bitcast_") else None
                if bits_as is not None:
                    return Apply("bitcast", tuple(self.scalar(part) for part in parts[1:] if part is not None), bits_as)
                if function not in FUNCTIONS or function in ("cast", "bitcast"):
                    self.fail(f"unknown scalar function {function!r}", parts[0])
                args = [self.scalar(part) for part in parts[1:] if part is not None]
                return apply(function, *args)
            if kind == "cast":
                return Apply("cast", (self.scalar(parts[1]),), DTYPES[str(parts[0])])
            if kind == "index_value":
                return IndexValue(self.index(parts[1]), I64 if parts[0] is None else DTYPES[str(parts[0])])
            if kind == "read":
                return self._read(parts[0], parts[1], parts[2])
            raise TypeError(f"unexpected {kind} in an expression")

    def _read(self, value: Branch, indices: Branch, fallback: Branch) -> Read:
        assert isinstance(value, Token)
        source = self.lookup(value)
        places = self.indices(indices)
        if len(places) != len(source.type.extents):
            self.fail(f"{value} has rank {len(source.type.extents)}, read with {len(places)} indices", value)
        otherwise = None if fallback is None else self.scalar(fallback)
        if otherwise is not None and otherwise.dtype is not source.type.dtype:
            self.fail(f"else gives {otherwise.dtype} where {value} holds {source.type.dtype}", fallback)
        return Read(source, places, otherwise)

    def number(self, node: Branch, negative: bool = False) -> Literal:
        """A literal with an optional dtype; `1.0` is f32, `1` is i64."""
        assert isinstance(node, Tree)
        with self.guarded(node):
            token, suffix = node.children
            assert isinstance(token, Token)
            integral, truth = token.type == "INT", token.type in ("TRUE", "FALSE")
            dtype: DType = BOOL if truth else I64 if integral else F32
            if suffix is not None:
                dtype = DTYPES[str(suffix)]
            if truth:
                if dtype is not BOOL or negative:
                    self.fail(f"{token} is a bool", node)
                return Literal(token.type == "TRUE", BOOL)
            if dtype.is_float:
                value = float(token)
                return Literal(-value if negative else value, dtype)
            if not integral:
                self.fail(f"{token} is not a value of {dtype}", node)
            whole = -int(token) if negative else int(token)
            if dtype is BOOL and whole not in (0, 1):
                self.fail(f"{whole} is not a value of bool", node)
            return Literal(whole, dtype)


def _position(at: Branch) -> tuple[int, int] | None:
    if isinstance(at, Token) and at.line is not None and at.column is not None:
        return at.line, at.column
    if isinstance(at, Tree) and not at.meta.empty:
        return at.meta.line, at.meta.column
    return None
