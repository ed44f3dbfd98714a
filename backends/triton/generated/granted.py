"""Registers that the compilers give a thread: fewer than are needed where that makes room for more blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from codesign.costmodel.gpu.generator import Held
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.occupancy import SCHEDULERS, register_limit, registers_of, warps_of
from codesign.costmodel.gpu.program import Program
from codesign.costmodel.machine import Machine

SQUEEZED = 1.05
"""Registers wanted over those given where that makes room for a block, of code with fragments of products."""

REORDERED = 1.2
"""The same of code without products, which can be put in another order: of 261 kernels for sm_80, sm_90 and sm_100 with more than
32 registers 109 have just as many as leave room for one block more, and twenty have one or two fewer (Triton 3.9.0). Blocks per SM of 192 kernels
without products come out as compiled for 76 % with 1.05 and 78 % with 1.2. LLVM orders sums for CDNA for as many waves, too
(`GCNMaxOccupancySchedStrategy`): of 153 kernels for gfx942 and gfx950 78 % with 1.05, 80 % with 1.2."""

PUT_OFF = 1.25
"""The same where loads can be put off and the SM is then full of threads."""


class Freedom(NamedTuple):
    """What the compilers may do with a program: put it in another order (`reordered`), and put off its loads until there are registers for them
    (`pliable`); whether it `sums`, or only works element by element."""

    reordered: bool
    pliable: bool
    sums: bool


def freedom(program: Program) -> Freedom:
    """There are no fragments, or neither those nor loops."""
    reordered = not program.multiplies
    return Freedom(reordered, reordered and not program.loops, bool(program.inner))


def granted(held: Held, warps: Array, machine: Machine, free: Freedom) -> Array:
    """The most registers of a thread: a few are given up where one more block then has room."""
    squeezed = REORDERED if free.reordered and (free.sums or machine.limit("warp_size") <= 32.0) else SQUEEZED
    warps = warps + held.further_warps
    threads = warps * machine.limit("warp_size")
    least = np.ceil(np.maximum(held.registers, 24.0) / squeezed / 8.0) * 8.0
    more = np.floor(warps_of(machine, np.minimum(least, register_limit(machine, threads))) / warps)
    room = np.floor(registers_of(machine) / SCHEDULERS / np.ceil(np.maximum(more, 1.0) * warps / SCHEDULERS))
    room = np.floor(room / machine.limit("warp_size") / 8.0) * 8.0
    most = np.minimum(machine.limit("threads_per_sm"), machine.limit("blocks_per_sm") * threads)
    full = registers_of(machine) / most
    put_off = np.bool_(free.pliable) & np.less_equal(held.registers, PUT_OFF * full)
    return np.where(put_off, np.minimum(np.maximum(room, least), full), np.maximum(room, least))
