"""What one launch costs: the same for a kernel, a library call and a collective, at every fidelity."""

from __future__ import annotations

from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import Machine


def launch_seconds(machine: Machine) -> float:
    """Seconds from a kernel's launch to its first instruction and from its last to the next launch: fitted on GPUs, which
    take the launches of a replayed graph, and the machine file's figure on accelerators."""
    if machine.kind == "gpu":
        return load_calibration(machine).parameters.launch_seconds
    return machine.need(machine.launch.get("kernel_seconds"), "launch.kernel_seconds")
