"""Counting a tile kernel by walking it: bytes, multiply-adds and scalar operations of one program.

What cost models predict from a kernel's summary without lowering it; a test holds the two equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from codesign.ir.core import Block
from codesign.ir.dtypes import DType
from codesign.ir.functions import FUNCTIONS, Unit
from codesign.ir.scalar import Apply, Scalar
from codesign.ir.tile import Axis, Dot, For, Kernel, Load, Map, Reduce, Store
from codesign.ir.types import TileType


@dataclass
class Counts:
    """Work of one program with all lanes active.

    `load_bytes`, `store_bytes`: moved between external memory and the program, each load as often as it is executed. `dot`:
    multiply-adds by dtype of the operands. `operations`: issue slots of element-wise work and reductions, by unit and dtype.
    """

    load_bytes: float = 0.0
    store_bytes: float = 0.0
    dot: dict[str, float] = field(default_factory=dict)
    operations: dict[tuple[Unit, str], float] = field(default_factory=dict)

    def unit(self, *names: Unit) -> float:
        """Issue slots of some units."""
        return sum(slots for (unit, _), slots in self.operations.items() if unit in names)


def count(kernel: Kernel, sizes: Mapping[str, int] | None = None) -> Counts:
    """The counts of one program of a kernel; `sizes` gives the values of its size symbols."""
    total = Counts()
    _block(kernel.body, 1.0, total, dict(sizes or {}))
    return total


def _block(block: Block, times: float, total: Counts, sizes: Mapping[str, int]) -> None:
    for op in block.ops:
        if isinstance(op, For):
            lower, upper, step = (int(i.evaluate(sizes)) for i in (op.lower, op.upper, op.step))
            _block(op.body, times * max(-(-(upper - lower) // step), 0), total, sizes)
        elif isinstance(op, Load):
            total.load_bytes += times * _lanes(op.axes) * op.buffer.type.dtype.bytes
        elif isinstance(op, Store):
            total.store_bytes += times * _lanes(op.axes) * op.buffer.type.dtype.bytes
        elif isinstance(op, Map):
            _scalar(op.body, op.axes, times, total)
        elif isinstance(op, Reduce):
            _scalar(op.body, (*op.axes, *op.reduced), times, total)
            unit: Unit = "fma" if op.monoid in ("sum", "prod") else "alu"
            _add(total, unit, op.body.dtype, times * _lanes((*op.axes, *op.reduced)))
        elif isinstance(op, Dot):
            assert isinstance(op.a.type, TileType)
            assert isinstance(op.b.type, TileType)
            (m, k), n = op.a.type.shape, op.b.type.shape[1]
            name = op.a.type.dtype.name
            total.dot[name] = total.dot.get(name, 0.0) + times * m * n * k


def _scalar(body: Scalar, axes: tuple[Axis, ...], times: float, total: Counts) -> None:
    """Operations of an expression, each node per lane of the axes that it depends on."""
    sizes = {axis.name: axis.size for axis in axes}
    depends: dict[int, frozenset[str]] = {}
    for node in body.walk():
        used = frozenset(v for i in node.index_expressions() for v in i.variables()) & sizes.keys()
        for child in node.children():
            used |= depends[id(child)]
        depends[id(node)] = used
        if isinstance(node, Apply):
            row = FUNCTIONS[node.function]
            if row.unit != "free":
                dtype = node.args[0].dtype if row.result == "bool" else node.dtype
                _add(total, row.unit, dtype, times * row.cost * math.prod(sizes[name] for name in used))


def _add(total: Counts, unit: Unit, dtype: DType, slots: float) -> None:
    total.operations[unit, dtype.name] = total.operations.get((unit, dtype.name), 0.0) + slots


def _lanes(axes: tuple[Axis, ...]) -> int:
    return math.prod(axis.size for axis in axes)
