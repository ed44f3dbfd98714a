"""Counting what a kernel does by going through one program step by step: the oracle of what is read off its text."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from codesign.ir.core import Block, Op, Value
from codesign.ir.functions import FUNCTIONS
from codesign.ir.scalar import Apply, Literal, Scalar
from codesign.ir.tile import Axis, Dot, For, Kernel, Load, Map, Reduce, Store
from codesign.ir.types import TileType


@dataclass
class Counted:
    """Totals of one program, all lanes active."""

    moved: Counter[str] = field(default_factory=Counter)
    products: Counter[str] = field(default_factory=Counter)
    slots: Counter[tuple[str, str]] = field(default_factory=Counter)
    trips: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    reductions: int = 0
    live_bytes: int = 0


class Stepper:
    """Goes through a program, holding what lives."""

    def __init__(self, kernel: Kernel, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.total = Counted()
        self.held: dict[Value, int] = {}
        self.block(kernel.body, frozenset())

    def block(self, block: Block, outside: frozenset[Value]) -> None:
        """Its ops once; `outside`: values that are needed after it or in its next step."""
        for position, op in enumerate(block.ops):
            later = {v for other in block.ops[position + 1 :] for v in other.uses()} | set(block.yields) | outside
            if isinstance(op, For):
                self.loop(op, frozenset(later))
            else:
                self.op(op)
            self.held.update({value: _size(value) for value in op.results})
            self.peak()
            for value in [v for v in self.held if v not in later]:
                del self.held[value]

    def loop(self, op: For, later: frozenset[Value]) -> None:
        low, high, step = (int(i.evaluate(self.sizes)) for i in (op.lower, op.upper, op.step))
        for value in op.initial:
            if value not in later:
                self.held.pop(value, None)
        needed = frozenset({*later, *op.body.free_values()})
        for _ in range(low, high, step):
            self.total.trips[op.variable] += 1
            self.held.update({value: _size(value) for value in op.body.args})
            self.block(op.body, needed)
            for value in op.body.yields:
                self.held.pop(value, None)

    def peak(self) -> None:
        self.total.live_bytes = max(self.total.live_bytes, sum(self.held.values()))

    def op(self, op: Op) -> None:
        if isinstance(op, (Load, Store)):
            lanes = _lanes(op.axes)
            kind = "load" if isinstance(op, Load) else "store"
            self.total.moved[kind] += lanes * int(op.buffer.type.dtype.bytes)
            self.total.masks += lanes * sum(s is not None for g in op.guards for s in (g.low, g.high))
        elif isinstance(op, Map):
            self.scalar(op.body, op.axes)
        elif isinstance(op, Reduce):
            axes = (*op.axes, *op.reduced)
            self.scalar(op.body, axes)
            self.total.reductions += 1
            unit = "fma" if op.monoid in ("sum", "prod") else "alu"
            self.total.slots[unit, op.body.dtype.name] += _lanes(axes)
        elif isinstance(op, Dot):
            a, b = op.a.type, op.b.type
            assert isinstance(a, TileType)
            assert isinstance(b, TileType)
            self.total.products[a.dtype.name] += a.shape[0] * a.shape[1] * b.shape[1]

    def scalar(self, body: Scalar, axes: Iterable[Axis]) -> None:
        sizes = {axis.name: axis.size for axis in axes}
        for node in dict.fromkeys(body.walk()):  # what is written twice is done once
            if isinstance(node, Apply) and FUNCTIONS[node.function].unit != "free":
                row = FUNCTIONS[node.function]
                dtype = node.args[0].dtype if row.result == "bool" else node.dtype
                points = math.prod(size for name, size in sizes.items() if name in _names(node))
                product = node.function == "div" and isinstance(
                    node.args[1], Literal
                )  # with the reciprocal of a constant
                unit, cost = ("fma", 1.0) if product else (row.unit, row.cost)
                self.total.slots[unit, dtype.name] += cost * points  # type: ignore[assignment]


def count(kernel: Kernel, sizes: Mapping[str, int] | None = None) -> Counted:
    """The totals of one program of a kernel, in the mean where they differ; `sizes` gives the values of its size symbols."""
    limits = (limit for op in kernel.body.walk() if isinstance(op, For) for limit in (op.lower, op.upper))
    follow = {name for limit in limits for name in limit.variables()}
    along = [dim for dim in kernel.grid if dim.name in follow]
    programs = itertools.product(*(range(int(dim.extent.evaluate(sizes or {}))) for dim in along))
    every = [
        Stepper(kernel, {**(sizes or {}), **{d.name: i for d, i in zip(along, p, strict=True)}}).total for p in programs
    ]
    return every[0] if len(every) == 1 else _mean(every)


def _mean(every: list[Counted]) -> Counted:
    found = Counted(live_bytes=max(one.live_bytes for one in every))
    for part in ("moved", "products", "slots", "trips"):
        total: Counter[Any] = sum((getattr(one, part) for one in every), Counter())
        setattr(found, part, Counter({key: number / len(every) for key, number in total.items()}))
    found.masks = sum(one.masks for one in every) / len(every)  # type: ignore[assignment]
    found.reductions = sum(one.reductions for one in every) / len(every)  # type: ignore[assignment]
    return found


def _names(node: Scalar) -> set[str]:
    names = {v for i in node.index_expressions() for v in i.variables()}
    for child in node.children():
        names |= _names(child)
    return names


def _size(value: Value) -> int:
    assert isinstance(value.type, TileType)
    return math.prod(value.type.shape) * int(value.type.dtype.bytes)


def _lanes(axes: Iterable[Axis]) -> int:
    return math.prod(axis.size for axis in axes)
