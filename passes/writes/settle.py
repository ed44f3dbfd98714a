"""The pass that decides how each write into a part of a tensor is made, before anything is simplified or fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Op, Value
from codesign.ir.tensor import Scatter
from codesign.passes.cleanup import remove_dead
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register
from codesign.passes.writes.chosen import Places, chosen
from codesign.passes.writes.dense import dense
from codesign.passes.writes.flatten import flatten_writes
from codesign.passes.writes.memory import Ownership, updates_of

CHAIN = 4
"""Writes into one intermediate, one after the other, from which on they are made in its memory: fewer are as cheap as selects in the kernel
that makes it, which fuses with what reads it."""


@register
@dataclass(frozen=True)
class SettleWrites(FunctionPass, Pass):
    """Make writes into a part of a tensor selects over all of it, but for those that can be made in the tensor's own memory.

    In memory: writes into inputs, buffers and weights that the model updates, and long chains of writes into one intermediate, as long as
    nobody reads the old value afterwards; and writes whose points neither form a box nor are one, or few, of each row.
    """

    name: ClassVar[str] = "settle-writes"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        if not any(isinstance(op, Scatter) for op in block.ops):
            return
        flatten_writes(block, module.bounds())
        remove_dead(block)
        owned = Ownership(block, updates_of(module, block))
        places = Places(block)
        lengths = _chains(block)
        mapping: dict[Value, Value] = {}
        ops: list[Op] = []
        for op in block.ops:
            new: Op | None = op
            if isinstance(op, Scatter) and any(dim.extent == 0 for dim in op.dims):
                mapping[op.result] = mapping.get(op.init, op.init)
                continue
            if isinstance(op, Scatter):
                select = dense(op, module.bounds()) or chosen(op, module.bounds(), places)
                in_memory = owned.may_overwrite(op) and (owned.renews(op.result) or lengths[op] >= CHAIN)
                whole = select is not None and op.init not in select.operands()
                new = op if in_memory and not whole else select
            if new is None:
                new = op
            if mapping:
                new.replace(mapping)
            if new is not op:
                mapping[op.result] = new.result
            ops.append(new)
        block.ops = ops
        block.yields = tuple(mapping.get(value, value) for value in block.yields)


def _chains(block: Block) -> dict[Op, int]:
    """How many writes the longest chain has that goes through each."""
    before: dict[Op, int] = {}
    after: dict[Op, int] = {}
    scatters = [op for op in block.ops if isinstance(op, Scatter)]
    for op in scatters:
        before[op] = before.get(op.init.owner, 0) + 1 if isinstance(op.init.owner, Scatter) else 1
    for op in reversed(scatters):
        if isinstance(op.init.owner, Scatter):
            after[op.init.owner] = max(after.get(op.init.owner, 0), after.get(op, 0) + 1)
    return {op: before[op] + after.get(op, 0) for op in scatters}
