"""The values that the terms of the tile model are made of, by term: bytes, rates, waves, and how long each resource
alone would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.costmodel.gpu.energy import power_limit, static_watts
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.occupancy import known
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.paths import late_seconds
from codesign.costmodel.gpu.timing import Estimate, estimate, tensor_seconds
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine
from codesign.costmodel.performed import performed
from codesign.costmodel.protocol import Reported
from codesign.costmodel.roofline import kernel_flops
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule, ScheduleBatch


@dataclass(frozen=True)
class Formula:
    """What one term is made of: `values` by name (units in the names) and `alone`, the seconds of that resource if
    nothing else took time (None where the term has no resource of its own).
    """

    values: dict[str, float] = field(default_factory=dict)
    alone: float | None = None


def formulas(
    kernel: KernelSummary,
    machine: Machine,
    schedule: Schedule,
    sizes: Mapping[str, int],
    p: Parameters,
    reported: Mapping[Schedule, Reported] | None = None,
    compiled: bool = True,
) -> tuple[dict[str, Formula], dict[str, float]]:
    """The formula of each term of one schedule, and facts about its grid: blocks, waves, occupancy and what limits it; `reported`: by
    schedule, what a compiler said of its code; `compiled` by this compiler, else a library's."""
    report = known(reported, [schedule]) if reported else None
    if compiled:
        kernel, schedule = performed(kernel, schedule)
    knobs = {name: np.asarray(column, dtype=np.float64) for name, column in _columns(schedule).items()}
    numbers = {name: float(value) for name, value in sizes.items()}
    found = estimate(kernel, machine, knobs, numbers, p, schedule.order, compiled, report)
    parts, rounds = found.parts, _number(found.rounds)
    w, g, t = parts.work, parts.tiling, parts.traffic
    grid, sms = _number(found.grid), float(machine.instances("shared"))
    latency = machine.need(machine.level("dram").latency_seconds, "levels.dram.latency_seconds")
    values: dict[str, dict[str, float]] = {
        "launch": {
            "launch_seconds": p.launch_seconds,
            "further_launches": _number(parts.further_launches),
            "further_launch_seconds": p.helper_seconds,
        },
        "fill": _fill(kernel, grid, rounds, latency, p),
        "tensor": {"useful_operations": kernel_flops(kernel, sizes), **_tensor(machine, found)},
        "vector": {
            "vector_operations": grid * _number(w.vector + w.ieee),
            "double_operations": grid * _number(w.double),
            "integer_operations": grid * _number(w.integer),
            "special_operations": grid * _number(w.special),
            "efficiency": p.vector_efficiency * _number(parts.warps_beside),
            "spilled_bytes": grid * _number(parts.spilled_bytes),
            "operand_seconds": _number(parts.operand_seconds),
            "busiest_sm_over_mean": _number(parts.busiest) * sms / grid,
        },
        "l2": {
            "load_bytes": grid * _number(w.load_bytes),
            "store_bytes": grid * _number(w.store_bytes),
            "moved_bytes": _number(parts.l2_bytes),
            "as_long_as_bytes": _number(parts.l2_counted),
            "bandwidth_bytes_per_second": _number(parts.l2_bandwidth) / p.l2_efficiency,
            "efficiency": p.l2_efficiency,
            "busiest_sm_bytes": _number(parts.port_bytes),
            "port_bytes_per_second": _number(parts.port),
        },
        "dram": {
            "read_bytes": _number(found.dram_read),
            "least_read_bytes": float(kernel.read_bytes.evaluate(dict(sizes))),
            "as_long_as_bytes": _number(t.read_effort),
            "bandwidth_bytes_per_second": _number(parts.dram_bandwidth) / p.dram_efficiency,
            "efficiency": p.dram_efficiency,
        },
        "store": {
            "write_bytes": _number(found.dram_write),
            "as_long_as_bytes": _number(t.write_effort),
            "bandwidth_bytes_per_second": _number(parts.dram_bandwidth) / p.dram_efficiency,
            "efficiency": p.dram_efficiency,
        },
        "requests": {
            "request_bytes": grid * _number(w.request_bytes),
            "busiest_sm_clocks": _number(parts.busiest) * _number(parts.request_clocks),
            "clocks_per_second": _number(parts.clock),
        },
        "power": {
            "joules_per_operation": p.tensor_joules,
            "work_joules": _number(found.joules),
            "static_watts": static_watts(machine),
            "limit_watts": power_limit(machine) or 0.0,
        },
        "latency": {"rounds": rounds, **_latency(w, knobs, p)},
        "reduction": {"parts": _number(g.split), "latencies": p.reduction_latency, "dram_latency_seconds": latency},
    }
    alone = {name: _number(seconds) for name, seconds in found.resources.items()}
    return {name: Formula(entry, alone.get(name)) for name, entry in values.items()}, _grid_facts(found, grid, sms)


def _fill(kernel: KernelSummary, grid: float, rounds: float, latency: float, p: Parameters) -> dict[str, float]:
    return {
        "rounds": rounds,
        "dram_latency_seconds": latency,
        "latencies_each": p.fill_latency,
        "last_block_seconds": float(late_seconds(grid, p, latency)) if kernel.chained == 1 else 0.0,
    }


def _grid_facts(found: Estimate, grid: float, sms: float) -> dict[str, float]:
    """Facts about the grid: its waves, and what a block and a thread take."""
    slots = sms * _number(found.blocks_per_sm)
    return {
        "sms": sms,
        "waves": grid / slots,
        "last_wave_share": (grid / slots) % 1.0 or 1.0,
        "threads_per_block": _number(found.occupancy.threads),
        "spilled_bytes_per_thread": _number(found.occupancy.spilled),
    }


def _latency(w: Work, knobs: Mapping[str, Any], p: Parameters) -> dict[str, float]:
    """What the latency of a block's loop is made of: clocks of each trip, or the loads that its trips wait for."""
    if _number(w.trips) <= 1.0 or _number(w.tensor_k) or _number(knobs.get("pipeline", 1.0)) > 1.0:
        return {"trips": _number(w.trips), "clocks_each": p.step_clocks}
    trips = {"first": w.first_trips, "again": w.again_trips, "gathered": w.gathered_trips}
    return {f"{name}_trips": _number(count) for name, count in trips.items()}


def _tensor(machine: Machine, found: Estimate) -> dict[str, float]:
    """Operations over the peak, the efficiency, and what the busiest SM has more than the mean make the seconds."""
    parts, w, sms = found.parts, found.parts.work, float(machine.instances("shared"))
    block = 2.0 * sum(_number(count) for count in w.tensor.values())
    if not block:
        return {}
    return {
        "operations_on_padded_tiles": block * _number(found.grid),
        "peak_operations_per_second": block * sms / _number(tensor_seconds(w.tensor, machine, sms)),
        "efficiency": _number(parts.tensor_efficiency),
        "busiest_sm_over_mean": _number(parts.busiest) * sms / _number(found.grid),
        "tile_m": max(_number(w.tensor_m), 1.0),
        "tile_n": max(_number(w.tensor_n), 1.0),
    }


def _columns(schedule: Schedule) -> Mapping[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return knob_columns(ScheduleBatch.of([schedule]))


def _number(value: object) -> float:
    return float(np.max(np.asarray(value, dtype=np.float64)))
