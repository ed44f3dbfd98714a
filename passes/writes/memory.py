"""Whose memory a value is in, and whether an op may overwrite it."""

from __future__ import annotations

from collections.abc import Mapping

from codesign.ir.core import Block, Module, Op, Value
from codesign.ir.tensor import Compute, Constant, Empty, Fusion, Launch, Random, Scan, Scatter, Sort, While
from codesign.passes.memory import find_aliases

OWN = (Compute, Empty, Fusion, Launch, Random, Scan, Scatter, Sort)
"""Ops whose results are in memory of their own; a call or a branch may give back what it was given."""


class Ownership:
    """What may be overwritten in one block, as its ops are ordered now.

    `updates`: results of the block, by position, that are the new value of an argument (its position) or a constant (its name).
    """

    def __init__(self, block: Block, updates: Mapping[int, int | str]) -> None:
        self.block = block
        self.aliases = find_aliases(block)
        self.place = {op: position for position, op in enumerate(block.ops)}
        self.last: dict[Value, int] = {}
        """The last op that uses a value or another name of its memory; beyond all ops for what the block returns."""
        for position, op in enumerate(block.ops):
            for value in op.uses():
                self.last[self.root(value)] = position
        for value in block.yields:
            self.last[self.root(value)] = len(block.ops)
        self._renewed: dict[Value, Value] = {}
        for position, target in updates.items():
            self._follow(block.yields[position], self.updated(target))

    def root(self, value: Value) -> Value:
        """The first name of a value's memory, reshapes aside."""
        while value in self.aliases:
            value = self.aliases[value]
        return value

    def updated(self, target: int | str) -> Value | None:
        if isinstance(target, int):
            return self.block.args[target]
        constants = (op for op in self.block.ops if isinstance(op, Constant))
        return next((op.result for op in constants if op.constant == target), None)

    def _follow(self, value: Value, target: Value | None) -> None:
        """Note the writes that lead from a tensor of the caller's to its new value."""
        chain: list[Value] = []
        while isinstance(value.owner, Scatter):
            chain.append(value)
            value = self.root(value.owner.init)
        if value is target and target is not None:
            self._renewed.update(dict.fromkeys(chain, target))

    def belongs_to_caller(self, value: Value) -> bool:
        """Whether a value is in memory that was there before the block ran."""
        root = self.root(value)
        return root in self.block.args or root.owner not in self.place or isinstance(root.owner, Constant)

    def renews(self, result: Value) -> bool:
        """Whether a write leads to the new value of one of the caller's tensors."""
        return result in self._renewed

    def may_overwrite(self, op: Scatter) -> bool:
        """Nobody wants the tensor as it was before the write, and it is ours, or the caller's who wants it written."""
        root = self.root(op.init)
        if self.last[root] > self.place[op]:
            return False
        if self.belongs_to_caller(root):
            return self._renewed.get(op.result) is root
        return isinstance(root.owner, OWN)


def updates_of(module: Module, block: Block) -> Mapping[int, int | str]:
    """What the results of a block update: those of a function, of its body; the carried values, of a loop's body; none, of a branch."""
    for function in module.functions.values():
        if function.body is block:
            return function.updates
        if any(isinstance(op, While) and op.body is block for op in function.body.walk()):
            return {position: position for position in range(len(block.args))}
    return {}


def first_place(value: Value, place: Mapping[Op, int]) -> int:
    """The position of the op of a block that makes a value; -1 for what comes from outside."""
    return -1 if value.owner is None else place.get(value.owner, -1)
