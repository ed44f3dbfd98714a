"""How many blocks fit on one SM: registers, shared memory, threads; and why a schedule does not fit at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from codesign.costmodel.gpu.generator import Held
from codesign.costmodel.gpu.geometry import Array, wide_of
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import Reported
from codesign.ir.schedule import Schedule

SCHEDULERS = 4.0
"""Parts of an SM with a scheduler and a register file of their own (warp allocation granularity of NVIDIA's occupancy
calculator; SIMDs of a compute unit of CDNA 3)."""

MOST_SPILLED = 1024.0
"""Bytes that a thread may spill: as much again as all its registers. Beyond, a schedule does not fit."""


@dataclass
class Occupancy:
    """Blocks resident on one SM and what they take: `registers` per thread, `shared_bytes` per block; `spilled` bytes
    per thread."""

    blocks: Array
    threads: Array
    registers: Array
    shared_bytes: Array
    spilled: Array
    shared_limit: float
    threads_limit: float
    missing_warps: Array = 0.0
    """Warps that the code needs and the schedule does not have."""
    most_spilled: Array = MOST_SPILLED
    refused: Array = ""
    """Why there is no code at all."""


def occupancy(work: Work, machine: Machine, warps: Array, pipeline: Array, held: Held | None = None) -> Occupancy:
    """Occupancy of a schedule from what its code holds: `held` by generated code, or by a library's where it is None.

    Blocks per SM follow NVIDIA's occupancy calculator: registers come in units of 8 a thread and no more of them than
    make one block, a warp's lie in one of the SM's parts, and some shared memory is reserved for each block.
    """
    held_by = held if held is not None else held_by_library(work, machine, warps, pipeline)
    wanted, shared, granted, further, least_warps = held_by
    missing = np.maximum(least_warps - warps, 0.0)
    warps = warps + further
    threads = warps * machine.limit("warp_size")
    limit = register_limit(machine, threads)
    registers = np.minimum(np.minimum(np.ceil(np.maximum(wanted, 24.0) / 8.0) * 8.0, limit), granted)
    spilled = np.maximum(wanted - limit - 8.0, 0.0) * 4.0
    blocks = blocks_of(machine, registers, warps, shared + machine.limit("shared_reserved_per_block_bytes"))
    per_block = machine.limit("shared_per_block_bytes")
    most = machine.limit("threads_per_block")
    return Occupancy(blocks, threads, registers, shared, spilled, per_block, most, missing, refused=work.refused)


@dataclass(frozen=True)
class Known:
    """What a compiler reported, as columns of a batch; NaN for schedules that were not compiled."""

    registers: Array
    warps: Array
    shared_bytes: Array
    spilled_bytes: Array

    def take(self, rows: Array) -> Known:
        """What is known of some schedules of the batch."""
        return Known(self.registers[rows], self.warps[rows], self.shared_bytes[rows], self.spilled_bytes[rows])


def known(reports: Mapping[Schedule, Reported], schedules: Sequence[Schedule]) -> Known:
    """The reports of those of the schedules that have one."""
    found = [reports.get(schedule) for schedule in schedules]

    def column(name: str) -> Array:
        return np.array([np.nan if one is None else float(getattr(one, name)) for one in found])

    return Known(column("registers"), column("warps"), column("shared_bytes"), column("spilled_bytes"))


def as_reported(found: Occupancy, report: Known, machine: Machine) -> Occupancy:
    """The occupancy with what was reported in place of what was assumed; code that there is may spill as much as it does."""
    told = ~np.isnan(report.registers)
    registers = np.ceil(np.maximum(report.registers, 24.0) / 8.0) * 8.0
    reserved = machine.limit("shared_reserved_per_block_bytes")
    blocks = blocks_of(machine, registers, report.warps, report.shared_bytes + reserved)
    return replace(
        found,
        blocks=np.where(told, blocks, found.blocks),
        threads=np.where(told, report.warps * machine.limit("warp_size"), found.threads),
        registers=np.where(told, registers, found.registers),
        shared_bytes=np.where(told, report.shared_bytes, found.shared_bytes),
        spilled=np.where(told, report.spilled_bytes, found.spilled),
        missing_warps=np.where(told, 0.0, found.missing_warps),
        most_spilled=np.where(told, np.inf, found.most_spilled),
    )


def warps_of(machine: Machine, registers: Array) -> Array:
    """Warps whose threads have so many registers that an SM has room for: each lies in the file of one scheduler."""
    return SCHEDULERS * np.floor(registers_of(machine) / SCHEDULERS / (registers * machine.limit("warp_size")))


def blocks_of(machine: Machine, registers: Array, warps: Array, shared: Array) -> Array:
    """Blocks resident on one SM: of `warps` with so many `registers` a thread and so many bytes of `shared` memory."""
    capacity = machine.need(machine.level("shared").capacity_bytes, "levels.shared.capacity_bytes")
    by_shared = np.floor(capacity / np.maximum(shared, 1.0))
    by_registers = np.floor(warps_of(machine, registers) / warps)
    by_threads = np.floor(machine.limit("threads_per_sm") / (warps * machine.limit("warp_size")))
    return np.minimum(np.minimum(by_shared, by_registers), np.minimum(by_threads, machine.limit("blocks_per_sm")))


def register_limit(machine: Machine, threads: Array) -> Array:
    """Registers that a thread can have: what an instruction can name, and no more than one block's share of an SM's."""
    return np.minimum(machine.limit("registers_per_thread"), registers_of(machine) / threads)


def registers_of(machine: Machine) -> float:
    """Registers of 32 bits that the warps of an SM may have: what is allotted, as far as the file holds it."""
    capacity = machine.need(machine.level("registers").capacity_bytes, "levels.registers.capacity_bytes")
    return min(machine.limit("registers_per_sm"), capacity / 4.0)


def held_by_library(work: Work, machine: Machine, warps: Array, pipeline: Array) -> Held:
    """Registers of a thread and shared memory of a block in kernels that were written and tuned by hand.

    Registers: accumulators spread over the threads, and a base for addresses and indices. Units that read their
    operands from shared memory themselves (warp-group mma, tensor memory) need nothing more; warps that hold
    fragments keep those of a whole step of k, up to 64 registers. Element-wise tiles hold their values. Shared memory:
    the operands of contractions once per stage of the pipeline, one stage less where a warp's fragments are the last
    stage; what a loop does not move once.
    """
    threads = warps * machine.limit("warp_size")
    wide = wide_of(machine)
    direct = np.greater_equal(work.tensor_m, 64.0) if wide else np.False_
    side = np.sqrt(work.tensor_m * work.tensor_n / warps)
    rows = np.maximum(np.minimum(side, work.tensor_m), 1.0)
    columns = work.tensor_m * work.tensor_n / warps / rows
    fragments = np.minimum((rows + columns) * work.tensor_k / 64.0, 64.0)
    accumulators = work.accumulators / threads
    live = np.minimum(work.live_elements / threads, 512.0)
    held = np.where(
        direct,
        (22.0 if wide == 2 else 32.0) + np.maximum(accumulators, live),
        20.0 + np.maximum(1.2 * accumulators, live) + fragments,
    )
    if not work.tensor:  # contractions of the vector unit keep no fragments
        held = 24.0 + np.maximum(accumulators, live)
    registers = np.where(np.greater(work.tensor_m, 0.0), held, 16.0 + live) + work.thread_registers
    stages = np.where(direct, np.maximum(pipeline, 1.0), np.maximum(pipeline - 1.0, 1.0))
    shared = work.static_bytes + work.staged_bytes * stages + work.barriers * warps * 4.0 * 4.0
    return Held(registers, shared)


def reasons(found: Occupancy) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.object_]]:
    """Of each schedule whether it fits, and why it does not ("" where it does)."""
    columns = (
        found.shared_bytes,
        found.threads,
        found.blocks,
        found.spilled,
        found.registers,
        found.missing_warps,
        found.most_spilled,
        found.refused,
    )
    shared, threads, blocks, spilled, registers, missing, most_spilled, refusals = np.broadcast_arrays(*columns)
    texts = np.array(refusals, dtype=object)
    refused = texts != ""
    spills = spilled > most_spilled
    left = ~refused & (
        (missing > 0) | (blocks < 1) | spills | (shared > found.shared_limit) | (threads > found.threads_limit)
    )
    fits: npt.NDArray[np.bool_] = ~(left | refused)
    if not left.any():
        return fits, texts
    left = _explain(texts, left, missing > 0, missing, "warp_specialize: needs {:,.0f} warps more")
    text = f"shared memory: needs {{:,.0f}} B, limit {found.shared_limit:,.0f} B"
    left = _explain(texts, left, shared > found.shared_limit, shared, text)
    text = f"threads: needs {{:,.0f}} a block, limit {found.threads_limit:,.0f}"
    left = _explain(texts, left, threads > found.threads_limit, threads, text)
    for limit in np.unique(registers[left & spills]):
        text = f"registers: needs {{:,.0f}} a thread, limit {limit:,.0f}"
        left = _explain(texts, left, spills & (registers == limit), registers + spilled / 4.0, text)
    _explain(texts, left, left, registers * threads, "registers: {:,.0f} for one block exceed those of an SM")
    return fits, texts


def _explain(texts: npt.NDArray[np.object_], left: Array, why: Array, needs: Array, text: str) -> Array:
    """Write a reason with each need where it is `why` and none is written yet; where none is written after it."""
    where = left & why
    if where.any():
        values, which = np.unique(np.rint(needs[where]), return_inverse=True)
        texts[where] = np.array([text.format(float(value)) for value in values], dtype=object)[which]
    return left & ~why
