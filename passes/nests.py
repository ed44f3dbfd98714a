"""Reductions over rows and along them, of elements that results along rows enter: along each row first, then over the rows.

rewrite:
    %m = compute[i: M] max(j: N) { %x[i, j] };  %t = compute[] sum(i: M, j: N) { f(%x[i, j], %m[i]) }
    ->  ...;  %u = compute[i: M] sum(j: N) { f(%x[i, j], %m[i]) };  %t = compute[] sum(i: M) { %u[i] }

Then the sum along a row goes with what it needs of the row (`codesign.ir.fold`), where a sum over all would have to come after all rows.
Each row's sum is kept only where a row has one: a product or a convolution of normed rows has one for each of its columns, and stays whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Op
from codesign.ir.index import Index
from codesign.ir.scalar import Read
from codesign.ir.tensor import Compute
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register

_NESTED = frozenset({"sum", "max", "min", "prod", "any", "all"})


@register
@dataclass(frozen=True)
class NestReductions(FunctionPass, Pass):
    """Take reductions of whole tensors row by row, where reductions along the rows enter their elements."""

    name: ClassVar[str] = "nest-reductions"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        ops: list[Op] = []
        for op in block.ops:
            ops.extend(_along_rows(op) or [op] if isinstance(op, Compute) else [op])
        block.ops = ops


def _along_rows(op: Compute) -> list[Compute]:
    """The inner reduction and the outer one; none where no result of rows enters."""
    own, kept = {dim.name for dim in op.reductions}, {dim.name for dim in op.dims if dim.extent != 1}
    if len(own) < 2 or op.monoid not in _NESTED:
        return []
    rows: set[str] = set()
    for used in _dims_of_results(op, {dim.name: frozenset({dim.name}) for dim in op.domain}, set()):
        rows |= used & own if kept <= used and not own <= used else set()
    inner = [dim for dim in op.reductions if dim.name not in rows]
    outer = [dim for dim in op.reductions if dim.name in rows]
    if not inner or not outer:
        return []
    name = f"{op.result.name}_rows"
    partial = op.with_domain([*op.dims, *outer], inner, op.body, dtype=op.accumulate, name=name)
    whole = op.with_domain(op.dims, outer, Read(partial.result, [dim.name for dim in partial.dims]))
    whole.results, op.result.owner = op.results, whole
    return [partial, whole]


Seen = set[tuple[Compute, tuple[frozenset[str], ...]]]


def _dims_of_results(op: Compute, dims: dict[str, frozenset[str]], seen: Seen) -> Iterator[frozenset[str]]:
    """For each reduction whose result enters, directly or by element-wise work, the dims that say which element of it does; `dims`: of the
    reader, for each dim of the op.
    """
    for read in op.body.reads():
        maker = read.source.owner
        if not isinstance(maker, Compute):
            continue
        places = tuple(_used(i, dims) for i in read.indices)
        if (maker, places) in seen:
            continue
        seen.add((maker, places))
        if maker.reductions:
            yield frozenset().union(*places)
        else:
            yield from _dims_of_results(maker, {d.name: used for d, used in zip(maker.dims, places, strict=True)}, seen)


def _used(place: Index, dims: dict[str, frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*(dims.get(name, frozenset()) for name in place.variables()))
