"""Values that loops carry: which of them need no name of their own."""

from __future__ import annotations

from collections import Counter

from codesign.ir.core import Block, Value
from codesign.ir.tile import For, Kernel


def seeds(kernel: Kernel) -> set[Value]:
    """Values that do nothing but start one loop beside them: the loop goes on under their name."""
    uses = Counter(v for op in kernel.body.walk() for v in (op.initial if isinstance(op, For) else op.operands()))
    found: set[Value] = set()

    def visit(block: Block) -> None:
        uses.update(block.yields)
        here = {value for op in block.ops for value in op.results}
        for op in block.ops:
            for inner in op.blocks():
                visit(inner)
            if isinstance(op, For):
                found.update(v for v in op.initial if v in here and not isinstance(v.owner, For))

    visit(kernel.body)
    return {value for value in found if uses[value] == 1}


def assignable(body: Block, names: dict[Value, str]) -> dict[Value, str]:
    """Results that may be written straight to the carried value's name: nothing later reads the old value."""
    found: dict[Value, str] = {}
    for argument, result in zip(body.args, body.yields, strict=True):
        if body.yields.count(result) > 1 or argument in body.yields:
            continue
        position = next((i for i, op in enumerate(body.ops) if result in op.results), None)
        if position is None or isinstance(body.ops[position], For):
            continue
        if not any(argument in op.uses() for op in body.ops[position + 1 :]):
            found[result] = names[argument]
    return found
