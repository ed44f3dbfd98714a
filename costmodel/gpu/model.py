"""Fidelity 1: the analytic tile model of GPUs as a CostModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codesign.costmodel.gpu.occupancy import reasons
from codesign.costmodel.gpu.parameters import Calibration, Parameters, load_calibration
from codesign.costmodel.gpu.timing import Estimate, estimate
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch, Floats
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import MachineError
from codesign.ir.schedule import ScheduleBatch

TERM_NAMES = ("launch", "fill", "tensor", "vector", "l2", "dram", "store", "requests", "latency", "reduction")
CHUNK = 8192


@dataclass(frozen=True)
class GpuTileModel:
    """The tile model; `calibration` overrides the shipped parameters of the machine."""

    calibration: Calibration | None = None
    fidelity: ClassVar[int] = 1

    def parameters(self, machine: Machine) -> Calibration:
        return self.calibration or load_calibration(machine)

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """Seconds of each schedule with terms, interval, domain and reasons; see CostModel."""
        if machine.kind != "gpu":
            raise MachineError(f"{machine.name} is not a GPU", hint="cost_model_for(machine) picks the model of a machine")
        missing = [symbol for symbol in kernel.symbols if symbol not in (sizes or {})]
        if missing:
            raise MachineError(f"{kernel.name}: no value for size {', '.join(missing)}", hint="pass sizes={...}")
        calibration = self.parameters(machine)
        count = len(schedules)
        knobs = {name: np.asarray(column, dtype=np.float64) for name, column in knob_columns(schedules).items()}
        values = {name: float(value) for name, value in (sizes or {}).items()}
        pieces = []
        for start in range(0, count, CHUNK):
            part = {name: column[start : start + CHUNK] if len(column) > 1 else column for name, column in knobs.items()}
            found = estimate(kernel, machine, part, values, calibration.parameters, schedules.common.order)
            pieces.append(_pack(found, min(CHUNK, count - start)))
        columns = [np.concatenate([piece[i] for piece in pieces]) for i in range(len(pieces[0]))]
        terms, reason, read, write, occupancy, rounds, registers, shared, grid, flops = columns
        seconds = terms.sum(axis=1)
        fits = reason == ""
        seconds = np.where(fits, seconds, np.inf)
        low, high = spread_of(calibration, terms, family_of(kernel))
        joules = joules_of(machine, terms.sum(axis=1), read + write, flops)
        remarks = domain_remarks(kernel, machine, calibration)
        return CostBatch(
            seconds=seconds,
            terms=terms,
            term_names=TERM_NAMES,
            low=seconds * low,
            high=seconds * high,
            in_domain=np.full(count, not remarks),
            reason=reason,
            joules=joules,
            dram_bytes=read + write,
            details={
                "blocks_per_sm": occupancy,
                "rounds": rounds,
                "registers": registers,
                "shared_bytes": shared,
                "grid": grid,
                "dram_read_bytes": read,
                "dram_write_bytes": write,
                "flops": flops,
            },
            remarks=remarks,
        )


def knob_columns(schedules: ScheduleBatch) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """All knobs of a batch, those common to all schedules included."""
    columns = {name: np.asarray(column) for name, column in schedules.columns.items()}
    common = schedules.common
    for name, column in ScheduleBatch.of([common]).columns.items():
        if name != "pipeline" or "pipeline" not in columns:
            columns.setdefault(name, column)
    return columns


def _pack(found: Estimate, count: int) -> tuple[np.ndarray, ...]:
    """Terms that sum to the total, and details, as arrays of one chunk.

    What runs at the same time is shared out in proportion to the power of the norm: the resource that bounds gets nearly all.
    """
    terms = ledger(found, count)
    wide = [found.dram_read, found.dram_write, found.blocks_per_sm, found.rounds, found.occupancy.registers]
    wide += [found.occupancy.shared_bytes, found.grid, found.flops]
    arrays = [np.broadcast_to(np.asarray(value, dtype=np.float64), (count,)) for value in wide]
    return (terms, reasons(found.occupancy, count), *arrays)


def ledger(found: Estimate, count: int) -> Floats:
    """Terms [count, T] in the order of TERM_NAMES; rows sum to the total."""
    busy = ("tensor", "vector", "l2", "dram", "store", "requests", "latency")
    powers = np.stack([np.broadcast_to(np.asarray(found.resources[name]) ** 4.0, (count,)) for name in busy], axis=1)
    powers = powers / np.maximum(powers.sum(axis=1, keepdims=True), 1e-300)
    total = np.broadcast_to(found.total, (count,))
    launch = np.broadcast_to(np.asarray(found.launch, dtype=np.float64), (count,))
    reduction = np.broadcast_to(np.asarray(found.reduction, dtype=np.float64), (count,))
    fill = np.minimum(np.broadcast_to(found.resources["fill"], (count,)), np.broadcast_to(found.exposed, (count,)))
    body = total - launch - reduction - fill
    terms = np.empty((count, len(TERM_NAMES)))
    terms[:, 0] = launch
    terms[:, 1] = fill
    terms[:, 2:9] = powers * body[:, None]
    terms[:, 9] = reduction
    return terms


def regime_of(terms: Floats) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """`launch`, `memory` or `compute`, by what the largest share of the time is spent on."""
    launch = terms[:, 0] + terms[:, 1] + terms[:, 8] + terms[:, 9]
    compute = terms[:, 2] + terms[:, 3]
    memory = terms[:, 4] + terms[:, 5] + terms[:, 6] + terms[:, 7]
    pick = np.argmax(np.stack([launch, memory, compute], axis=1), axis=1)
    return np.array(["launch", "memory", "compute"], dtype=object)[pick]


def family_of(kernel: KernelSummary) -> str:
    """What a kernel is made of, for its interval: one `contraction`, a `chain` of them, or `streaming` without any."""
    count = sum(nest.contraction is not None for nest in kernel.nests)
    return "streaming" if count == 0 else "contraction" if count == 1 else "chain"


def spread_of(calibration: Calibration, terms: Floats, family: str = "contraction") -> tuple[Floats, Floats]:
    """Factors from the predicted time to its 90 % interval, by family and regime; the family's or the default where none was measured."""
    default = calibration.spread.get(family, calibration.spread.get("default", (0.6, 1.7)))
    regimes = regime_of(terms)
    low, high = np.empty(len(terms)), np.empty(len(terms))
    for regime in ("launch", "memory", "compute"):
        rows = regimes == regime
        low[rows], high[rows] = calibration.spread.get(f"{family}:{regime}", default)
    return low, high


def domain_remarks(kernel: KernelSummary, machine: Machine, calibration: Calibration) -> tuple[str, ...]:
    """What lies outside of what the model was validated for."""
    remarks = []
    for nest in kernel.nests:
        if nest.contraction and nest.contraction.left.name in ("f64",):
            remarks.append(f"{nest.name.split('#')[0]}: {nest.contraction.left} contractions were never validated")
    if machine.vendor != "nvidia":
        remarks.append(f"{machine.name}: the model was calibrated on NVIDIA GPUs only")
    return tuple(remarks)


def joules_of(machine: Machine, seconds: Floats, dram_bytes: Floats, flops: Floats) -> Floats:
    """Energy by traffic, operations and time; NaN where the machine's energies are unknown."""
    energy = machine.level("dram").energy
    if energy is None or energy.read_joules_per_byte.value is None:
        return np.full(len(seconds), np.nan)
    power = machine.power_watts.value if machine.power_watts and machine.power_watts.value else 0.0
    peak = max((machine.rate("tensor", name) or 0.0) for name in machine.unit("tensor").rate)
    per_flop = 0.6 * power / peak if peak else 0.0
    return dram_bytes * energy.read_joules_per_byte.value + flops * per_flop + seconds * 0.25 * power


def with_parameters(machine: Machine, parameters: Parameters) -> GpuTileModel:
    """The model with given parameters, for calibration and what-if questions."""
    return GpuTileModel(Calibration(machine.name, parameters, {"default": (0.7, 1.4)}, {}))
