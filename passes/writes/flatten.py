"""Writes through views: a write into a view of a tensor, and of that back into the tensor, are one write into the tensor.

rewrite:
    %row = compute[j] { %x[3, j] };  %new = scatter set %row over (n) at [t(n)] { f(n) };  %r = scatter set %x over (j) at [3, j] { %new[j] }
    ->  %r = scatter set %x over (n) at [3, t(n)] { f(n) }
"""

from __future__ import annotations

from collections.abc import Sequence

from codesign.ir.core import Block, Op, Value
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import Read
from codesign.ir.tensor import Compute, Scatter
from codesign.ir.types import row_major
from codesign.passes.memory import same_bytes
from codesign.passes.writes.dense import unsure


def flatten_writes(block: Block, outer: Bounds) -> None:
    """Make writes through views and reshapes writes into the tensor itself, where nothing else is written in between."""
    mapping: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in block.ops:
        if mapping:
            op.replace(mapping)
        new = [op]
        if isinstance(op, Scatter) and op.combine == "set":
            if _is_there_already(op, outer):
                mapping[op.result] = op.init
                continue
            new = _through_reshape(op, outer) or [_through_view(op, outer) or op]
        elif isinstance(op, Compute):
            mapping.update(_back_again(op))
        if new[-1] is not op:
            mapping[op.result] = new[-1].result
        ops.extend(new)
    block.ops = ops
    block.yields = tuple(mapping.get(value, value) for value in block.yields)


def _is_there_already(op: Scatter, outer: Bounds) -> bool:
    """Whether a write writes what the tensor holds there, as what follows an in-place operation on a view does."""
    body, bounds = op.body, outer.with_extents(op.extents())
    if not isinstance(body, Read) or body.otherwise is not None:
        return False
    return _seen_through(body.source, body.indices, bounds) == _seen_through(op.init, op.target, bounds)


def _through_view(op: Scatter, outer: Bounds) -> Scatter | None:
    """The write with a write into a view of the same tensor, at the same places, inside of it."""
    body = op.body
    if not isinstance(body, Read) or body.otherwise is not None or not isinstance(body.source.owner, Scatter):
        return None
    inner = body.source.owner
    if inner.combine != "set" or body.indices != tuple(index(dim.name) for dim in op.dims):
        return None
    if inner.init.shape != tuple(
        dim.extent for dim in op.dims
    ):  # a part of the view goes back, and not what was written elsewhere
        return None
    if not all(_stays_outside(op, position, place, outer, inner) for position, place in enumerate(inner.target)):
        return None
    bounds = outer.with_extents(op.extents())
    if _seen_through(inner.init, body.indices, bounds) != _seen_through(op.init, op.target, bounds):
        return None
    names = {dim.name: f"{dim.name}_" for dim in inner.dims}  # the two domains may share names
    values = {dim.name: i.substitute(names) for dim, i in zip(op.dims, inner.target, strict=True)}
    dims = [type(dim)(names[dim.name], dim.extent) for dim in inner.dims]
    return Scatter(
        "set",
        op.init,
        dims,
        [i.substitute(values) for i in op.target],
        inner.body.substitute(names),
        within=inner.within,
        name=op.result.name,
        location=op.location,
    )


def _stays_outside(op: Scatter, position: int, place: Index, outer: Bounds, inner: Scatter) -> bool:
    """Whether a place that is outside of a view, along one of its dims, is outside of the tensor too: there is none, or the view has all of a dim."""
    size = inner.init.shape[position]
    if not unsure(place, size, outer.with_extents(inner.extents())):
        return True
    return (index(op.dims[position].name), size) in zip(op.target, op.init.shape, strict=True)


def _seen_through(value: Value, point: Sequence[Index], bounds: Bounds) -> tuple[Value, tuple[Index, ...]]:
    """The tensor that a view shows, and where the point of the view lies in it."""
    while isinstance(value.owner, Compute) and not value.owner.reductions:
        view, body = value.owner, value.owner.body
        if not isinstance(body, Read) or body.otherwise is not None or body.dtype is not view.dtype:
            break
        if any(i.data() for i in body.indices):
            break
        places = {dim.name: i for dim, i in zip(view.dims, point, strict=True)}
        value, point = body.source, [i.substitute(places).simplify(bounds) for i in body.indices]
    return value, tuple(i.simplify(bounds) for i in point)


def _through_reshape(op: Scatter, outer: Bounds) -> list[Op] | None:
    """A write into a reshaped tensor as one into the tensor, and the reshape of what that gives; None where a place outside of the reshaped
    tensor could be one inside of the tensor."""
    reshape = op.init.owner
    if not isinstance(reshape, Compute):
        return None
    whole = same_bytes(reshape)
    if whole is None:
        return None
    flat, bounds = index(0), outer.with_extents(op.extents())
    there = {dim for dim in zip(row_major(whole.shape), whole.shape, strict=True) if dim[1] != 1}
    kept: dict[tuple[Index, Index], Index] = {}
    for position, (i, stride, size) in enumerate(zip(op.target, row_major(op.init.shape), op.init.shape, strict=True)):
        if (stride, size) in there:
            kept[stride, size] = i
        elif unsure(i, size, bounds) and (position or size == 1):
            return None
        else:
            flat = flat + i * stride
    places: list[Index] = []
    for position, (stride, size) in enumerate(zip(row_major(whole.shape), whole.shape, strict=True)):
        digit = kept.get((stride, size), flat // stride % size if position else flat // stride)
        places.append(digit.simplify(bounds))
    name = op.result.name
    written = Scatter("set", whole, op.dims, places, op.body, within=op.within, name=name, location=op.location)
    ops: list[Op] = _through_reshape(written, outer) or [written]
    body = reshape.body.replace_sources({whole: ops[-1].result})
    return [*ops, Compute(reshape.dims, body, dtype=reshape.dtype, name=name, location=op.location)]


def _back_again(op: Compute) -> dict[Value, Value]:
    """A reshape of a reshape to the shape that was there before is what was there before."""
    first = same_bytes(op)
    source = first.owner if first is not None else None
    before = same_bytes(source) if isinstance(source, Compute) else None
    return {op.result: before} if before is not None and before.type == op.result.type else {}
