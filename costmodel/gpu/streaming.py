"""Kernels without contractions, as threads see them: what a trip of a loop waits for when nothing is loaded ahead.

A thread loads, works on what came, stores, and goes on: each trip takes the latency of its loads and of its own
instructions one after the other. Other warps of the SM issue meanwhile; the issue of all of them adds up.
"""

from __future__ import annotations

import numpy as np

from codesign.costmodel.gpu.geometry import Array, Geometry, Work
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary

ALU_CLOCKS = 4.5
"""Clocks until the result of an arithmetic instruction can be used."""

SPECIAL_CLOCKS = 18.0
"""The same for an issue slot of the special-function unit."""

L1_CLOCKS = 40.0
"""Clocks until a load that hits L1 returns."""

TRIP_CLOCKS = 70.0
"""Clocks of a trip's addresses, its compare and branch."""

LOADED = 1.5
"""Latencies until the loads of all warps of a block have arrived, over that of a lone load."""

POWER_DELAY, POWER_SETTLING = 4.5e-3, 6.5e-3
"""Seconds of tensor work at the peak rate until power management begins to lower the clock, and in which the drop gets
within 1/e of the clock that can be sustained."""

NARROW_CLOCKS = 1.5
"""Clocks of the load/store path for a warp's request, however narrow."""


def gathered_trips(kernel: KernelSummary, g: Geometry) -> Array:
    """Trips of a block's loops that find the address of a load by another load, which they wait for first."""
    most: Array = 0.0
    for nest in kernel.nests:
        trips: Array = 1.0
        for dim in (*nest.dims, *nest.reductions):
            trips = trips * g.trips.get(dim, 1.0)
        for access in nest.loads:
            by = {v for part in access.index for scalar in part.data() for v in scalar.variables()}
            if any(dim in g.trips for dim in by):
                most = np.maximum(most, trips)
    return most


def trip_seconds(
    kernel: KernelSummary,
    g: Geometry,
    w: Work,
    threads: Array,
    missed: Array,
    clock: Array,
    l2_latency: float,
    dram_latency: float,
) -> Array:
    """Seconds of all trips of a block that loads nothing ahead, if it were alone on its SM."""
    arriving = LOADED * (l2_latency + (dram_latency - l2_latency) * missed)
    loops = (w.first_trips + w.again_trips) * TRIP_CLOCKS + w.again_trips * L1_CLOCKS
    own = ((w.vector + w.integer) * ALU_CLOCKS + w.special * SPECIAL_CLOCKS) / threads
    return w.first_trips * arriving + gathered_trips(kernel, g) * l2_latency + (loops + own) / clock


def request_clocks(access_bytes: Array) -> Array:
    """Clocks that a warp's load or store takes in the load/store path: 128 bytes a clock, and two at least."""
    return np.maximum(access_bytes * 32.0 / 128.0, NARROW_CLOCKS)


def sustained_clock(machine: Machine, operations: Array, p: Parameters) -> Array:
    """Share of the full clock that is left after `operations` of the tensor unit in one go: power management lowers it
    some milliseconds after the units got busy."""
    rate = machine.rate("tensor", "f16")
    if rate is None or (np.ndim(operations) == 0 and not operations):
        return 1.0
    busy = np.maximum(operations / rate - POWER_DELAY, 0.0)
    return 1.0 - (1.0 - p.profiled_clock) * (1.0 - np.exp(-busy / POWER_SETTLING))
