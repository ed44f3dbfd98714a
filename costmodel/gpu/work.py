"""The work and the bytes of one block of a tiling, and what matrix units take for theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.slots import slots_of
from codesign.ir.functions import Unit
from codesign.ir.index import Index


@dataclass
class Work:
    """Work of one block: `tensor[dtype]` multiply-adds on padded tiles, `vector`, `double` (FP64), `integer` and `special`
    operations; multiply-adds of the vector unit in f32 (`ieee`) and in FP64 (`double_products`, part of `double`);
    `operand_clocks` of the load path for the operands of single threads, `operand_waits` of its warps for them, and
    `cache_waits` where they come from L2 each time; `request_bytes` that its load and store instructions ask for, or the
    `request_clocks` that they take where the code is known; bytes
    that it loads through L2 (sector waste included) and stores; `first_trips` of loops that wait for DRAM, `again_trips`
    of loops over data that was loaded before, `gathered_trips` of loops that load an index first; the bytes of one trip
    of its longest loop, the trips it makes, and barriers."""

    tensor: dict[str, Array] = field(default_factory=dict)
    ieee: Array = 0.0
    vector: Array = 0.0
    double: Array = 0.0
    double_products: Array = 0.0
    integer: Array = 0.0
    special: Array = 0.0
    load_bytes: Array = 0.0
    store_bytes: Array = 0.0
    atomic_bytes: Array = 0.0
    trip_bytes: Array = 0.0
    trips: Array = 1.0
    barriers: Array = 0.0
    staged_bytes: Array = 0.0
    static_bytes: Array = 0.0
    live_elements: Array = 0.0
    accumulators: Array = 0.0
    tensor_m: Array = 0.0
    tensor_n: Array = 0.0
    tensor_k: Array = 0.0
    tensor_bits: Array = 16.0
    operand_bytes: Array = 0.0
    shared_loads: Array = 0.0
    request_bytes: Array = 0.0
    request_clocks: Array | None = None
    operand_clocks: Array = 0.0
    operand_waits: Array = 0.0
    cache_waits: Array = 0.0
    thread_registers: Array = 0.0
    spill_steps: Array = 0.0
    first_trips: Array = 0.0
    again_trips: Array = 0.0
    gathered_trips: Array = 0.0
    refused: Array = ""
    """Why there is no code for a schedule."""
    sweeps: Mapping[tuple[str, tuple[Index, ...] | None], Array] = field(default_factory=dict)
    """Of operands that a block goes over again, how often."""


def padded_product(m: Array, n: Array, k: Array, bits: int) -> Array:
    """Multiply-adds of a matrix unit for a tile: of operands of 16 bits it takes 16 x 8 x 16 at the least."""
    return np.maximum(m, 16.0) * np.maximum(n, 8.0) * np.maximum(k, 16.0 if bits >= 16 else 32.0)


def operand_bytes(m: Array, n: Array, warps: Array, wide: int) -> Array:
    """Elements that shared memory gives and takes per element of k: what each warp reads for its part of the tile,
    and the tile once written (not where units with tensor memory read: there bulk copies go beside them).

    Warps that hold fragments in registers (Ampere's mma) read them for their own nearly square part; a warp group's
    mma reads 64 rows and all columns from shared memory directly.
    """
    if wide == 2:  # tensor memory: pairs of SMs hold half of the second operand each, and read each operand once
        return m + 0.5 * n
    if wide:
        return np.maximum(m / 64.0, 1.0) * (64.0 + n) * 0.5 + m + n
    side = np.sqrt(m * n / warps)
    rows, columns = np.minimum(side, m), np.minimum(side, n)
    return m * np.maximum(n / columns, 1.0) + n * np.maximum(m / rows, 1.0) + m + n


def count_slots(operations: Mapping[tuple[Unit, str], float], points: Array, total: Work) -> None:
    """Add operations to the lanes that do them."""
    for (unit, dtype), cost in operations.items():
        who, slots = slots_of(unit, dtype, cost)
        setattr(total, who, getattr(total, who) + points * slots)
