"""Builds what operations are made of from parse trees: types, dims, axes, blocks, attributes, locations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from lark import Token, Tree

from codesign.ir import tensor, tile
from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import DTYPES, DType
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.text.expressions import Branch, ExpressionBuilder, Node
from codesign.ir.types import TensorType


class Builder(ExpressionBuilder):
    """Builds blocks of operations; `rules` says how each kind of operation is built from its tree."""

    rules: ClassVar[Mapping[str, Rule]] = {}

    def define(self, token: Branch, kind: Any, value: Value | None = None) -> Value:
        assert isinstance(token, Token)
        if token[1:] in self.scopes[-1]:
            self.fail(f"{token} is defined twice", token)
        made = Value(kind, token[1:]) if value is None else value
        self.scopes[-1][token[1:]] = made
        return made

    def values(self, node: Branch) -> tuple[Value, ...]:
        return tuple(self.lookup(token) for token in children(node) if isinstance(token, Token))

    def tensor_type(self, node: Branch) -> TensorType:
        dtype, shape = all_children(node)
        return TensorType(DTYPES[str(dtype)], self.indices(shape))

    def types(self, node: Branch) -> list[TensorType]:
        return [self.tensor_type(part) for part in children(node)]

    def dims(self, node: Branch) -> tuple[tensor.Dim, ...]:
        dims: list[tensor.Dim] = []
        for part in children(node):
            name, extent = all_children(part)
            dims.append(tensor.Dim(self.name(name), self.index(extent)))
        return tuple(dims)

    def axes(self, parts: Iterable[Branch]) -> tuple[tile.Axis, ...]:
        return tuple(tile.Axis(self.name(child(part, 0)), self.index(child(part, 1))) for part in parts if part)

    def dtype(self, token: Branch) -> DType:
        return DTYPES[str(token)]

    def location(self, node: Branch) -> Location:
        return UNKNOWN if node is None else self._place(child(node, 0))

    def _place(self, node: Branch) -> Location:
        assert isinstance(node, Tree)
        if node.data == "fused":
            return Location(parts=tuple(self._place(part) for part in children(node)))
        file, line, module, origin = node.children
        return Location(
            "" if file is None else self.string(file),
            0 if line is None else self.integer(line),
            "" if module is None else self.string(module),
            "" if origin is None else self.string(origin),
        )

    def json(self, node: Branch) -> Any:
        assert isinstance(node, Tree)
        with self.guarded(node):
            kind, parts = str(node.data), [part for part in node.children if part is not None]
            if kind == "object":
                return {self.string(child(part, 0)): self.json(child(part, 1)) for part in parts}
            if kind == "sequence":
                return [self.json(part) for part in parts]
            return self._plain(node)

    def datum(self, node: Branch) -> Any:
        """An attribute's value: sequences are tuples."""
        assert isinstance(node, Tree)
        with self.guarded(node):
            if node.data == "sequence":
                return tuple(self.datum(part) for part in node.children if part is not None)
            return self._plain(node)

    def _plain(self, node: Node) -> bool | int | float | str | None:
        kind = str(node.data)
        if kind == "text":
            return self.string(node.children[0])
        if kind == "integer":
            return self.signed(node)
        if kind == "real":
            value = float(str(node.children[1]))
            return value if node.children[0] is None else -value
        return {"true": True, "false": False, "none": None}[kind]

    def signed(self, node: Branch) -> int:
        sign, digits = all_children(node)
        return self.integer(digits) if sign is None else -self.integer(digits)

    def ops(self, block: Block, nodes: Iterable[Node]) -> None:
        for node in nodes:
            results, operation, place = node.children
            assert isinstance(operation, Tree)
            names = [str(token)[1:] for token in children(results)]
            with self.guarded(operation):
                op = self.rules[str(operation.data)](self, operation, names)
                op.location = self.location(place)
            if len(op.results) != len(names):
                self.fail(f"{op.opcode} has {len(op.results)} results, {len(names)} are named", node)
            for token, value in zip(children(results), op.results, strict=True):
                value.name = str(token)[1:]
                self.define(token, value.type, value)
            block.ops.append(op)

    def block(self, node: Branch, args: Iterable[tuple[Branch, Value]] = ()) -> Block:
        *ops, values = children(node)
        self.scopes.append({})
        block = Block()
        for token, like in args:
            block.args.append(self.define(token, like.type))
        self.ops(block, [op for op in ops if isinstance(op, Tree)])
        block.yields = self.values(values)
        self.scopes.pop()
        return block

    def bindings(self, node: Branch) -> list[tuple[Branch, Value]]:
        pairs: list[tuple[Branch, Value]] = []
        for part in children(node):
            inner, outer = all_children(part)
            assert isinstance(outer, Token)
            pairs.append((inner, self.lookup(outer)))
        return pairs

    def one_of(self, token: Branch, allowed: Iterable[str], what: str) -> Any:
        """A word that must be one of a few."""
        word = self.name(token)
        known = list(allowed)
        if word not in known:
            self.fail(f"unknown {what} {word!r}, known: {', '.join(known)}", token)
        return word

    def value(self, token: Branch) -> Value:
        assert isinstance(token, Token)
        return self.lookup(token)


Rule = Callable[[Any, Node, list[str]], Op]
"""Builds an operation: the builder, the operation's tree, names for its results."""


def children(node: Branch) -> list[Branch]:
    """The children that are there."""
    return [] if node is None else [part for part in all_children(node) if part is not None]


def all_children(node: Branch) -> list[Branch]:
    """The children, None for optional ones that are not there."""
    assert isinstance(node, Tree)
    return list(node.children)


def child(node: Branch, position: int) -> Branch:
    return all_children(node)[position]
