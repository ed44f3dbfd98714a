"""Loops of threads that load nothing ahead, as element-wise kernels and row reductions of serving systems have them, and
the clock that is left after a long run.

A thread loads, works on what came, stores, and goes on: a trip takes the latency of its loads and of its own
instructions one after the other. The warps of an SM wait at the same time; what they issue adds up.
"""

from __future__ import annotations

import numpy as np

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine

ARRIVAL = 1.5
"""Latencies until all loads of a stage or of a block's warps have arrived, over that of a lone load. Fitted: half and twice of it cost
1.5 and 4 points of the tables' error (`benchmarks/constants.py`)."""

ALU_CLOCKS = 4.5
"""Clocks until the result of an arithmetic instruction can be used: four and more, from Volta on (Jia et al., Dissecting the NVIDIA
Volta GPU Architecture via Microbenchmarking, 2018); tables of times hardly feel it (`benchmarks/constants.py`)."""

SPECIAL_CLOCKS = 18.0
"""The same for an issue slot of the special-function unit; tables tell that it is not twice as much (`benchmarks/constants.py`)."""

L1_CLOCKS = 40.0
"""Clocks until a load that hits L1 returns: 38 to 43 (Luo et al., Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, 2024)."""

TRIP_CLOCKS = 70.0
"""Clocks of what a trip does besides: addresses, compare, branch. Fitted (`benchmarks/constants.py`)."""

REQUEST_BYTES = 128.0
"""What the load/store path takes in a clock: a word for each of a warp's lanes (32 banks of 4 bytes, CUDA C++ Programming Guide)."""

REQUEST_CLOCKS = 1.5
"""Clocks of the load/store path for a warp's request, however narrow. Fitted: half and twice of it cost 0.3 and 1.3 points of the tables'
error (`benchmarks/constants.py`)."""

POWER_DELAY, POWER_SETTLING = 4.5e-3, 6.5e-3
"""Seconds of tensor work at the peak rate until power management begins to lower the clock, and in which the drop comes
within 1/e of all. Read off the same norms of an A100 in models of growing size. Products that are timed over and over go by it on four machines:
those that take 3 ms and more are 4 to 14 % slower than those of 1 ms and less."""


def trip_seconds(w: Work, threads: Array, missed: Array, clock: Array, l2_latency: float, dram_latency: float) -> Array:
    """Seconds of all trips of a block that is alone on its SM; `missed` is the share of loads that L2 does not have.

    A gathered load first waits for its index, which L2 holds.
    """
    arriving = ARRIVAL * (l2_latency + (dram_latency - l2_latency) * missed)
    loops = (w.first_trips + w.again_trips) * TRIP_CLOCKS + w.again_trips * L1_CLOCKS
    own = ((w.vector + w.integer + w.ieee) * ALU_CLOCKS + w.special * SPECIAL_CLOCKS) / threads
    return w.first_trips * arriving + w.gathered_trips * l2_latency + (loops + own) / clock


def request_clocks(w: Work, threads: Array, access_bytes: Array, warp: float, bulk: bool = False) -> Array:
    """Clocks of the load/store path for a block's loads and stores: what generated code issues, else `access_bytes` a
    thread, indices included; `bulk` copies of a tiled loop are asked for tile by tile, not thread by thread."""
    if w.request_clocks is not None:
        return w.request_clocks
    each = np.maximum(access_bytes * warp / REQUEST_BYTES, REQUEST_CLOCKS)
    clocks = (w.request_bytes / access_bytes + w.gathered_trips * threads) / warp * each
    return np.where(np.greater(w.tensor_k, 0.0), 0.0, clocks) if bulk else clocks


def sustained_clock(machine: Machine, operations: Array, lowest: Array) -> Array:
    """Share of the full clock that is left after so many operations of the tensor unit in one go: power management
    lowers it, to the `lowest` share, when the units have been busy for some milliseconds."""
    rate = machine.rate("tensor", "f16")
    if rate is None or (np.ndim(operations) == 0 and not operations):
        return 1.0
    busy = np.maximum(operations / rate - POWER_DELAY, 0.0)
    return 1.0 - (1.0 - lowest) * (1.0 - np.exp(-busy / POWER_SETTLING))
