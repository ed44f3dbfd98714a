"""The energy of a kernel on a GPU, and the time that it takes at the power limit: one account for both.

The limit throttles the clock until what a kernel draws fits: its work's energy in what the limit leaves beside the static
power. So `joules` over seconds never exceeds the limit, and reaches it where the limit bounds the time.
"""

from __future__ import annotations

import numpy as np

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.streaming import REQUEST_BYTES
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine, as_shipped

STATIC_POWER = 0.15
"""Share of the power limit that does not follow the work, where a machine file does not say how many watts: leakage,
memory refresh, links. It falls with the limit, as voltage does, and does not rise above that of the chip as shipped."""

VECTOR_POWER = 0.6
"""Share of the power limit that the vector unit draws at its peak rate, where a machine file does not say what an
operation takes. An assumption: vendors size the limit for the matrix units, and vector code alone stays below it."""

OPERAND_BITS = {"f8": 8.0, "i8": 8.0, "f4": 4.0, "tf32": 32.0, "f32": 32.0}
"""Bits of the operands of a tensor unit's dtypes, 16 where not listed."""


def static_watts(machine: Machine) -> float:
    """Watts that a machine draws whatever it does; 0 where its file has no figure of power."""
    if machine.static_watts is not None and machine.static_watts.value is not None:
        return machine.static_watts.value
    limit = power_limit(machine) or 0.0
    return STATIC_POWER * min(limit, power_limit(as_shipped(machine)) or limit)


def power_limit(machine: Machine) -> float | None:
    """Watts that a machine may draw; None where its file does not say."""
    return None if machine.power_watts is None else machine.power_watts.value


def work_joules(w: Work, grid: Array, read: Array, write: Array, machine: Machine, p: Parameters) -> Array:
    """Joules of a kernel's work: its operations and its `read` and `write` bytes of DRAM, and what its blocks move through
    L2; NaN where the machine file has no energy of DRAM.

    An operation of the tensor unit takes energy in proportion to the width of its operands (`tensor_joules`: of 16 bits),
    what brings them included. The vector unit takes a slot's for each lane and instruction, FP64 twice that.
    """
    dram, l2, shared = (machine.level(name).energy for name in ("dram", "l2", "shared"))
    tensor: Array = 0.0
    for dtype, count in w.tensor.items():
        tensor = tensor + 2.0 * count * p.tensor_joules * OPERAND_BITS.get(dtype, 16.0) / 16.0
    joules = grid * (tensor + (w.vector + w.ieee + 2.0 * w.double + w.integer + w.special) * slot_joules(machine))
    if l2 is not None:
        loads = 0.0 if w.tensor else w.load_bytes
        reads, writes = l2.read_joules_per_byte.value or 0.0, l2.write_joules_per_byte.value or 0.0
        joules = joules + grid * (loads * reads + (w.store_bytes + 2.0 * w.atomic_bytes) * writes)
    if shared is not None:  # operands of the vector unit's products, staged once and read for every step
        reads, writes = shared.read_joules_per_byte.value or 0.0, shared.write_joules_per_byte.value or 0.0
        staged = np.where(np.greater(w.operand_clocks, 0.0), w.load_bytes, 0.0)
        joules = joules + grid * (w.operand_clocks * REQUEST_BYTES * reads + staged * writes)
    if dram is None or dram.read_joules_per_byte.value is None or dram.write_joules_per_byte.value is None:
        return joules + np.nan
    return joules + read * dram.read_joules_per_byte.value + write * dram.write_joules_per_byte.value


def slot_joules(machine: Machine) -> float:
    """Joules of one lane's instruction on the vector unit."""
    figure = machine.unit("vector").energy_joules_per_operation.get("f32")
    if figure is not None and figure.value is not None:
        return figure.value
    rate = machine.rate("vector", "f32")
    return VECTOR_POWER * (power_limit(machine) or 0.0) / (rate / 2.0) if rate else 0.0


def power_seconds(work: Array, machine: Machine) -> Array:
    """Seconds that the joules of a kernel's work take at the power limit; 0 where no limit or no energy is known."""
    limit = power_limit(machine)
    if limit is None:
        return 0.0
    left = limit - static_watts(machine)
    return np.where(np.isnan(work), 0.0, work / left) if left > 0.0 else np.where(np.isnan(work), 0.0, np.inf)


def total_joules(work: Array, seconds: Array, machine: Machine) -> Array:
    """Joules of a kernel of `seconds`, what the machine draws anyway included."""
    return work + static_watts(machine) * seconds
