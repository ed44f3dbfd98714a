"""How several index tensors lie beside the other dims of what they index (NumPy's rules of advanced indexing)."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.frontend.lowering.builder import Point, broadcast, data_index, read
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL
from codesign.ir.index import Index, index


def advanced(indices: Sequence[Value | None]) -> tuple[list[int], int, int]:
    """Which dims are indexed by tensors, where their common dims go in the result, and how many those are.

    Adjacent index tensors leave their dims in place; separated ones put them in front (NumPy's rule).
    """
    return together([None if ids is None else len(shape_of(ids)) for ids in indices])


def together(ranks: Sequence[int | None]) -> tuple[list[int], int, int]:
    """The same from how many dims each index tensor has."""
    dims = [d for d, rank in enumerate(ranks) if rank is not None]
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    return dims, (dims[0] if adjacent else 0), max(rank for rank in ranks if rank is not None)


def advanced_point(
    shape: Sequence[Index], indices: Sequence[Value | None], i: Point, start: int, rank: int
) -> list[Index]:
    """The point of the indexed tensor for a point `i` of the result."""
    common, rest = i[start : start + rank], iter((*i[:start], *i[start + rank :]))
    point = []
    for d, size in enumerate(shape):
        ids = indices[d] if d < len(indices) else None
        if ids is None:
            point.append(next(rest))
        else:
            point.append(data_index(read(ids, broadcast(shape_of(ids), common)), size))
    return point


def ranks_of(indices: Sequence[Value | None]) -> list[int | None]:
    """Dims of the index tensor of each dim, a mask being one of one dim for each of its own."""
    ranks: list[int | None] = []
    for ids in indices:
        if ids is not None and tensor_type(ids).dtype is BOOL:
            ranks.extend([1] * len(shape_of(ids)))
        else:
            ranks.append(None if ids is None else len(shape_of(ids)))
    return ranks


def broadcast_shape(shapes: Sequence[Sequence[Index]]) -> tuple[Index, ...]:
    rank = max(len(s) for s in shapes)
    padded = [(index(1),) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(next((n for n in sizes if n != 1), index(1)) for sizes in zip(*padded, strict=True))
