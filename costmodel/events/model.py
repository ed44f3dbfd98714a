"""Fidelity 2 as a CostModel: the event simulation of each schedule of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codesign.costmodel.events.fluid import NAMES
from codesign.costmodel.events.simulation import simulate
from codesign.costmodel.events.timeline import TERMS
from codesign.costmodel.gpu.energy import total_joules
from codesign.costmodel.gpu.intervals import widened
from codesign.costmodel.gpu.model import GpuTileModel, distances_of, family_of, spread_of
from codesign.costmodel.gpu.parameters import Calibration
from codesign.costmodel.gpu.strands import side_by_side
from codesign.costmodel.machine import Machine
from codesign.costmodel.performed import performed
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import ScheduleBatch

REMARK = "the interval is that of the analytic model with the same parameters"


@dataclass(frozen=True)
class EventModel:
    """The event simulation; parameters, occupancy and intervals are those of the analytic model (`calibration`
    overrides them). `compiled`: the code is this compiler's, else a library's.
    """

    calibration: Calibration | None = None
    compiled: bool = True
    fidelity: ClassVar[int] = 2

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """Simulate every schedule that fits; see CostModel. Milliseconds a schedule."""
        if kernel.strands:
            return side_by_side(
                kernel, machine, schedules, lambda strand, some: self.predict(strand, machine, some, sizes)
            )
        analytic = GpuTileModel(self.calibration, self.compiled)
        below = analytic.predict(kernel, machine, schedules, sizes)
        calibration = analytic.parameters(machine)
        count = len(schedules)
        terms = np.zeros((count, len(TERMS)))
        work = np.full(count, np.nan)
        details = {f"busy.{name}": np.zeros(count) for name in (*NAMES, "sm")}
        dram = np.array(below.dram_bytes)
        for row in range(count):
            if below.reason[row]:
                continue
            schedule = schedules.row(row)
            which, schedule = performed(kernel, schedule) if self.compiled else (kernel, schedule)
            seen = simulate(
                which, machine, schedule, sizes, calibration.parameters, trace=False, compiled=self.compiled
            )
            terms[row] = [seen.terms[name] for name in TERMS]
            work[row] = seen.joules
            dram[row] = seen.dram_read_bytes + seen.dram_write_bytes
            for name, value in seen.busy.items():
                details[f"busy.{name}"][row] = value
            details["busy.sm"][row] = 1.0 - seen.idle
        seconds = np.where(below.reason == "", terms.sum(axis=1), np.inf)
        far = distances_of(kernel, calibration)
        low, high = widened(spread_of(calibration, terms, family_of(kernel)), far)
        return CostBatch(
            seconds=seconds,
            terms=terms,
            term_names=TERMS,
            low=seconds * low,
            high=seconds * high,
            in_domain=below.in_domain,
            reason=below.reason,
            joules=total_joules(work, terms.sum(axis=1), machine),
            dram_bytes=dram,
            details={**below.details, **details},
            remarks=(*below.remarks, REMARK),
            spreads=below.spreads,
            residual=below.residual,
        )
