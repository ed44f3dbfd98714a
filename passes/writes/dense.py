"""A write into a part as a pass over the whole: `select(inside the part, new element, old element)`, which fuses like any other."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, select
from codesign.ir.tensor import Compute, Dim, Scatter
from codesign.passes.views import inside, made_safe


@dataclass(frozen=True)
class _Along:
    """What points of a box have along one dim of the tensor: `start + step * dim`, the dim's extent that many; no dim: the start alone."""

    start: Index
    step: int
    dim: Dim | None


def dense(op: Scatter, outer: Bounds) -> Compute | None:
    """The write as a compute over the whole tensor, where its points form a box with constant steps; None where they do not, or where one that
    lies outside is an error, which a select would leave unseen."""
    along = _box(op)
    if op.combine != "set" or along is None or _may_fail(op, outer):
        return None
    dims = tuple(Dim(f"o{k}", size) for k, size in enumerate(op.init.shape))
    bounds = outer.with_extents({dim.name: dim.extent for dim in dims})
    places: dict[str, Index] = {dim.name: index(0) for dim in op.dims}
    conditions: list[Scalar] = []
    for dim, part in zip(dims, along, strict=True):
        offset = index(dim.name) - part.start
        extent = index(1) if part.dim is None else part.dim.extent
        if part.dim is not None:
            places[part.dim.name] = (offset // part.step).simplify(bounds)
        conditions.append(inside(offset, (extent - 1) * part.step + 1, bounds))
        if part.step != 1:
            on_step = apply("eq", IndexValue(offset % part.step), IndexValue(index(0)))
            conditions.append(on_step)
    new = made_safe(op.body.substitute(places), bounds)
    old: Scalar = Read(op.init, [dim.name for dim in dims])
    body = new
    for condition in reversed(conditions):
        if not (isinstance(condition, Literal) and condition.value is True):
            body = select(condition, body, old)
    return Compute(dims, body, dtype=op.result.type.dtype, name=op.result.name, location=op.location)


def _may_fail(op: Scatter, outer: Bounds) -> bool:
    """Whether places read from data have to be checked."""
    bounds = outer.with_extents(op.extents())
    places = zip(op.target, op.init.shape, strict=True)
    return op.within and any(i.data() and unsure(i, size, bounds) for i, size in places)


def unsure(place: Index, size: Index, bounds: Bounds) -> bool:
    """Whether a place may lie outside of a dim, for all that is known of it."""
    return not (place.proves_at_least(0, bounds) and place.proves_less(size, bounds))


def _box(op: Scatter) -> list[_Along] | None:
    """The points along each dim of the tensor, when every dim of the domain goes along just one of them."""
    dims = {dim.name: dim for dim in op.dims}
    free = {dim.name for dim in op.dims if dim.extent != 1}
    along: list[_Along] = []
    for expression in op.target:
        names = expression.variables() & dims.keys()
        if len(names) > 1:
            return None
        if not names:
            along.append(_Along(expression, 1, None))
            continue
        (name,) = names
        step = expression.coefficient(name)
        if step is None or not step.is_constant or step.constant < 1:
            return None
        start = expression - step * name
        if start.variables() & dims.keys():
            return None
        along.append(_Along(start, step.constant, dims[name]))
        free.discard(name)
    used = [part.dim.name for part in along if part.dim is not None]
    return along if not free and len(used) == len(set(used)) else None
