"""Values that repeat along a dim: one period is made, and readers read it again and again.

rewrite (tables of a rotary embedding, whose halves are one):
    %c = compute[i: M, j: 2*N] { cos(select(j < N, %a[i, j], %a[i, j - N])) }
    ->  %p = compute[i: M, j: N] { cos(%a[i, j]) };  %c = compute[i: M, j: 2*N] { %p[i, j % N] }

The rest is a view, which goes into the indices of its readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Value
from codesign.ir.index import Bounds, index
from codesign.ir.scalar import Read, cast
from codesign.ir.tensor import Compute, Dim
from codesign.passes.context import Context
from codesign.passes.fusion.branches import edges
from codesign.passes.manager import FunctionPass, Pass, register, replace_ops
from codesign.passes.unroll import Piece, unrolled
from codesign.passes.views import FoldViews, is_view


@register
@dataclass(frozen=True)
class Periods(FunctionPass, Pass):
    """Make one period of element-wise values that conditions on an index make in equal parts."""

    name: ClassVar[str] = "periods"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        outer, before = module.bounds(), len(block.ops)
        kept: set[Value] = {*block.yields}
        replace_ops(
            block, lambda op: _one_period(op, outer) if isinstance(op, Compute) and op.result not in kept else []
        )
        if len(block.ops) > before:
            FoldViews().run_block(module, block, context)


def _one_period(op: Compute, outer: Bounds) -> list[Compute]:
    """A period of the op's result, and the op as a view of it; none where it has no period."""
    if op.reductions or is_view(op):
        return []
    for position, dim in enumerate(op.dims):
        ends = edges(dim, [op]) if dim.extent.is_constant else []
        size = ends[0] if len(ends) > 1 else 0
        if not size or dim.extent.constant % size or any(end % size for end in ends):
            continue
        runs = [Piece(index(dim.name) + start, (Dim(dim.name, index(size)),)) for start in range(0, dim.extent.constant, size)]  # fmt: skip
        (first, *others), _ = unrolled([op], {dim.name: runs}, outer)
        if all(other.body == first.body for other in others):
            places = [index(one.name) % size if k == position else index(one.name) for k, one in enumerate(op.dims)]
            return [first, op.with_body(cast(Read(first.result, places), op.dtype))]
    return []
