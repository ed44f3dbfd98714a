"""Rules of the tile level: kernels and their ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from codesign.ir import tile
from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import BOOL
from codesign.ir.errors import VerificationError
from codesign.ir.index import Bounds, Index, index
from codesign.ir.numerics import Array
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import MONOIDS
from codesign.ir.types import BufferType, TileType
from codesign.ir.verify.expressions import check_dtype, check_index, check_inside, check_scalar, fail, same_types


class KernelVerifier:
    """Checks one kernel."""

    def __init__(self, kernel: tile.Kernel, bounds: Bounds) -> None:
        self.kernel = kernel
        self.bounds = bounds
        self.loops: dict[str, Sequence[int] | None] = {}

    def run(self) -> None:
        """The whole kernel; VerificationError names it."""
        kernel = self.kernel
        if not 0 <= kernel.outputs <= len(kernel.params):
            self._fail(f"has {kernel.outputs} outputs among {len(kernel.params)} parameters")
        symbols = frozenset(kernel.symbols)
        if len(symbols) != len(kernel.symbols):
            self._fail("names a size symbol twice")
        for value in kernel.params:
            kind = value.type
            if not isinstance(kind, BufferType):
                self._fail(f"parameter %{value.name} is {kind}, must be a buffer")
            if len(kind.strides) != len(kind.shape):
                self._fail(f"%{value.name} has {len(kind.strides)} strides for rank {len(kind.shape)}")
            self._sizes([*kind.shape, *kind.strides], symbols, f"buffer %{value.name}")
        self._sizes([dim.extent for dim in kernel.grid], symbols, "the grid")
        names = [dim.name for dim in kernel.grid]
        if len(set(names)) != len(names):
            self._fail("names a grid dim twice")
        for dim in kernel.grid:
            self.loops[dim.name] = range(dim.extent.constant) if dim.extent.is_constant else None
        self._bands()
        self.block(kernel.body, set(kernel.params), set())
        if kernel.body.yields or kernel.body.args:
            self._fail("its body takes and yields nothing")

    def _fail(self, message: str) -> NoReturn:
        raise VerificationError(f"kernel @{self.kernel.name}: {message}", place=self.kernel.location)

    def _bands(self) -> None:
        """Bands share out the programs: each begins where the one before ends, and the last ends where the grid does."""
        bands = [op for op in self.kernel.body.walk() if isinstance(op, tile.Band)]
        if not bands:
            return
        if bands != self.kernel.body.ops:
            self._fail("has bands of programs and other ops beside or around them")
        if len(self.kernel.grid) != 1:
            self._fail(f"has bands of programs on a grid of {len(self.kernel.grid)} dims, must be one")
        ends = [*(band.end for band in bands)]
        for band, begin in zip(bands, [index(0), *ends], strict=False):
            if band.first != begin and (band.first - begin).simplify(self.bounds) != 0:
                fail(band, f"begins at program {band.first}, must be {begin}")
        total = self.kernel.grid[0].extent
        if ends[-1] != total and (ends[-1] - total).simplify(self.bounds) != 0:
            self._fail(f"its bands end at program {ends[-1]} of {total}")

    def _sizes(self, sizes: Sequence[Index], symbols: frozenset[str], what: str) -> None:
        for size in sizes:
            unknown = sorted(size.variables() - symbols)
            if unknown:
                self._fail(f"{what} uses {unknown[0]!r}, which is not among its symbols({', '.join(sorted(symbols))})")

    def block(self, block: Block, defined: set[Value], extra: set[Value]) -> None:
        """The ops in order; `extra` are the block's own arguments."""
        inner = defined | extra
        for op in block.ops:
            for value in op.operands():
                if value not in inner:
                    fail(op, f"uses %{value.name}, which is not defined before it")
            rule = _RULES.get(type(op))
            if rule is None:
                fail(op, "is not an op of the tile level")
            rule(self, op, inner)
            for value in op.results:
                if value in inner:
                    fail(op, f"%{value.name} is defined twice")
                if not isinstance(value.type, TileType):
                    fail(op, f"%{value.name} is a {value.type}, must be a tile")
                inner.add(value)
        for value in block.yields:
            if value not in inner:
                self._fail(f"%{value.name} is yielded but not defined")

    # -- pieces -------------------------------------------------------------------------------------------------------
    def names(self, axes: Sequence[tile.Axis]) -> frozenset[str]:
        """What index expressions may use."""
        return frozenset({*self.kernel.symbols, *self.loops, *(axis.name for axis in axes)})

    def axes(self, op: Op, axes: Sequence[tile.Axis]) -> None:
        """Different names, none in use by a loop, positive sizes."""
        names = [axis.name for axis in axes]
        for axis in axes:
            if names.count(axis.name) > 1:
                fail(op, f"axis {axis.name!r} appears twice")
            if axis.name in self.loops or axis.name in self.kernel.symbols:
                fail(op, f"axis {axis.name!r} has the name of a loop, grid dim or size symbol")
            if axis.extent.is_constant and axis.size < 1:
                fail(op, f"axis {axis.name!r} has size {axis.size}")
            unknown = sorted(axis.extent.variables() - frozenset(self.kernel.symbols))
            if unknown:
                fail(op, f"axis {axis.name!r} has a size of {unknown[0]!r}, which is not among the kernel's symbols")

    def body(self, op: Op, scalar: Scalar, axes: Sequence[tile.Axis]) -> None:
        """A body that reads tiles by axis names."""
        sizes = {axis.name: axis.extent for axis in axes}

        def read(node: Read) -> None:
            kind = node.source.type
            if not isinstance(kind, TileType):
                fail(op, f"reads %{node.source.name}, which is a {kind}; load it first")
            if len(node.indices) != len(kind.extents):
                fail(op, f"reads %{node.source.name} of rank {len(kind.extents)} with {len(node.indices)} indices")
            for expression, size in zip(node.indices, kind.extents, strict=True):
                name = expression.variable
                if name is None or name not in sizes:
                    fail(op, f"reads %{node.source.name} at {expression}; tiles are read by bare axis names")
                if sizes[name] != size:
                    fail(
                        op, f"reads %{node.source.name} along {name}, {sizes[name]} long, where the tile is {size} long"
                    )

        check_scalar(op, scalar, self.names(axes), read)

    def access(self, op: tile.Load | tile.Store) -> None:
        """Indices and guards of a load or store."""
        kind = op.buffer.type
        if not isinstance(kind, BufferType):
            fail(op, f"%{op.buffer.name} is a {kind}, must be a buffer")
        if len(op.indices) != len(kind.shape):
            fail(op, f"accesses %{op.buffer.name} of rank {len(kind.shape)} with {len(op.indices)} indices")
        self.axes(op, op.axes)
        names = self.names(op.axes)
        sides = [side for g in op.guards for side in g.sides]
        for expression in (*op.indices, *sides):
            check_index(op, expression, names)
            for scalar in expression.data():
                self.body(op, scalar, op.axes)
        ranges = {axis.name: range(axis.size) for axis in op.axes if axis.extent.is_constant}
        ranges |= {name: values for name, values in self.loops.items() if values is not None}  # type: ignore[misc]
        known = frozenset(ranges)
        if any(side.data() or not side.variables() <= known for side in sides):
            return  # which lanes are active depends on what is not known here

        used = {name for expression in (*op.indices, *sides) for name in expression.variables()}

        def active(point: Mapping[str, Array]) -> Array:
            lanes: Array = np.asarray(True)
            for guard in op.guards:
                value = guard.value.evaluate(point)
                if guard.low is not None:
                    lanes = lanes & np.asarray(guard.low.evaluate(point) <= value)
                if guard.high is not None:
                    lanes = lanes & np.asarray(value < guard.high.evaluate(point))
            return lanes

        near = {name: values for name, values in ranges.items() if name in used}
        check_inside(op, f"%{op.buffer.name}", op.indices, kind.shape, near, self.bounds, active)


def _load(v: KernelVerifier, op: tile.Load, defined: set[Value]) -> None:
    v.access(op)
    check_dtype(op, "what idle lanes get", op.otherwise.dtype, op.buffer.type.dtype)


def _store(v: KernelVerifier, op: tile.Store, defined: set[Value]) -> None:
    v.access(op)
    kind = op.value.type
    if not isinstance(kind, TileType):
        fail(op, f"stores %{op.value.name}, which is a {kind}")
    if kind.extents != tuple(axis.extent for axis in op.axes):
        sizes = ", ".join(map(str, op.axes))
        fail(op, f"stores %{op.value.name}, a {kind}, over the axes [{sizes}]")
    check_dtype(op, f"%{op.value.name}", kind.dtype, op.buffer.type.dtype)
    if op.buffer in v.kernel.inputs:
        fail(op, f"writes %{op.buffer.name}, which is an input")


def _map(v: KernelVerifier, op: tile.Map, defined: set[Value]) -> None:
    v.axes(op, op.axes)
    v.body(op, op.body, op.axes)


def _reduce(v: KernelVerifier, op: tile.Reduce, defined: set[Value]) -> None:
    if op.monoid not in MONOIDS:
        fail(op, f"unknown reduction {op.monoid!r}", hint=f"known: {', '.join(MONOIDS)}")
    if op.monoid in ("argmax", "argmin") and len(op.reduced) != 1:
        fail(op, f"{op.monoid} goes over one axis, not {len(op.reduced)}")
    v.axes(op, (*op.axes, *op.reduced))
    v.body(op, op.body, (*op.axes, *op.reduced))


def _dot(v: KernelVerifier, op: tile.Dot, defined: set[Value]) -> None:
    for value in (op.a, op.b, op.accumulator):
        if not isinstance(value.type, TileType) or len(value.type.extents) != 2:
            fail(op, f"%{value.name} is {value.type}, must be a tile of rank 2")
    (m, k), (k2, n) = op.a.type.extents, op.b.type.extents
    if k != k2 or op.accumulator.type.extents != (m, n):
        fail(op, f"multiplies {op.a.type} by {op.b.type} into {op.accumulator.type}")
    check_dtype(op, f"%{op.b.name}", op.b.type.dtype, op.a.type.dtype)


def _for(v: KernelVerifier, op: tile.For, defined: set[Value]) -> None:
    names = v.names(())
    for limit in (op.lower, op.upper, op.step):
        check_index(op, limit, names)
    if op.step.is_constant and op.step.constant < 1:
        fail(op, f"has step {op.step}, must be positive")
    check_index(op, op.depth, frozenset(v.kernel.symbols))
    if op.depth.is_constant and op.pipeline < 1:
        fail(op, f"has pipeline {op.pipeline}, must be at least 1")
    if op.variable in names:
        fail(op, f"its variable {op.variable!r} is in use outside")
    same_types(op, "the loop's arguments", op.body.args, op.initial)
    same_types(op, "the loop yields", op.body.yields, op.initial)
    same_types(op, "the loop's results", op.results, op.initial)
    limits = [limit.constant if limit.is_constant else None for limit in (op.lower, op.upper, op.step)]
    low, high, step = limits
    known = low is not None and high is not None and step is not None
    v.loops[op.variable] = range(low or 0, high or 0, step or 1) if known else None
    v.block(op.body, defined, set(op.body.args))
    del v.loops[op.variable]


def _when(v: KernelVerifier, op: tile.When, defined: set[Value]) -> None:
    kind = op.condition.type
    if not isinstance(kind, TileType) or kind.extents or kind.dtype is not BOOL:
        fail(op, f"%{op.condition.name} is {kind}, must be a bool without axes")
    same_types(op, "the block yields", op.body.yields, op.otherwise)
    same_types(op, "the results", op.results, op.otherwise)
    v.block(op.body, defined, set(op.body.args))
    if op.body.args:
        fail(op, "its block takes nothing")


def _band(v: KernelVerifier, op: tile.Band, defined: set[Value]) -> None:
    if [dim.name for dim in v.kernel.grid] != [op.variable]:
        fail(op, f"counts programs by {op.variable!r}, which is not the grid's only dim")
    known = frozenset(v.kernel.symbols)
    check_index(op, op.first, known)
    for dim in op.grid:
        check_index(op, dim.extent, known)
        if dim.name in v.names(()):
            fail(op, f"its grid dim {dim.name!r} is in use outside")
        v.loops[dim.name] = range(dim.extent.constant) if dim.extent.is_constant else None
    v.block(op.body, defined, set())
    if op.body.yields or op.body.args:
        fail(op, "its body takes and yields nothing")
    for dim in op.grid:
        del v.loops[dim.name]


_RULES: Mapping[type[Op], Callable[[KernelVerifier, Any, set[Value]], None]] = {
    tile.Load: _load,
    tile.Store: _store,
    tile.Map: _map,
    tile.Reduce: _reduce,
    tile.Dot: _dot,
    tile.For: _for,
    tile.When: _when,
    tile.Band: _band,
}
