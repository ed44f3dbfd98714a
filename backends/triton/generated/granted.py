"""Registers that the compilers give a thread: fewer than are needed where that makes room for more blocks."""

from __future__ import annotations

import numpy as np

from codesign.costmodel.gpu.generator import Held
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.occupancy import SCHEDULERS, register_limit, registers_of, warps_of
from codesign.costmodel.machine import Machine

SQUEEZED = 1.05
"""Registers wanted over those given where that makes room for a block."""

PUT_OFF = 1.25
"""The same where loads can be put off and the SM is then full of threads."""


def granted(held: Held, warps: Array, machine: Machine, pliable: np.bool_) -> Array:
    """The most registers of a thread: a few are given up where one more block then has room. `pliable`: loads can be put off."""
    warps = warps + held.further_warps
    threads = warps * machine.limit("warp_size")
    least = np.ceil(np.maximum(held.registers, 24.0) / SQUEEZED / 8.0) * 8.0
    more = np.floor(warps_of(machine, np.minimum(least, register_limit(machine, threads))) / warps)
    room = np.floor(registers_of(machine) / SCHEDULERS / np.ceil(np.maximum(more, 1.0) * warps / SCHEDULERS))
    room = np.floor(room / machine.limit("warp_size") / 8.0) * 8.0
    most = np.minimum(machine.limit("threads_per_sm"), machine.limit("blocks_per_sm") * threads)
    full = registers_of(machine) / most
    put_off = pliable & np.less_equal(held.registers, PUT_OFF * full)
    return np.where(put_off, np.minimum(np.maximum(room, least), full), np.maximum(room, least))
