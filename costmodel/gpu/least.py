"""What a kernel takes at the least by the tile model, before any schedule of it is known: no price of this compiler's code is below."""

from __future__ import annotations

from collections.abc import Mapping

from codesign.costmodel.gpu.chip import cache_bytes, memory_bandwidth
from codesign.costmodel.gpu.generator import code_generator
from codesign.costmodel.gpu.overlap import INNER, overlap
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.timing import ABSORBED
from codesign.costmodel.gpu.traffic import lasting
from codesign.costmodel.machine import Machine
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import KernelSummary


def first_data_seconds(machine: Machine, p: Parameters) -> float:
    """Until a block's first data are there, which nothing beats besides the launch: see `plain_path` and `chain_block`."""
    return p.fill_latency * _latency(machine)


def least_seconds(
    kernel: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, int],
    p: Parameters,
    tiles: Mapping[str, float] | None = None,
) -> float:
    """Seconds besides the launch: a block's first data, and the work of whichever of the chip's units has most at the rate that it reaches.

    `tiles`: the longest tiles along the grid, where what programs do again is to count (`roofline_bounds`).

    Lanes on which a code generator issues less than the text says are left out. A kernel without products waits for its data once more, however
    few these are: no more is under way than what is loaded (`_moving`), or its loops wait for what comes (`trip_seconds`).
    """
    first = first_data_seconds(machine, p)
    tensor, vector, special, dram = roofline_bounds(kernel, machine, sizes, tiles)
    if kernel.group is not None and code_generator(machine).spares(kernel.group):
        vector = special = 0.0
    if kernel.strands:
        alone = (least_seconds(strand, machine, sizes, p) for strand in kernel.strands)
        return max(tensor, vector, special, dram, *alone)
    read, written = _moved_bytes(kernel, machine, sizes)
    bandwidth = memory_bandwidth(machine) * p.dram_efficiency
    reading = float(overlap((read / bandwidth, _latency(machine) if _waits(kernel) else 0.0), INNER))
    busy = max(tensor / p.tensor_efficiency, vector, special, reading + written / bandwidth)
    return max(busy, first) if kernel.chained > 1 else first + busy


def _latency(machine: Machine) -> float:
    return machine.need(machine.level("dram").latency_seconds, "levels.dram.latency_seconds")


def _moved_bytes(kernel: KernelSummary, machine: Machine, sizes: Mapping[str, int]) -> tuple[float, float]:
    """Bytes that DRAM reads, and those that it writes while the kernel runs; none of a kernel of which notes tell what L2 holds."""
    if kernel.notes:
        return 0.0, 0.0
    read, written = (float(total.evaluate(sizes)) for total in (kernel.read_bytes, kernel.write_bytes))
    if kernel.chained and machine.features.get("tma", False):
        written *= float(lasting(written, ABSORBED, cache_bytes(machine)))
    return read, written


def _waits(kernel: KernelSummary) -> bool:
    """Whether a kernel multiplies no matrices and loads data of each block's own that are not known to lie in L2."""
    loads = [access for nest in kernel.nests for access in nest.loads]
    own = not kernel.outer or any(set(kernel.outer) & set(access.dims) for access in loads)
    return bool(loads) and own and not kernel.chained and not kernel.notes
