"""Grids of large tiles: how few programs a kernel needs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from codesign.costmodel.gpu.runs import adjacent_dims
from codesign.costmodel.summary import KernelSummary

LARGE = 128
"""Rows and columns of a tile of a matrix product at which operands are read seldom enough on all machines here."""


def programs_of_large_tiles(summary: KernelSummary, sizes: Mapping[str, int]) -> int:
    """Programs of a grid whose tiles are large along dims where that saves reads: those that share a load, and those along which
    neighbours lie together in memory."""
    loads = [access for nest in summary.nests for access in nest.loads]
    extents: dict[tuple[frozenset[int], bool], int] = {}
    for dim in summary.outer:
        shared = frozenset(number for number, access in enumerate(loads) if dim not in access.dims)
        together = any(dim in adjacent_dims(access) for access in loads)
        extent = int(summary.extents[dim].evaluate(sizes))
        extents[shared, together] = extents.get((shared, together), 1) * extent
    return math.prod(-(-extent // LARGE) if any(alike) else extent for alike, extent in extents.items())
