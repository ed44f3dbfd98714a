"""Scans and short sorts as reductions, which fuse with what is around them and need no routine of a library.

rewrite:        (scans: `codesign.passes.running`)
    %v, %p = sort %x dim 1 descending keep K        (a few of many: `codesign.passes.rounds`)
    ->  %rank = compute i32[i: M, j: N] sum(n: N) { x[i, n] > x[i, j] or (x[i, n] == x[i, j] and n < j) }
        %p = compute i64[i: M, k: K] sum(j: N) { select(%rank[i, j] == k, j, 0) };  %v = compute[i: M, k: K] max(j: N) { ... x[i, j] ... }
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Op, Value
from codesign.ir.dtypes import BOOL, I32, I64
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim, Monoid, Scan, Sort
from codesign.ir.tiling.monoids import lowest
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register, replace_ops
from codesign.passes.rounds import equal, in_parts, in_rounds, suits_parts, suits_rounds
from codesign.passes.running import SHORT, running

STEPS = 1 << 24
"""Elements compared or combined in all: what a large GPU does in about the time of a launch (264 blocks of 128 lanes at 1.7 GHz, 3 µs, a few
operations each)."""


@register
@dataclass(frozen=True)
class ReduceOrders(FunctionPass, Pass):
    """Make running reductions, short sorts and short top-k reductions: each element against all others of its row, or of its block.

    `steps`: the most elements compared in all of a sort, or of a scan that is not in blocks; 0 leaves every scan and sort as it is.
    """

    name: ClassVar[str] = "orders"
    steps: int = STEPS

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        replace_ops(block, lambda op: self._reduced(op, context.sizes))

    def _reduced(self, op: Op, sizes: Mapping[str, int]) -> list[Compute]:
        """The computes that do what a scan or a sort does; none of an op that stays."""
        if isinstance(op, Scan) and self.steps:
            return running(op, self.steps, sizes)
        if isinstance(op, Sort) and op.source.shape:
            if self.steps and suits_rounds(op):
                return in_rounds(op)
            if self.steps and suits_parts(op):
                return in_parts(op)
            if self._is_short(op.source, op.source.shape[op.dim], sizes):
                return _sort(op)
        return []

    def _is_short(self, value: Value, each: Index | int, sizes: Mapping[str, int]) -> bool:
        """Whether so many steps for each element are few."""
        steps = index(each)
        if not steps.is_constant or steps.constant == 0:
            return False
        known = all(size.variables() <= sizes.keys() for size in value.shape)
        if not known:
            return steps.constant <= min(SHORT, self.steps)
        elements = math.prod(int(size.evaluate(dict(sizes))) for size in value.shape)
        return elements * steps.constant <= self.steps


def _sort(op: Sort) -> list[Compute]:
    """The rank of each element, and for each place of the result the element whose rank it is."""
    source, along = op.source, op.source.shape[op.dim]
    names = [f"i{k}" for k in range(len(source.shape))]
    own, other, kept = names[op.dim], "other", "kept"
    dims = [Dim(name, size) for name, size in zip(names, source.shape, strict=True)]
    x, y = Read(source, names), Read(source, [other if name == own else name for name in names])
    earlier = apply("lt", IndexValue(index(other)), IndexValue(index(own)))
    ahead = apply("or", _before(y, x, op.descending), apply("and", equal(x, y), earlier))
    label, place = op.results[0].name, op.location
    rank = Compute(
        dims, cast(ahead, I32), reductions=[Dim(other, along)], monoid="sum", name=f"{label}_rank", location=place
    )
    result = [Dim(kept, size) if dim.name == own else dim for dim, size in zip(dims, op.results[0].shape, strict=True)]
    chosen = apply("eq", cast(Read(rank.result, names), I64), cast(IndexValue(index(kept)), I64))
    value = select(chosen, x, lowest(x.dtype))
    inner = [Dim(own, along)]
    largest: Monoid = "any" if x.dtype is BOOL else "max"
    values = Compute(result, value, reductions=inner, monoid=largest, name=label, location=place)
    position = select(chosen, cast(IndexValue(index(own)), I64), Literal(0, I64))
    positions = Compute(result, position, reductions=inner, monoid="sum", name=op.results[1].name, location=place)
    return [rank, values, positions]


def _before(a: Scalar, b: Scalar, descending: bool) -> Scalar:
    """Whether a sorts before b by its value; NaN counts as the greatest."""
    if a.dtype is BOOL:
        a, b = cast(a, I32), cast(b, I32)
    plain = apply("gt" if descending else "lt", a, b)
    if not a.dtype.is_float:
        return plain
    first, second = (a, b) if descending else (b, a)
    return apply("or", plain, apply("and", apply("isnan", first), apply("not", apply("isnan", second))))
