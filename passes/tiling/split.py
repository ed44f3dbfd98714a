"""Splitting a reduction over the grid, as two groups: partial results in parallel, then their combination and what follows.

rewrite:
    fusion { r = sum(k: K) { f(k) }; out = g(r) }
    ->  partial = fusion { p[s: S] = sum(k: K/S) { f(s*(K/S) + k) } };  fusion { r = sum(s: S) { partial[s] }; out = g(r) }

Deterministic, unlike partial results combined by atomics.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.core import Block, Op, Value
from codesign.ir.index import index
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Dim, Fusion


@dataclass(frozen=True)
class Splittable:
    """A reduction of a group that can be split along one dim, and the computes that only feed it."""

    compute: Compute
    dim: str
    extent: int
    feeders: tuple[Compute, ...]


def splittable(fusion: Fusion) -> Splittable | None:
    """The longest reduction dim of the group that can be split, if there is one.

    It is of a constant extent and belongs to one reduction (not an arg-reduction) and to element-wise computes that only feed it.
    """
    found: list[Splittable] = []
    members = {compute.result: compute for compute in fusion.computes}
    for compute in fusion.computes:
        if not compute.reductions or compute.monoid in ("argmax", "argmin"):
            continue
        feeders = _feeders(compute, members)
        inside = {compute, *feeders}
        private = all(
            other in inside or not any(value.owner in feeders for value in other.operands())
            for other in fusion.computes
        )
        if not private or any(f.reductions or f.result in fusion.body.yields for f in feeders):
            continue
        for dim in compute.reductions:
            elsewhere = any(
                d.name == dim.name for other in fusion.computes if other not in inside for d in other.domain
            )
            if dim.extent.is_constant and not elsewhere:
                found.append(Splittable(compute, dim.name, dim.extent.constant, feeders))
    return max(found, key=lambda candidate: candidate.extent, default=None)


def split_reduction(fusion: Fusion, where: Splittable, parts: int) -> tuple[Fusion, Fusion]:
    """The group of partial results and the group that combines them; `parts` must divide the extent."""
    if where.extent % parts:
        raise ValueError(f"{parts} parts do not divide {where.dim}: {where.extent}")
    chunk = where.extent // parts
    part = Dim(_fresh(f"{where.dim}_part", fusion), index(parts))
    small = Dim(where.dim, index(chunk))
    values = {where.dim: index(part.name) * chunk + index(where.dim)}
    made: dict[Value, Value] = {}

    def change(node: Scalar) -> Scalar | None:
        if isinstance(node, Read) and node.source in made:
            owner = made[node.source].owner
            assert isinstance(owner, Compute)
            return Read(made[node.source], [dim.name for dim in owner.dims])
        return None

    ops: list[Op] = []
    for compute in (*where.feeders, where.compute):
        body = compute.body.substitute(values).rewrite(change)
        last = compute is where.compute
        dims: list[Dim] = [part] if last else []
        for dim in compute.dims:
            dims += [part, small] if dim.name == where.dim else [dim]
        new = Compute(
            dims,
            body,
            dtype=compute.accumulate if last else compute.dtype,
            reductions=[small if dim.name == where.dim else dim for dim in compute.reductions],
            monoid=compute.monoid,
            accumulate=compute.accumulate,
            name=f"{compute.result.name}_part" if last else compute.result.name,
            location=compute.location,
        )
        made[compute.result] = new.result
        ops.append(new)
    label = fusion.label or fusion.results[0].name
    partial = Fusion(Block([], ops, [ops[-1].result]), label=f"{label}_parts", location=fusion.location)
    return partial, _combination(fusion, where, part, partial.result)


def _combination(fusion: Fusion, where: Splittable, part: Dim, partial: Value) -> Fusion:
    compute = where.compute
    total = Compute(
        compute.dims,
        Read(partial, [part.name, *(dim.name for dim in compute.dims)]),
        dtype=compute.dtype,
        reductions=[part],
        monoid=compute.monoid,
        accumulate=compute.accumulate,
        name=compute.result.name,
        location=compute.location,
    )
    made: dict[Value, Value] = {compute.result: total.result}
    ops: list[Op] = []
    for op in fusion.computes:
        if op is compute:
            ops.append(total)
        elif op not in where.feeders:
            new = Compute(
                op.dims,
                op.body.replace_sources(made),
                dtype=op.dtype,
                reductions=op.reductions,
                monoid=op.monoid,
                accumulate=op.accumulate,
                name=op.result.name,
                location=op.location,
            )
            made[op.result] = new.result
            ops.append(new)
    yields = [made[value] for value in fusion.body.yields]
    names = [value.name for value in fusion.results]
    return Fusion(Block([], ops, yields), names=names, label=fusion.label, location=fusion.location)


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


def _fresh(name: str, fusion: Fusion) -> str:
    taken = set(fusion.dims())
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}{count}"
    return candidate
