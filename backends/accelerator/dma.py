"""What a DMA transfer costs: how much of it is active, in what pieces it lies in memory, and how many descriptors it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from codesign.costmodel.dataflow.runs import places_along, walk_of
from codesign.costmodel.dataflow.target import Target
from codesign.ir.core import Value
from codesign.ir.index import Index, Var, index
from codesign.ir.interpreter.scalars import Span
from codesign.ir.tile import Axis, Guard
from codesign.ir.types import BufferType, TileType

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Transfer:
    """One transfer: `bytes` that are wanted, `moved` whole lines of memory, `clocks` of the core's DMA engine."""

    bytes: float
    moved: float
    clocks: float


class TransferShape:
    """The strides of one DMA instruction, from which its cost follows by the number of active lanes along each axis.

    An axis that the address is not linear in is walked by its digits (`runs.walk_of`), for which the values of `controls` must be
    known; where it depends on data each of its points is an address of its own.
    """

    def __init__(self, memory: Value, indices: tuple[Index, ...], axes: tuple[Axis, ...], target: Target) -> None:
        kind = memory.type
        assert isinstance(kind, BufferType | TileType)
        self.bytes_each = kind.dtype.bytes
        self.axes = axes
        self.target = target
        self.address = index(0)
        for expression, step in zip(indices, _strides(kind), strict=True):
            self.address = self.address + expression * step
        self.full = tuple(axis.size for axis in axes)
        names = {axis.name for axis in axes}
        self.strides: list[int | None] = []
        self.controls: tuple[str, ...] = ()
        for axis in axes:
            factor = self.address.coefficient(axis.name)
            plain = factor is not None and factor.is_constant
            self.strides.append(abs(factor.constant) if plain and factor is not None else None)
        if None in self.strides and not self.address.data():
            curved = [m for m, _ in self.address.terms if not all(isinstance(atom, Var) for atom in m)]
            inside = {name for m in curved for atom in m for name in Index.atom(atom).variables()}
            self.controls = tuple(sorted(inside - names))
        self.known: dict[tuple[Counts, tuple[int, ...]], Transfer] = {}

    def cost(self, counts: Counts, values: Mapping[str, int] | None = None) -> Transfer:
        """Cost with so many active lanes along each axis."""
        controls = tuple((values or {}).get(name, 0) for name in self.controls)
        key = (counts, controls)
        if key not in self.known:
            self.known[key] = self._cost(counts, dict(zip(self.controls, controls, strict=True)))
        return self.known[key]

    def _cost(self, counts: Counts, values: Mapping[str, int]) -> Transfer:
        points = prod(counts)
        if points == 0:
            return Transfer(0.0, 0.0, self.target.dma_setup_clocks)
        run, pieces = 1.0, 1.0
        dims: list[float] = []
        moves: list[tuple[int, float]] = []
        for stride, count, axis in zip(self.strides, counts, self.axes, strict=True):
            if stride is not None:
                moves.append((stride, count))
                continue
            places = places_along(self.address, axis.name, count, values)
            if places is None:
                pieces *= count
            else:
                moves += walk_of(places)
        for stride, many in sorted(moves, key=lambda move: (move[0], -move[1])):
            if many > 1 and stride == run:
                run *= many
            elif many > 1 and stride:
                dims.append(many)
                pieces *= many
        descriptors = prod(dims[max(self.target.descriptor_dims - 1, 1) :])
        beats = np.ceil(run * self.bytes_each / self.target.dma_bytes_per_clock)
        line = self.target.dram.line_bytes
        moved = pieces * np.ceil(run * self.bytes_each / line) * line
        clocks = descriptors * self.target.dma_setup_clocks + pieces * beats
        return Transfer(points * self.bytes_each, float(moved), float(clocks))


def _strides(kind: BufferType | TileType) -> tuple[int, ...]:
    if isinstance(kind, BufferType):
        return tuple(stride.constant for stride in kind.strides)
    return tuple(prod(kind.shape[i + 1 :]) for i in range(len(kind.shape)))


def clipping(axes: Sequence[Axis], guards: Sequence[Guard]) -> Callable[[Mapping[str, int]], list[Span]] | None:
    """A function from the control processor's values to the active lanes along each axis.

    None when some guard depends on data, or on several axes at once in a way that is not a box; then the lanes have to be counted.
    """
    positions = {axis.name: i for i, axis in enumerate(axes)}
    sizes = [axis.size for axis in axes]
    rules: list[tuple[int, int, Index, Index | None, Index | None]] = []
    for guard in guards:
        if any(side.data() for side in guard.sides):
            return None
        inside = [name for name in positions if name in guard.value.variables()]
        outside = {v for side in (guard.low, guard.high) if side is not None for v in side.variables()}
        if len(inside) > 1 or outside & positions.keys():
            return None
        if not inside:
            rules.append((-1, 0, guard.value, guard.low, guard.high))
            continue
        factor = guard.value.coefficient(inside[0])
        if factor is None or not factor.is_constant or factor.constant == 0:
            return None
        rest = guard.value.substitute({inside[0]: 0})
        rules.append((positions[inside[0]], factor.constant, rest, guard.low, guard.high))

    def clip(values: Mapping[str, int]) -> list[Span]:
        lows, highs = [0] * len(sizes), list(sizes)
        for position, factor, rest, low, high in rules:
            base = rest.evaluate(values)
            least = None if low is None else low.evaluate(values) - base
            limit = None if high is None else high.evaluate(values) - base
            if position < 0:
                if (least is not None and least > 0) or (limit is not None and limit <= 0):
                    return [Span("", 0, 0)] * max(len(sizes), 1)
                continue
            if factor < 0:  # low <= f*x < high  <=>  -high < -f*x <= -low
                factor, least, limit = (
                    -factor,
                    None if limit is None else 1 - limit,
                    None if least is None else 1 - least,
                )
            if least is not None:
                lows[position] = max(lows[position], -(-least // factor))
            if limit is not None:
                highs[position] = min(highs[position], -(-limit // factor))
        return [Span(axis.name, low, high) for axis, low, high in zip(axes, lows, highs, strict=True)]

    return clip


def memory_order(axes: tuple[Axis, ...], indices: tuple[Index, ...], buffer: Value) -> tuple[int, ...]:
    """Positions of the axes by falling stride in memory, so that what is contiguous there is contiguous in scratchpad."""
    kind = buffer.type
    assert isinstance(kind, BufferType)

    def stride(axis: Axis) -> int:
        total = 0
        for expression, step in zip(indices, kind.strides, strict=True):
            factor = expression.coefficient(axis.name)
            if factor is None or not factor.is_constant:
                return 1 << 62
            total += factor.constant * step.constant
        return abs(total)

    return tuple(sorted(range(len(axes)), key=lambda i: -stride(axes[i])))
