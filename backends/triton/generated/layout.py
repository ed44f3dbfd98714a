"""How Triton lays out a program's tiles: what a thread takes at once, who does its products, which part of a tile a warp has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Dims, Multiply, Program
from codesign.costmodel.gpu.runs import aligned_run
from codesign.costmodel.gpu.tiles import Tiles
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import Access

SMALLEST_WARP = 16.0
"""Rows of a result's tile that a warp has at the least."""

WIDEST_ACCESS = 16.0
"""Bytes of the widest load of a thread."""


@dataclass
class Layout(Tiles):
    """Tiles of a program as the generator makes code of them.

    `pipeline`: stages of each schedule. `padded`: every stage of an operand has a buffer, with gaps against conflicts. `by_descriptor`: loads
    are bulk copies, which take a buffer for every stage; `specialised`: warps of their own make them.
    """

    pipeline: Array = 1.0
    padded: bool = False
    by_descriptor: Array = 0.0
    specialised: Array = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.matrix_cores = self.lanes > 32.0
        self.pipelined = np.greater(self.pipeline, 1.0)
        self.of_bytes = self.padded if self.matrix_cores else not self.wide

    @staticmethod
    def of(tiles: Tiles, machine: Machine, knobs: Mapping[str, Array]) -> Layout:
        """That of schedules whose columns are `knobs`."""
        by_descriptor = knobs.get("tma", 0.0) if machine.features.get("tma", False) else 0.0
        return Layout(
            tiles.g,
            tiles.warps,
            tiles.wide,
            tiles.lanes,
            tiles.known_elements,
            tiles.known_trips,
            tiles.known,
            pipeline=np.maximum(knobs.get("pipeline", 1.0), 1.0),
            padded=machine.features.get("padded_stages", False),
            by_descriptor=by_descriptor,
            specialised=by_descriptor * knobs.get("warp_specialize", 0.0),
        )


class Sides(NamedTuple):
    """The dims of a product's result, and what decides which part of it a warp has: see `Multiply`. `bits` of a factor."""

    rows: str
    columns: str
    lead: tuple[str, str] | None
    followed: bool
    follows: bool
    bits: int


@dataclass
class Product:
    """How a matrix product is done: `direct` by a unit that reads its second factor from shared memory itself. `rows`, `columns` of the
    result's tile and `depth` of the reduction; `part`: rows and columns of a warp. `widened`: factors of 8 bits are converted to 16 first."""

    text: Multiply
    direct: Array
    rows: Array
    columns: Array
    depth: Array
    part: tuple[Array, Array]
    widened: Array

    @property
    def results(self) -> Dims:
        return self.text.rows, self.text.columns

    @property
    def bytes(self) -> Array:
        """Of an element of its factors as the unit takes them."""
        return np.where(self.widened, 2.0, float(self.text.factors.operand.bytes))

    def repeats(self, layout: Layout) -> Array:
        """How often each result is worked out, by one warp each: more than once where there are more warps along a side than it has parts."""
        rows, columns = self.part
        whole = np.maximum(self.rows, SMALLEST_WARP) * np.maximum(self.columns, 8.0)
        return np.maximum(layout.warps * rows * columns / whole, 1.0)


def product(text: Multiply, layout: Layout) -> Product:
    """How a product is done under each schedule."""
    rows, columns, depth = (layout.elements((dim,)) for dim in (text.rows, text.columns, text.depth))
    sides = Sides(text.rows, text.columns, text.lead, text.followed, text.follows, text.factors.operand.bits)
    direct = layout.once(_direct, sides)
    widened = ~np.asarray(direct) & (text.factors.rate == "f8" and not layout.of_bytes)
    return Product(text, direct, rows, columns, depth, layout.once(part_of_a_warp, sides), widened)


def _direct(layout: Layout, sides: Sides) -> Array:
    direct: Array = np.False_
    if layout.wide and sides.bits <= 16:
        direct = np.greater_equal(layout.elements((sides.rows,)), 64.0) & np.greater_equal(layout.warps, 4.0)
        if layout.wide == 2:
            direct = direct & np.less_equal(layout.warps, 8.0)
    return direct


def products_of(program: Program, layout: Layout) -> dict[Multiply, Product]:
    """How each product of a program is done."""
    return {text: product(text, layout) for text in program.multiplies.values()}


def direct_of(products: Mapping[Multiply, Product]) -> Array:
    """Whether a matrix unit that reads shared memory itself does any of the products."""
    direct: Array = np.False_
    for found in products.values():
        direct = direct | found.direct
    return direct


def vector_bytes(access: Access, layout: Layout) -> Array:
    """Bytes that one thread loads or stores at once: a run of neighbours, up to 16 bytes, and no more than the thread's
    share of the tile."""
    found: Array = layout.once(_vector_bytes, access)
    return found


def _vector_bytes(layout: Layout, access: Access) -> Array:
    dim, run = aligned_run(access)
    if not dim:
        return float(access.dtype.bytes)
    even = int(np.gcd.reduce(np.append(np.asarray(layout.g.extents[dim]).astype(np.int64), 16)))
    elements = np.minimum(np.minimum(layout.g.tile[dim], float(math.gcd(run, even))), layout.held(access.dims))
    return np.minimum(elements * access.dtype.bytes, WIDEST_ACCESS)


def part_of_a_warp(layout: Layout, sides: Sides) -> tuple[Array, Array]:
    """Rows and columns of a product's result that one warp has, as Triton 3.9.0 places warps.

    Warps of several products in one body all go along the longer side of the last (`warpsPerTileV2`; the last is what Triton comes to first, and
    the others follow it); warp groups, four warps along the rows each, go along the rows while there are any left, and all of them where another
    product follows (`warpsPerTileV3`). Matrix cores have all warps along the rows where another product follows, and as many as there are rows for
    in that which follows (`warpsPerTileMFMA`), an instruction taking 32 x 32 results where there are as many. Warps beyond the rows or columns that
    there are have the same ones again.
    """
    rows, columns = layout.elements((sides.rows,)), layout.elements((sides.columns,))
    down, across = warp_tile(rows, columns, layout)
    if layout.matrix_cores and (sides.followed or sides.follows):
        side = instruction_side(rows, columns)
        high = layout.warps if sides.followed else np.minimum(layout.warps, np.ceil(rows / side))
        down = np.maximum(rows / high, side)
        across = np.maximum(columns / (layout.warps / high), side)
    if sides.lead is not None and not layout.matrix_cores:
        along_rows = np.greater_equal(*(layout.elements((dim,)) for dim in sides.lead))
        down = np.maximum(np.where(along_rows, rows / layout.warps, rows), SMALLEST_WARP)
        across = np.maximum(np.where(along_rows, columns, columns / layout.warps), 8.0)
    if layout.wide == 1:
        direct = layout.once(_direct, sides)
        high = layout.warps if sides.followed else np.clip(rows / SMALLEST_WARP, 4.0, layout.warps)
        down = np.where(direct, np.maximum(rows / high, SMALLEST_WARP), down)
        across = np.where(direct, np.maximum(columns / (layout.warps / high), 8.0), across)
    return down, across


def instruction_side(rows: Array, columns: Array) -> Array:
    """Rows and columns of one instruction of matrix cores: 32 where the results have as many of both, else 16."""
    return np.where(np.greater_equal(np.minimum(rows, columns), 32.0), 32.0, SMALLEST_WARP)


def warp_tile(rows: Array, columns: Array, layout: Layout) -> tuple[Array, Array]:
    """Rows and columns of a product's result that one warp has: warps are doubled along the side on which each has more instructions
    (of 16 x 8), along the rows where both have as many, as `warpsPerTileV2` of Triton 3.9.0 does."""
    down, across, left = (
        np.log2(np.maximum(count, 1.0)) for count in (rows / SMALLEST_WARP, columns / 8.0, layout.warps)
    )
    longer = np.minimum(np.abs(down - across), left)
    rows_longer, both = np.greater(down, across), left - longer
    down = down - np.where(rows_longer, longer, 0.0) - np.ceil(both / 2.0)
    across = across - np.where(rows_longer, 0.0, longer) - np.floor(both / 2.0)
    return np.exp2(np.maximum(down, 0.0)) * SMALLEST_WARP, np.exp2(np.maximum(across, 0.0)) * 8.0
