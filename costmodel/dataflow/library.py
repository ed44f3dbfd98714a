"""Products as a machine's own compiler runs them, where that is known: operands that fit the scratchpad are brought there before it starts.

XLA's memory space assignment does so on TPUs, and an op that is measured alone has nothing before it to hide them behind. What does not fit is
streamed, as by the best schedule here; so is a product of a vector, which is a sum and no work for the arrays.
"""

from __future__ import annotations

import numpy as np

from codesign.costmodel.dataflow.engines import matmul_clocks
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.machine import Machine
from codesign.ir.dtypes import DType

SMALLEST_SIDE = 16
"""Rows from which on the arrays do a product."""


def staged_whole(machine: Machine, dtype: DType, m: int, n: int, k: int) -> bool:
    """Whether the operands and the result of a product are held whole."""
    if not machine.features.get("operands_staged_whole", False) or min(m, n, k) < SMALLEST_SIDE:
        return False
    return (m * k + n * k + m * n) * dtype.bytes <= target_of(machine).capacity["core"]


def staged_terms(machine: Machine, dtype: DType, m: int, n: int, k: int) -> dict[str, float]:
    """Seconds of a product whose operands are brought in, multiplied and brought out one after the other."""
    target = target_of(machine)
    moved = (m * k + n * k + m * n) * dtype.bytes
    rows = -(-m // target.cores)
    clocks = float(np.asarray(matmul_clocks(target, rows, n, k, dtype)))
    return {
        "launch": target.launch_seconds,
        "latency": 2.0 * target.latency_clocks / target.clock_hz,
        "dram": moved / target.dram.bytes_per_clock / target.clock_hz,
        "tensor": clocks / target.clock_hz,
    }
