"""Picks: a read of one element along a dim, at a position read from data, as a reduction over the whole dim.

rewrite:
    %g = compute[i] { f(%v[i, %t[i]]) }  ->  %p = compute[i] sum(k) { select(k == %t[i], %v[i, k], 0) };  %g = compute[i] { f(%p[i]) }

Then the value needs no memory: the reduction goes along with others over the dim, as the target's logit with the statistics of a softmax.
A position outside gives no number where the value is a float (and else zero): memory that is not there can't tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from codesign.ir.core import Value
from codesign.ir.index import Bounds, Index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, select
from codesign.ir.tensor import Compute, Dim
from codesign.passes.fusion.group import Group, fresh_name
from codesign.passes.views import inside


def with_picks(group: Group, value: Value, outer: Bounds) -> Group | None:
    """The group with each read of a value at a position along one of its dims that is read from data as a reduction; None without one."""
    computes: list[Compute] = []
    mapping: dict[Value, Value] = {}
    found = False
    for op in group.computes:
        body = op.body.replace_sources(mapping)
        reads = [read for read in body.reads() if read.source is value]
        picks = {read: made for read in reads if (made := _pick(op, read, group, outer)) is not None}
        found = found or bool(picks)
        computes.extend(pick for pick, _ in picks.values())
        new = op.with_body(_with_reads(body, {read: instead for read, (_, instead) in picks.items()}))
        mapping[op.result] = new.result
        computes.append(new)
    if not found:
        return None
    return Group(tuple(computes), {out: mapping[inner] for out, inner in group.outputs.items()}, group.location)


def _with_reads(body: Scalar, instead: Mapping[Read, Scalar]) -> Scalar:
    return body.rewrite(lambda node: instead.get(node) if isinstance(node, Read) else None)


def _pick(op: Compute, read: Read, group: Group, outer: Bounds) -> tuple[Compute, Scalar] | None:
    """The reduction that a read is, and what gives the read's value of it."""
    value, dtype = read.source, read.dtype
    along = [position for position, place in enumerate(read.indices) if place.data()]
    if len(along) != 1 or not dtype.is_float:
        return None
    (position,) = along
    place, size = read.indices[position], value.shape[position]
    name = _loop_along(value, position, group) or fresh_name("picked")
    used = {variable for i in read.indices for variable in i.variables()}
    dims = [dim for dim in op.domain if dim.name in used]
    element = Read(value, [*read.indices[:position], name, *read.indices[position + 1 :]])
    chosen = apply("eq", IndexValue(name), IndexValue(place))
    pick = Compute(
        dims,
        select(chosen, element, Literal(0, dtype)),
        reductions=[Dim(name, size)],
        monoid="sum",
        name=f"{value.name}_picked",
        location=op.location,
    )
    return pick, _where_inside(Read(pick.result, [dim.name for dim in dims]), read, place, size, op.bounds(outer))


def _loop_along(value: Value, position: int, group: Group) -> str | None:
    """The dim over which the group reduces along this dim of the value."""
    for op in group.computes:
        names = {dim.name for dim in op.reductions}
        for read in op.body.reads():
            if read.source is value and read.indices[position].variable in names:
                return read.indices[position].variable
    return None


def _where_inside(picked: Scalar, read: Read, place: Index, size: Index, bounds: Bounds) -> Scalar:
    condition = inside(place, size, bounds)
    if isinstance(condition, Literal):
        return picked
    instead = read.otherwise if read.otherwise is not None else Literal(math.nan, picked.dtype)
    return select(condition, picked, instead)
