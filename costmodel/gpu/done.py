"""The work of one block of generated code: what its program's text does, with the tiles and trips of a batch of schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.phases import Phase, phases_of
from codesign.costmodel.gpu.program import Dims, Multiply, Program, Steps, Transfer
from codesign.costmodel.gpu.runs import sector_waste
from codesign.costmodel.gpu.sweeps import sweeps_of
from codesign.costmodel.gpu.threads import thread_requests
from codesign.costmodel.gpu.tiles import Tiles
from codesign.costmodel.gpu.work import Work, count_slots, operand_bytes, padded_product
from codesign.costmodel.summary import Access, footprint
from codesign.costmodel.tested import Tested

ANY = 2.0
"""Integer slots of a lane for whether any of a tile's passes: a choice and a maximum, as seen in ptxas 13's code for sm_90."""


def work_of(
    program: Program,
    tiles: Tiles,
    sector: float,
    tested: Mapping[str, Tested] | None = None,
    phases: Sequence[Phase] | None = None,
) -> Work:
    """Operations, products and bytes of one block. `sector`: bytes that memory moves at the least; `tested`: by dim, what asks data whether
    there is anything to do in a step along it; `phases`: those of a part of a program."""
    total = Work()
    _operations(program, tiles, total)
    for text in program.multiplies.values():
        _multiply(text, tiles, total)
    for rows, columns, _ in {(text.rows, text.columns, text.depth) for text in program.multiplies.values()}:
        total.accumulators = total.accumulators + tiles.elements((rows, columns))
    _moves(program, tiles, sector, total)
    total.sweeps = sweeps_of(program) if phases is None else {}
    _waits(program, phases_of(program) if phases is None else phases, tiles, total)
    for loops in program.steps:
        total.trips = np.maximum(total.trips, tiles.trips(loops))
    total.trips = total.trips * tiles.times((), tiles.g.blocks)
    for work in program.elements.values():
        total.live_elements = np.maximum(total.live_elements, tiles.elements(work.dims))
        if work.reduced:
            total.barriers = total.barriers + tiles.trips(work.around)
    for dim, test in (tested or {}).items():
        _asking(test, dim, tiles, total)
    return total


def _asking(test: Tested, dim: str, tiles: Tiles, total: Work) -> None:
    """Tests of tiles; in steps that are made the mask is worked out anyway."""
    asked = tiles.g.asked[dim]
    left_out = np.maximum(asked - tiles.g.trips[dim], 0.0)
    for dims, operations in test.operations:
        count_slots(operations, tiles.lanes_of(dims) * left_out, total)
    total.integer = total.integer + ANY * tiles.lanes_of(test.dims) * asked
    total.barriers = total.barriers + asked


def _operations(program: Program, tiles: Tiles, total: Work) -> None:
    """Issue slots: all threads of a block issue, however small the tile."""
    for dims, around, operations in program.operations:
        points = tiles.once(_points, dims, around)
        for name, cost in operations.items():
            if name == "multiply_adds":
                total.ieee = total.ieee + points * cost
            else:
                if name == "double_multiply_adds":
                    total.double_products = total.double_products + points * cost
                    name = "double"
                setattr(total, name, getattr(total, name) + points * cost)


def _points(tiles: Tiles, dims: Dims, around: Steps) -> Array:
    return tiles.lanes_of(dims) * tiles.times(around, dims)


def _multiply(text: Multiply, tiles: Tiles, total: Work) -> None:
    """A matrix product: of a matrix unit, or element by element of threads that read its factors from shared memory."""
    m, n, k = (tiles.elements((dim,)) for dim in (text.rows, text.columns, text.depth))
    times, factors, warps = tiles.trips(text.around), text.factors, tiles.warps
    if factors.ieee:
        total.ieee = total.ieee + m * n * k * times
        total.spill_steps = total.spill_steps + k * times
        clocks = thread_requests(text.rows, text.columns, tiles.g, m, n, warps)
        total.operand_clocks = total.operand_clocks + clocks * k * times * warps
    else:
        bits = factors.operand.bits
        total.tensor_bits = float(bits)
        count = padded_product(m, n, k, bits) * times * factors.products
        total.tensor[factors.rate] = total.tensor.get(factors.rate, 0.0) + count
        moved = operand_bytes(m, n, warps, tiles.wide) * k * times * factors.operand.bytes
        total.operand_bytes = total.operand_bytes + moved
    total.tensor_m = np.maximum(total.tensor_m, m)
    total.tensor_n = np.maximum(total.tensor_n, n)
    total.tensor_k = np.maximum(total.tensor_k, k)


def _moves(program: Program, tiles: Tiles, sector: float, total: Work) -> None:
    """Bytes that a block loads and stores, and those of one trip of the loop that loads most."""
    trips: dict[Steps, Array] = {}
    for transfer, count in program.moves:
        size = tiles.once(_size, transfer.access, sector if transfer.kind == "load" else 0.0)
        if transfer.kind == "load" and transfer.around:
            trips[transfer.around] = trips.get(transfer.around, 0.0) + size
        moved = size * count * tiles.times(transfer.around, transfer.followed)
        total.request_bytes = total.request_bytes + moved
        name = f"{transfer.kind}_bytes"
        setattr(total, name, getattr(total, name) + moved)
    for size in trips.values():
        total.trip_bytes = np.maximum(total.trip_bytes, size)


def _size(tiles: Tiles, access: Access, sector: float) -> Array:
    """Bytes that a tile of an access moves, in whole sectors where there are some."""
    size = footprint(access, tiles.mean_sizes) * access.dtype.bytes
    return size * sector_waste(access, tiles.g, sector) if sector else size


def _waits(program: Program, phases: Iterable[Phase], tiles: Tiles, total: Work) -> None:
    """Trips of loops that wait for memory, of those over data that was loaded before, and of those that load an index first."""
    for phase in phases:
        if not phase.fetches:
            continue
        steps = _most([fetch.load for fetch in phase.fetches], tiles)
        if phase.fresh:
            total.first_trips = total.first_trips + steps
        else:
            total.again_trips = total.again_trips + steps
    waiting = [load for load, _ in program.moves if any(_repeated(position, tiles) for position in load.positions)]
    if waiting:
        total.gathered_trips = _most(waiting, tiles)


def _most(loads: Iterable[Transfer], tiles: Tiles) -> Array:
    most: Array = 1.0
    for load in loads:
        most = np.maximum(most, tiles.times(load.around, load.followed))
    return most


def _repeated(load: Transfer, tiles: Tiles) -> bool:
    """Whether a load is done in a loop, or by a block that walks along one of its dims."""
    return bool(load.around) or any(dim in tiles.g.blocks and dim in tiles.g.trips for dim in load.followed)
