"""The time of strands side by side on the grid of one kernel (`ir.tiling.strands`), from what each takes alone.

A block takes as long beside blocks of other strands as beside its own, and finds as much room on an SM as the strand that holds most leaves.
So the kernel is launched once and takes until the SMs have done all blocks: no less than its longest strand, nor than
what all SMs share (DRAM, power) needs for the work of all. Strands of equal blocks take what one kernel of all their blocks would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codesign.costmodel.gpu.energy import static_watts
from codesign.costmodel.gpu.occupancy import Known
from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch, Floats
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule, ScheduleBatch

Alone = Callable[[KernelSummary, ScheduleBatch], CostBatch]
"""Predicts one strand."""

Predict = Callable[[KernelSummary, ScheduleBatch, Known | None], CostBatch]
"""Predicts one strand, with what a block holds on chip where that is known."""


def side_by_side(kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, predict: Alone) -> CostBatch:
    """The cost of a kernel of several strands, each of which is predicted as it is beside the others."""
    return _together([predict(strand, restricted(schedules, strand)) for strand in kernel.strands], machine)


def of_one_code(kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, predict: Predict) -> CostBatch:
    """The same of strands whose blocks hold on chip what the one that holds most does: it fits what fits each alone."""
    own = [(strand, restricted(schedules, strand)) for strand in kernel.strands]
    alone = [predict(strand, batch, None) for strand, batch in own]
    held = _held(alone, machine)
    parts = [
        replace(predict(strand, batch, known), reason=first.reason)
        for (strand, batch), first, known in zip(own, alone, held, strict=True)
    ]
    return _together(parts, machine)


def restricted(schedules: ScheduleBatch, strand: KernelSummary) -> ScheduleBatch:
    """What schedules of the whole kernel say of a strand."""
    columns = {name: column for name, column in schedules.columns.items() if _concerns(name, strand)}
    count = len(schedules)
    columns = {name: np.broadcast_to(column, (count,)) for name, column in columns.items()}
    common = schedules.common
    order = tuple(dim for dim in common.order if dim in strand.extents)
    return ScheduleBatch(columns, Schedule(order=order, extras=common.extras, pipeline=common.pipeline))


def _concerns(column: str, strand: KernelSummary) -> bool:
    kind, _, dim = column.partition(".")
    return kind not in ("tile", "reduce", "split") or dim in strand.extents


def _held(alone: Sequence[CostBatch], machine: Machine) -> list[Known]:
    """What a block of the one code holds, which is the most of any strand; spilled is what the strand itself spills."""

    def most(name: str) -> Any:
        return np.max([part.details[name] for part in alone], axis=0)

    warps = most("threads") / machine.limit("warp_size")
    registers, shared = most("registers"), most("shared_bytes")
    return [Known(registers, warps, shared, np.asarray(part.details["spilled_bytes"])) for part in alone]


def _together(parts: Sequence[CostBatch], machine: Machine) -> CostBatch:
    first = parts[0]
    launch = first.term_names.index("launch")
    reason = first.reason.copy()
    for part in parts[1:]:
        reason = np.where(reason == "", part.reason, reason)
    begun = np.max([part.terms[:, launch] for part in parts], axis=0)
    bodies = [part.terms.sum(axis=1) - part.terms[:, launch] for part in parts]
    details, busy = _details(parts, bodies, machine)
    waits = [_shared(part, machine) for part in parts]
    apart = np.max([whole - wait for whole, wait in zip(bodies, waits, strict=True)], axis=0)
    body = np.maximum(np.maximum(busy, np.max(bodies, axis=0)), apart + np.sum(waits, axis=0))
    terms = np.sum([part.terms for part in parts], axis=0)
    terms[:, launch] = 0.0
    terms *= (body / np.maximum(terms.sum(axis=1), 1e-30))[:, None]
    terms[:, launch] = begun
    seconds = np.where(reason == "", terms.sum(axis=1), np.inf)
    separate = np.sum([part.terms.sum(axis=1) for part in parts], axis=0)

    def spread(name: str) -> Floats:
        """Seconds at an end of the interval: as wide as the strands' together."""
        with np.errstate(invalid="ignore"):
            ends = [getattr(part, name) / part.seconds * part.terms.sum(axis=1) for part in parts]
            found: Floats = np.where(reason == "", seconds * np.sum(ends, axis=0) / separate, np.inf)
        return found

    idle = static_watts(machine) * (separate - terms.sum(axis=1))
    return replace(
        first,
        seconds=seconds,
        terms=terms,
        low=spread("low"),
        high=spread("high"),
        in_domain=np.all([part.in_domain for part in parts], axis=0),
        reason=reason,
        joules=np.sum([part.joules for part in parts], axis=0) - idle,
        dram_bytes=np.sum([part.dram_bytes for part in parts], axis=0),
        details=details,
        spreads=_widest(parts),
        remarks=tuple(dict.fromkeys(remark for part in parts for remark in part.remarks)),
    )


def _widest(parts: Sequence[CostBatch]) -> dict[str, tuple[float, float]]:
    """What widens the intervals of some strands, each as far as of any."""
    found: dict[str, tuple[float, float]] = {}
    for name, (down, up) in (entry for part in parts for entry in part.spreads.items()):
        before = found.get(name, (0.0, 0.0))
        found[name] = max(before[0], down), max(before[1], up)
    return found


def _shared(part: CostBatch, machine: Machine) -> Floats:
    """Seconds of a strand in which no other gets on: DRAM moves its bytes, as far as they are felt, or the power limit holds all back."""
    memory = machine.levels[0]
    moved = part.dram_bytes / machine.need(memory.bandwidth, f"levels.{memory.name}.bandwidth")
    term = dict(zip(part.term_names, part.terms.T, strict=True))
    found: Floats = np.minimum(term["dram"] + term["store"], moved) + term["power"]
    return found


def _details(parts: Sequence[CostBatch], bodies: Sequence[Floats], machine: Machine) -> tuple[dict[str, Any], Floats]:
    """Details of the kernel, and the seconds that its blocks keep the slots of all SMs."""
    details: dict[str, Any] = {}
    for name in parts[0].details:
        columns = [np.asarray(part.details[name], dtype=np.float64) for part in parts]
        summed = name in ("grid", "flops") or name.startswith("dram_")
        details[name] = np.sum(columns, axis=0) if summed else np.max(columns, axis=0)
    details["blocks_per_sm"] = np.maximum(np.min([part.details["blocks_per_sm"] for part in parts], axis=0), 1.0)
    resident, sms = details["blocks_per_sm"], float(machine.instances("shared"))
    turns = np.stack([np.asarray(part.details["grid"], dtype=np.float64) / sms for part in parts], axis=1)
    busiest = np.stack([np.asarray(part.details["rounds"], dtype=np.float64) * resident for part in parts], axis=1)
    each = np.stack(bodies, axis=1) / np.maximum(busiest, 1e-9)
    busy: Floats = np.array([_until_all_are_done(*row) for row in zip(turns.tolist(), each.tolist(), strict=True)])
    details["rounds"] = np.array([_until_all_are_done(row, [1.0] * len(parts)) for row in turns.tolist()]) / resident
    details["rounds"] = np.maximum(details["rounds"], 1.0)
    return details, busy


def _until_all_are_done(turns: Sequence[float], seconds: Sequence[float]) -> float:
    """Seconds until the SMs have done all blocks: of each strand so many an SM in the mean, each of so many seconds, one strand after the
    other, the next block always where there is room first."""
    levels = [(0.0, 1.0)]
    """Shares of the SMs and when they have room."""
    for count, length in zip(turns, seconds, strict=True):
        whole = max(int(count) - 1, 0)
        levels, left = [(time + whole * length, share) for time, share in levels], count - whole
        while left > 1e-9:
            time, share = levels.pop(0)
            taken = min(share, left)
            left -= taken
            levels += [(time + length, taken)] + ([(time, share - taken)] if share - taken > 1e-9 else [])
            levels.sort()
    return levels[-1][0]
