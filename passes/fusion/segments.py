"""Reductions over what a concatenation puts one after the other: a reduction over each part, and what joins them.

rewrite (a score more than there are keys: attention with a sink):
    %m = compute[i] max(j: N + 1) { select(j < N, %s[i, j], %sink[]) }
    ->  %a = compute[i] max(j: N) { %s[i, j] };  %b = compute[i] { %sink[] };  %m = compute[i] { max(%a[i], %b[i]) }

Then each part is read at its own points, and what makes it can be in the reductions' kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from codesign.ir.core import Value
from codesign.ir.index import Bounds, index
from codesign.ir.location import Location
from codesign.ir.tensor import Compute, Dim
from codesign.passes.fusion.branches import edges
from codesign.passes.fusion.group import Group, fresh_name
from codesign.passes.unroll import Piece, unrolled

MOST = 4
"""Parts of a concatenation."""


def in_segments(
    readers: Sequence[Compute], outputs: Mapping[Value, Compute], producer: Compute, location: Location, outer: Bounds
) -> Group | None:
    """The group of readers of a producer with the dims over which they reduce what was put together of it in parts; None without such dims."""
    reading = [op for op in readers if producer.result in op.operands()]
    guarded = {name for op in reading for read in op.body.reads() if read.source is producer.result and read.otherwise is not None
               for place in read.indices for name in place.variables()}  # fmt: skip
    kept = {dim.name for op in outputs.values() for dim in op.dims}
    pieces: dict[str, list[Piece]] = {}
    for dim in dict.fromkeys(dim for op in reading for dim in op.reductions if dim.name in guarded - kept):
        ends = edges(dim, reading) if dim.extent.is_constant else []
        if 1 < len(ends) <= MOST:
            pieces[dim.name] = list(_runs(dim, ends))
    if not pieces:
        return None
    try:
        made, parts = unrolled(readers, pieces, outer)
    except ValueError:
        return None
    return Group(tuple(made), {value: parts[op.result].at({}) for value, op in outputs.items()}, location)


def _runs(dim: Dim, ends: Iterable[int]) -> Iterable[Piece]:
    start = 0
    for end in ends:
        if end - start == 1:
            yield Piece(index(start))
        else:
            own = Dim(fresh_name(dim.name), index(end - start))
            yield Piece(index(own.name) + start, (own,))
        start = end
