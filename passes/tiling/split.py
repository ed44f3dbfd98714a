"""Splitting a reduction over the grid, as two groups: partial results in parallel, then their combination and what follows.

rewrite:
    fusion { r = sum(k: K) { f(k) }; out = g(r) }
    ->  partial = fusion { p[s: S] = sum(k: C) { f(s*C + k) } };  fusion { r = sum(s: S) { partial[s] }; out = g(r) }

Deterministic, unlike partial results combined by atomics. Of a fold (`codesign.ir.fold`) each part leaves its state, and the states are
merged as the fold merges what it carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.ir.core import Block, Op, Value
from codesign.ir.fold import Fold, alone, folds
from codesign.ir.scalar import Read
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.passes.tiling.cut import Cut, live
from codesign.passes.tiling.merging import combined, states


@dataclass(frozen=True)
class Splittable:
    """A reduction of a group, or a `fold` of several, that can be split along one dim, and the computes that feed it."""

    compute: Compute
    dim: str
    extent: int
    feeders: tuple[Compute, ...]
    fold: Fold | None = None


def splittable(fusion: Fusion) -> Splittable | None:
    """The longest reduction dim of the group that can be split, if there is one.

    It is of a constant extent above 1 and belongs to one reduction (not an arg-reduction) and to element-wise computes that only feed it, or to a
    fold (or reductions that do not need each other) and what feeds that.
    """
    members = {compute.result: compute for compute in fusion.computes}
    known = folds(fusion)
    rest = [
        compute
        for compute in fusion.computes
        if compute.reductions and not any(fold.part(compute.result) is not None for fold in known)
    ]
    found = [_splittable(compute, fusion, members) or _beside(compute, rest, members) for compute in rest]
    found.extend(_along(fold, members) for fold in known)
    return max((one for one in found if one is not None and one.extent > 1), key=lambda one: one.extent, default=None)


def _splittable(compute: Compute, fusion: Fusion, members: dict[Value, Compute]) -> Splittable | None:
    """A reduction that nothing else of the group goes along with, nor needs what feeds it."""
    if compute.monoid in ("argmax", "argmin"):
        return None
    feeders = _feeders(compute, members)
    inside = {compute, *feeders}
    private = all(
        other in inside or not any(value.owner in feeders for value in other.operands()) for other in fusion.computes
    )
    if not private or any(f.reductions or f.result in fusion.body.yields for f in feeders):
        return None
    elsewhere = {dim.name for other in fusion.computes if other not in inside for dim in other.domain}
    free = [dim for dim in compute.reductions if dim.extent.is_constant and dim.name not in elsewhere]
    if not free:
        return None
    dim = max(free, key=lambda dim: dim.extent.constant)
    return Splittable(compute, dim.name, dim.extent.constant, feeders)


def split_reduction(fusion: Fusion, where: Splittable, parts: int) -> tuple[Fusion, Fusion]:
    """The group of partial results, of `whole_parts` parts, and the group that combines them."""
    cut = Cut.of(fusion, where.dim, where.extent, parts)
    ops: list[Op] = [cut.compute(compute) for compute in where.feeders]
    if where.fold is None:
        last = [cut.compute(where.compute, partial=True)]
        ops.extend(last)
    else:
        last = states(where.fold, cut, ops)
    label = fusion.label or fusion.results[0].name
    partial = Fusion(Block([], ops, [one.result for one in last]), label=f"{label}_parts", location=fusion.location)
    if where.fold is None:
        totals = {where.compute.result: [_total(where.compute, cut.part, partial.results[0])]}
    else:
        held = (part.total for part in where.fold.parts)
        totals = combined(where.fold, cut, dict(zip(held, partial.results, strict=True)))
    return partial, _combination(fusion, where, totals)


def _beside(compute: Compute, rest: Sequence[Compute], members: dict[Value, Compute]) -> Splittable | None:
    """A reduction with those over the same dims and of the same shape that do not need each other: they are all done in parts."""
    shapes = (compute.dims, compute.reductions)
    near = [one for one in rest if (one.dims, one.reductions) == shapes and one.monoid not in ("argmax", "argmin")]
    apart = not any({*_feeders(one, members)} & {*rest} for one in near)
    return _along(alone(*near) if apart and compute in near else alone(compute), members)


def _along(fold: Fold, members: dict[Value, Compute]) -> Splittable | None:
    """A fold whose states can be had in parts. What follows along the dim is done with their merge, from the same operands."""
    parts = [part.compute for part in fold.parts if part.compute is not None]
    bodies = (*(part.reduced for part in fold.parts), *fold.shared)
    needed = {one for body in bodies for one in _feeders(body, members)}
    if any(one.monoid in ("argmax", "argmin") for one in parts) or needed & {*parts}:
        return None
    feeders = tuple(one for one in members.values() if one in needed)
    summed = {dim.name for one in needed for dim in one.reductions}
    extents = {d.name: d.extent for d in parts[0].reductions if d.extent.is_constant and d.name not in summed}
    if not extents:
        return None
    dim = max(extents, key=lambda name: extents[name].constant)
    return Splittable(parts[-1], dim, extents[dim].constant, feeders, fold)


def _total(compute: Compute, part: Dim, partial: Value) -> Compute:
    return compute.with_domain(compute.dims, [part], Read(partial, [part.name, *(dim.name for dim in compute.dims)]))


def _combination(fusion: Fusion, where: Splittable, totals: dict[Value, list[Compute]]) -> Fusion:
    """The group that makes the results of what was split (`totals`: each by computes of which it is the last) and all that follows."""
    made: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in fusion.computes:
        if op.result in totals:
            for compute in totals[op.result]:
                compute.replace(made)
            ops.extend(totals[op.result])
            made[op.result] = totals[op.result][-1].result
        elif where.fold is not None or where.dim not in op.extents():
            new = op.with_body(op.body.replace_sources(made))
            made[op.result] = new.result
            ops.append(new)
    yields = [made[value] for value in fusion.body.yields]
    names = [value.name for value in fusion.results]
    block, writes, shapes = Block([], live(ops, yields), yields), fusion.writes, fusion.shapes
    return Fusion(block, names=names, label=fusion.label, writes=writes, shapes=shapes, location=fusion.location)


def _feeders(compute: Compute, members: dict[Value, Compute]) -> tuple[Compute, ...]:
    """Computes of the group that a compute depends on, in order."""
    found: set[Compute] = set()
    stack = [compute]
    while stack:
        for value in stack.pop().operands():
            if value in members and members[value] not in found:
                found.add(members[value])
                stack.append(members[value])
    return tuple(other for other in members.values() if other in found)
