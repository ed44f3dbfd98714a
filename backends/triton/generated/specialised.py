"""Products whose loop is parted among warps that load and warps that compute."""

from __future__ import annotations

import numpy as np

from codesign.costmodel.gpu.generator import Held
from codesign.costmodel.gpu.geometry import Array, wide_of
from codesign.costmodel.machine import Machine


def specialised(held: Held, apart: Array, warps: Array, machine: Machine) -> Held:
    """What is held where a product's loop is parted among warps that load and warps that compute.

    Further warps are launched beside those of the schedule, and registers are dealt out anew among them: all threads start
    with an equal share of the SM's. As Triton 3.9.0 does it: 4 warps become 12 on sm_90, whose code leaves other numbers as
    they are, with 16 KiB for what the parts hand over; on sm_100 and sm_120 4 more are launched, and fewer than 4 refused.
    """
    if wide_of(machine) == 1:
        apart = apart & np.equal(warps, 4.0)
    further, handed, least = (8.0, 16384.0 + 320.0, 0.0) if wide_of(machine) == 1 else (4.0, 192.0, 4.0)
    threads = (warps + further) * machine.limit("warp_size")
    share = np.floor(machine.limit("registers_per_sm") / threads / 8.0) * 8.0
    return Held(
        np.where(apart, np.minimum(share, machine.limit("registers_per_thread")), held.registers),
        held.shared_bytes + np.where(apart, handed, 0.0),
        held.granted,
        np.where(apart, further, 0.0),
        np.where(apart, least, 0.0),
    )
