"""Which cost model answers for a machine at a fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostModel, Reported
from codesign.costmodel.roofline import Roofline
from codesign.ir.errors import UnsupportedError
from codesign.ir.schedule import Schedule

PRICE_OF_A_PRICE = {0: 1.0, 1: 36.0, 2: 3.4e6}
"""Time that pricing one schedule takes at each fidelity, over that of the roofline: the rates of `benchmarks/prediction_rate.py`, on one core."""


def cost_model_for(machine: Machine, fidelity: int = 1) -> CostModel:
    """The model of a machine: 0 roofline, 1 analytic (tile model on GPUs, dataflow model on accelerators), 2 event
    simulation (GPUs; an accelerator's program is simulated by its own simulator).
    """
    if fidelity == 0:
        return Roofline()
    if machine.kind == "gpu" and fidelity == 1:
        return GpuTileModel()
    if machine.kind == "gpu" and fidelity == 2:
        from codesign.costmodel.events import EventModel

        return EventModel()
    if machine.kind == "dataflow" and fidelity == 1:
        from codesign.costmodel.dataflow import DataflowModel

        return DataflowModel()
    raise UnsupportedError(
        f"no cost model of fidelity {fidelity} for {machine.name}", hint="fidelities: 0, 1, and 2 on GPUs"
    )


def informed(model: CostModel, reports: Mapping[Schedule, Reported]) -> CostModel:
    """The model with what a compiler said of some schedules of the kernel that it is asked about; itself where it assumes nothing of the code."""
    return replace(model, reported=reports) if isinstance(model, GpuTileModel) else model
