"""The work of a block of a library's kernel where no text of ours says it: products in tiles of several dims and of single threads, operands
shared by clusters, coordinates found by division."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from codesign.costmodel.gpu.geometry import SECTOR_BYTES, Array, Geometry
from codesign.costmodel.gpu.runs import sector_waste
from codesign.costmodel.gpu.threads import (
    thread_registers,
    thread_requests,
    threads_held,
    window_bytes,
    window_clocks,
    window_of,
)
from codesign.costmodel.gpu.work import Work, count_slots, operand_bytes, padded_product
from codesign.costmodel.summary import Access, KernelSummary, Nest, footprint, index_range

EPILOGUE = 4.0
"""Instructions of a chain's results at the end of a block: cleared, normalised, converted, staged, stored."""


def product_work(
    kernel: KernelSummary,
    g: Geometry,
    vector_unit: Array = 0.0,
    warps: Array = 4.0,
    wide: int = 0,
    sector: float = SECTOR_BYTES,
) -> Work:
    """Operations and bytes of one block of a library's product or chain of products, whose tiles no text of ours has: sides of several dims,
    single threads' parts, clusters. `vector_unit` 1 does contractions on the vector unit, as a matrix-vector kernel does. `sector`: bytes
    that memory moves at the least."""
    total = Work()
    mean = g.sizes(g.mean)
    seen: set[tuple[Any, ...]] = set()
    for nest in kernel.nests:
        _operations(nest, g, total, vector_unit, warps, wide)
        trip_bytes: Array = 0.0
        fresh = False
        for access in nest.loads:
            key = _covers(access, g)
            elements = footprint(access, mean)
            size = elements * access.dtype.bytes * sector_waste(access, g, sector)
            moved = size * _times(access, g)
            total.request_bytes = total.request_bytes + moved
            fresh = fresh or (key not in seen and (not g.blocks or any(dim in g.blocks for dim in access.dims)))
            if key not in seen:  # of what two products read, the first keeps the tile for the other
                total.load_bytes = total.load_bytes + moved
                total.shared_loads = total.shared_loads + moved * (1.0 - 1.0 / _sharers(access, g))
            seen.add(key)
            if any(dim in g.trips for dim in access.dims):
                trip_bytes = trip_bytes + size * (padding(access, g) if kernel.chained == 1 else 1.0)
        _stores(nest, g, mean, total)
        total.trip_bytes = np.maximum(total.trip_bytes, trip_bytes)
        steps: Array = 1.0
        for dim in (*nest.dims, *nest.reductions):
            if dim in g.trips:
                steps = steps * g.trips[dim]
        total.trips = np.maximum(total.trips, steps)
        if nest.loads and fresh:
            total.first_trips = total.first_trips + steps
        elif nest.loads:
            total.again_trips = total.again_trips + steps
        if _gathers(nest, g):
            total.gathered_trips = np.maximum(total.gathered_trips, steps)
        if nest.reductions and nest.contraction is None:  # over lanes after the loop
            total.barriers = total.barriers + 1.0
    if kernel.chained > 1:
        # running results are scaled anew every trip, and pass through registers and shared memory at the end
        total.vector = total.vector + total.accumulators * (total.trips + EPILOGUE)
    return total


def _stores(nest: Nest, g: Geometry, mean: Mapping[str, Array], total: Work) -> None:
    """Bytes that a nest stores."""
    for access in nest.stores:
        size = footprint(access, mean) * access.dtype.bytes * _times(access, g)
        total.request_bytes = total.request_bytes + size
        if access.kind == "atomic":
            total.atomic_bytes = total.atomic_bytes + size
        else:
            total.store_bytes = total.store_bytes + size


DIVISION_INTEGER, DIVISION_SPECIAL = 20.0, 8.0
"""Issue slots of a 32-bit quotient and remainder by a number that the compiler does not know: conversions and
reciprocals on the special unit, corrections on the integer one. Fitted: half and twice of the
first cost 0 and 0.3 points of the tables' error, of the second 0.1 and 0.7 (`benchmarks/constants.py`)."""


def unflatten(kernel: KernelSummary, g: Geometry, total: Work) -> None:
    """Divisions by which threads that walk over collapsed dims find their coordinates."""
    points: Array = g.thread["unflatten"]
    for dim in kernel.outer:
        points = points * g.tile[dim] * g.trips.get(dim, 1.0)
    total.integer = total.integer + points * DIVISION_INTEGER
    total.special = total.special + points * DIVISION_SPECIAL


def _gathers(nest: Nest, g: Geometry) -> bool:
    """True when the address of a load is found by another load in every trip of the nest's loops."""
    for access in nest.loads:
        by = {dim for part in access.index for scalar in part.data() for dim in scalar.variables()}
        if any(dim in g.trips for dim in by):
            return True
    return False


def _operations(
    nest: Nest,
    g: Geometry,
    total: Work,
    vector_unit: Array,
    warps: Array,
    wide: int,
) -> None:
    elements: Array = 1.0
    for dim in nest.dims:
        elements = elements * g.tile[dim]
    for dims, operations in (((*nest.dims, *nest.reductions), nest.operations), *nest.hoisted):
        if not operations:
            continue
        lanes: Array = 1.0
        loops: Array = 1.0
        for dim in dims:
            lanes, loops = lanes * g.tile[dim], loops * g.trips.get(dim, 1.0)
        count_slots(operations, lanes * loops, total)
    for dims, operations in nest.spared:
        lanes, loops = 1.0, g.whole
        for dim in dims:
            lanes, loops = lanes * g.tile[dim], loops * g.trips.get(dim, 1.0)
        count_slots(operations, -lanes * loops, total)
    if nest.contraction is not None:
        _contraction(nest, g, total, vector_unit, warps, wide)
        return
    tile_points: Array = elements
    for dim in nest.reductions:
        tile_points = tile_points * g.tile[dim]
    total.live_elements = np.maximum(total.live_elements, tile_points)


def _contraction(nest: Nest, g: Geometry, total: Work, vector_unit: Array, warps: Array, wide: int) -> None:
    found = nest.contraction
    assert found is not None
    m, n, k, batch, loops = 1.0, 1.0, 1.0, 1.0, 1.0
    for dim in found.m:
        m = m * g.tile[dim]
    for dim in found.n:
        n = n * g.tile[dim]
    for dim in found.k:
        k = k * g.tile[dim]
    for dim in found.batch:
        batch = batch * g.tile[dim]
    for dim in (*nest.dims, *nest.reductions):
        if dim in g.trips:
            loops = loops * g.trips[dim]
    width = found.operand
    window = window_of(nest) if g.threaded else None
    if window is not None:  # operands go by the window that a thread reads, not by rows and columns
        total.ieee = total.ieee + threads_held(window, g) * 32.0 * warps * k * batch * loops
        clocks, waits = window_clocks(window, g, warps)
        total.operand_clocks = total.operand_clocks + clocks * batch * loops
        total.operand_waits = total.operand_waits + waits * batch * loops
        total.static_bytes = total.static_bytes + window_bytes(window, g)
        total.accumulators = total.accumulators + m * n * batch
        return
    if found.factors.ieee:
        if width.name == "f64":
            total.double = total.double + m * n * k * batch * loops
            total.double_products = total.double_products + m * n * k * batch * loops
        else:
            total.ieee = total.ieee + m * n * k * batch * loops
        total.thread_registers = total.thread_registers + thread_registers(nest, g)
        total.spill_steps = total.spill_steps + k * loops
        total.operand_clocks = (
            total.operand_clocks + thread_requests(found.m[-1], found.n[-1], g, m, n, warps) * k * batch * loops * warps
        )
        if g.threaded:  # loads of the elements of k that are unrolled go together
            waits = k / g.thread.get(f"inner.thread.{found.k[-1]}", 1.0) * batch * loops * warps
            staged = g.thread.get(f"staged.{found.m[-1]}", 1.0) * g.thread.get(f"staged.{found.n[-1]}", 1.0)
            total.operand_waits = total.operand_waits + np.where(np.greater(staged, 0.0), waits, 0.0)
            total.cache_waits = total.cache_waits + np.where(np.greater(staged, 0.0), 0.0, waits)
    else:
        padded = padded_product(m, n, k, width.bits) * batch * loops
        total.tensor_bits = float(width.bits)
        if np.ndim(vector_unit) or vector_unit:
            total.ieee = total.ieee + vector_unit * 2.0 * m * n * k * batch * loops
            padded = padded * (1.0 - vector_unit)
        rate = found.factors.rate
        total.tensor[rate] = total.tensor.get(rate, 0.0) + padded * found.factors.products
        total.operand_bytes = total.operand_bytes + operand_bytes(
            m, n, warps, wide
        ) * k * batch * loops * width.bytes * (1.0 - vector_unit)
    total.accumulators = total.accumulators + m * n * batch
    loads = {dim for access in nest.loads for dim in access.dims}
    for side, rows, dtype in ((found.m, m, found.left), (found.n, n, found.right)):
        if nest.internal and not any(dim in loads for dim in side):
            continue  # a value of the group: it stays in registers
        size = rows * k * batch * dtype.bytes
        moves: Array = 1.0
        for dim in (*side, *found.k):
            moves = moves * g.trips.get(dim, 1.0)
        looped = np.greater(moves, 1.0) | np.equal(loops, 1.0)
        total.staged_bytes = total.staged_bytes + np.where(looped, size, 0.0)
        total.static_bytes = total.static_bytes + np.where(looped, 0.0, size)
    total.tensor_m = np.maximum(total.tensor_m, m)
    total.tensor_n = np.maximum(total.tensor_n, n)
    total.tensor_k = np.maximum(total.tensor_k, k * (1.0 - vector_unit))


def _sharers(access: Access, g: Geometry) -> Array:
    """Blocks of one cluster that get the same data by one multicast read of L2."""
    together: Array = 1.0
    for dim, size in g.cluster.items():
        if dim not in access.dims:
            together = together * np.minimum(size, g.blocks[dim])
    return together


def _times(access: Access, g: Geometry) -> Array:
    times: Array = 1.0
    for dim in access.dims:
        if dim in g.trips:
            times = times * g.trips[dim]
    return times


def _covers(access: Access, g: Geometry) -> tuple[Any, ...]:
    """What part of a tensor a tile touches, as a key: accesses that cover a whole extent in different order touch the
    same data."""
    sizes = g.sizes(g.tile)
    parts: list[Any] = [access.tensor]
    for expression, extent in zip(access.index, access.shape, strict=True):
        whole = np.greater_equal(index_range(expression, sizes), extent.evaluate(g.symbols))
        parts.append("whole" if np.all(whole) else expression)
    return tuple(parts)


def padding(access: Access, g: Geometry) -> Array:
    """How many times as large as what it has in the mean an operand's part of a tile is: a stage of a loop holds whole tiles."""
    whole: Array = 1.0
    for dim in access.dims:
        if dim in g.blocks:
            whole = whole * g.tile[dim] / g.mean[dim]
    return whole
