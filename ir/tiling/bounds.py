"""Bounds of loops: what a mask empties for all of a program's rows and columns is not visited."""

from __future__ import annotations

from codesign.ir.index import Bounds, Index, index
from codesign.ir.reach import Ends
from codesign.ir.tiling.domain import DimPlan, Domain


def loop_bounds(domain: Domain, plan: DimPlan) -> tuple[Index, Index]:
    """Where a loop along a dim begins, a multiple of its step, and before which value it ends, over the indices of the grid."""
    reach = domain.reach.get(plan.name)
    if reach is None:
        return index(0), plan.extent
    ends: Ends = {other.name: _ends(other) for other in domain.plans.values() if other is not plan}
    sizes = dict.fromkeys(domain.sizes, (1, None))
    known = Bounds({dim.name: dim.extent for dim in domain.grid}, {**domain.bounds.symbols, **sizes})
    lower, upper = reach.over(ends, plan.extent, plan.size)
    return lower.simplify(known), upper.simplify(known)


def _ends(plan: DimPlan) -> tuple[Index, Index]:
    """The first and the last value of a dim in one program; all of it where the program goes along it."""
    if plan.kind != "grid" or plan.sole:
        return index(0), plan.extent - 1
    first = index(plan.variable) * plan.size
    return first, first + plan.size - 1
