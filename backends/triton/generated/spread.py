"""Which part of a tile one thread has: lanes and warps go along the dims that lie closest in memory first.

As `BlockedEncodingAttr` and the coalescing pass of Triton 3.9.0 lay loads and stores out. What is broadcast into such a tile, and what is summed
up of it, is spread as the dims are that it shares with it: a row's sum lies in each thread for each of the thread's rows, and the weights of
columns for each of its columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import NamedTuple

import numpy as np

from codesign.backends.triton.generated.layout import Layout, Product, vector_bytes
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Dims
from codesign.costmodel.gpu.runs import aligned_run, nearest_first
from codesign.costmodel.summary import Access


class Placed(NamedTuple):
    """How a tile lies: elements of one thread, lanes and warps along each dim, and along the `nearest` a thread's run of neighbours."""

    part: Mapping[str, Array]
    lanes: Mapping[str, Array]
    warps: Mapping[str, Array]
    nearest: str
    run: Array

    def run_along(self, dim: str) -> Array:
        """Neighbours along a dim that a thread takes at once."""
        return self.run if dim == self.nearest else 1.0


class Spread:
    """What a thread has of the tiles of some loads and stores, and of products' results, and of those within them."""

    def __init__(self, accesses: Iterable[Access], products: Iterable[Product], layout: Layout) -> None:
        self.layout = layout
        self.placed: list[Placed] = [
            layout.once(placed, access) for access in dict.fromkeys(accesses) if len(access.dims) > 1
        ]
        self.parts = [one.part for one in self.placed]
        self.results = [(found.direct, _result(found)) for found in products if not found.text.factors.ieee]

    def held(self, dims: Dims) -> Array:
        """Elements of a tile of these dims that a thread holds."""
        found = self.layout.held(dims)
        for part in self.parts:
            if {*dims} < part.keys():
                found = np.maximum(found, _product(part, dims))
        if self.layout.matrix_cores:
            return found
        for direct, part in self.results:
            if {*dims} <= part.keys():
                own = _product(part, dims)
                found = np.maximum(found, np.where(direct, 1.0, own) if self.layout.wide == 2 else own)
        return found

    def run(self, access: Access) -> Array | None:
        """Neighbours in memory of an access that a thread takes where it lies as a tile of more dims that it meets, if it meets one."""
        dim, run = aligned_run(access)
        met = [one.run if dim == one.nearest else 1.0 for one in self.placed if {*access.dims} < one.part.keys()]
        return np.minimum(reduce(np.maximum, met), float(run)) if met else None

    def warps_along(self, dims: Iterable[str]) -> Array:
        """Warps that have different parts of a tile along these dims, at the most."""
        found: Array = 1.0
        for one in self.placed:
            found = np.maximum(found, _product(one.warps, tuple(dim for dim in dims if dim in one.warps)))
        return found

    def beside(self, dims: Dims) -> Array:
        """Elements of a loaded tile of these dims that a thread has beside its part of a product's result, or of the tile that it meets."""
        found = self.layout.held(dims)
        for part in self.parts:
            if {*dims} < part.keys():
                found = np.maximum(found, _product(part, dims))
        for _, part in self.results:
            if {*dims} < part.keys():
                found = np.maximum(found, _product(part, dims))
        return found


def _result(found: Product) -> Mapping[str, Array]:
    """Elements of one thread along each side of a product's result: of 16 x 8 a lane has 2 rows and 2 columns."""
    rows, columns = found.part
    return dict(zip(found.results, (rows / 8.0, columns / 4.0), strict=True))


def placed(layout: Layout, access: Access) -> Placed:
    """How the tile of an access lies where it is loaded or stored."""
    lanes: Array = layout.lanes
    warps: Array = layout.warps
    each: Array = np.maximum(vector_bytes(access, layout) / access.dtype.bytes, 1.0)
    part: dict[str, Array] = {}
    along_lanes: dict[str, Array] = {}
    along_warps: dict[str, Array] = {}
    order, run = nearest_first(access), each
    for dim in order:
        size = layout.g.tile[dim]
        along = np.clip(np.floor(size / each), 1.0, lanes)
        beside = np.clip(np.floor(size / (each * along)), 1.0, warps)
        part[dim], along_lanes[dim], along_warps[dim] = np.maximum(size / (along * beside), 1.0), along, beside
        lanes, warps, each = lanes / along, warps / beside, 1.0
    return Placed(part, along_lanes, along_warps, order[0], run)


def _product(part: Mapping[str, Array], dims: Dims) -> Array:
    found: Array = 1.0
    for dim in dims:
        found = found * part[dim]
    return found
