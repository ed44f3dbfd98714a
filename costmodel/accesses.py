"""Loads and stores of a template as accesses over the dims of its group."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from codesign.costmodel.features import Move
from codesign.costmodel.summary import Access
from codesign.ir.index import Index, index
from codesign.ir.template import Template
from codesign.ir.tile import Load, Store
from codesign.ir.types import BufferType


def access_of(op: Load | Store, move: Move, template: Template, extents: Mapping[str, Index]) -> Access:
    """The access over dims in place of indices of programs, loops and lanes. `extents`: of the group's dims."""
    axes = {axis.name for axis in op.axes}
    dims = {variable: index(0) if dim in axes else index(dim) for variable, dim in template.along.items()}

    def over(expression: Index) -> Index:
        return expression.substitute(dims)

    kind = op.buffer.type
    assert isinstance(kind, BufferType)
    place = tuple(over(i) for i in op.indices)
    inside = any(
        guard.low is not None or guard.high is None or extents.get(over(guard.value).variable or "") != guard.high
        for guard in op.guards
    )
    used = axes | {name for i in place for name in i.variables() & extents.keys()}
    found = Access(
        tensor=op.buffer.name,
        kind="load" if isinstance(op, Load) else "store",
        dtype=kind.dtype,
        shape=kind.shape,
        strides=kind.strides,
        index=place,
        dims=tuple(sorted(used)),
        gather=("data",) if move.gathers else (),
        padded=inside and isinstance(op, Load),
    )
    return _known(found)


@lru_cache(maxsize=4096)
def _known(access: Access) -> Access:
    """The first access that is equal: what is worked out of one is found again at once."""
    return access
