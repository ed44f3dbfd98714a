"""Which values of a kernel may lie where others lay: what code generators that place tiles by hand ask, and cost models with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from codesign.ir.core import Op, Value
from codesign.ir.index import index
from codesign.ir.tile import Dot, For, Kernel, Map, Reduce


def count_uses(kernel: Kernel) -> dict[Value, int]:
    """How many ops read each value, yields of loops included."""
    counts: dict[Value, int] = {}

    def visit(ops: list[Op]) -> None:
        for op in ops:
            for value in op.operands():
                counts[value] = counts.get(value, 0) + 1
            for block in op.blocks():
                visit(block.ops)
                for value in block.yields:
                    counts[value] = counts.get(value, 0) + 1

    visit(kernel.body.ops)
    return counts


def only_accumulates(
    loop: For, position: int, uses: Mapping[Value, int], adds: Callable[[Dot], bool] = lambda _: True
) -> bool:
    """Whether the carried value is used by nothing but a dot of this block that adds to it (`adds`: whether it does so by itself) and is
    yielded in its place."""
    arg, value = loop.body.args[position], loop.body.yields[position]
    maker = value.owner
    return (
        isinstance(maker, Dot)
        and maker.accumulator is arg
        and maker in loop.body.ops
        and uses[arg] == 1
        and adds(maker)
    )


def in_place(loop: For, position: int) -> bool:
    """Whether the yielded value can be written over the carried one: nothing reads the old value later."""
    arg, value = loop.body.args[position], loop.body.yields[position]
    maker = value.owner
    if maker not in loop.body.ops or loop.body.yields.count(value) > 1 or isinstance(maker, For):
        return False
    when = loop.body.ops.index(maker)
    if any(arg in later.uses() for later in loop.body.ops[when + 1 :]) or arg in loop.body.yields:
        return False
    if not isinstance(maker, Map | Reduce | Dot):
        return False
    if arg not in maker.uses():
        return True
    if isinstance(maker, Dot):
        return maker.accumulator is arg and arg not in (maker.a, maker.b)
    if isinstance(maker, Map):
        own = tuple(index(axis.name) for axis in maker.axes)
        return all(read.indices == own for read in maker.body.reads() if read.source is arg)
    return False
