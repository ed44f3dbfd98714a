"""A mapping and its costs as one JSON document."""

from __future__ import annotations

from math import inf
from typing import Any

from codesign.costmodel.mapping.counting import Bytes, Costs, Counting
from codesign.costmodel.mapping.nest import Nest
from codesign.costmodel.mapping.problem import Problem
from codesign.ir.schedule import Schedule


def mapping_document(
    nest: Nest, counting: Counting, costs: Costs, schedule: Schedule, asked: Problem | None = None
) -> dict[str, Any]:
    """Of one mapping: what each level reads, writes, holds and how long it is busy, and its DRAM traffic beside the least there can be.

    `asked`: the product as it was before its dims were filled up."""
    hierarchy, problem = nest.hierarchy, asked or nest.problem
    seconds, busy = costs.seconds.item(), [part.item() for part in costs.busy]
    linked = [axis.name for axis in hierarchy.axes if axis.link_bandwidth]
    parts = [*(store.name for store in hierarchy.stores), "multipliers", *(f"{name} links" for name in linked)]
    fits = bool(costs.fit.item())
    outer = hierarchy.stores[0].name
    capacity = _capacity(nest)
    return {
        "machine": hierarchy.name,
        "counting": counting.name,
        "seconds": seconds,
        "joules": costs.joules.item(),
        "fits": fits,
        "reason": "" if fits else _reason(nest, costs),
        "bound": parts[max(range(len(parts)), key=lambda i: busy[i])],
        "utilisation": problem.macs / (hierarchy.rate * hierarchy.multipliers) / seconds,
        "dataflow": nest.stationary,
        "extents": dict(problem.extents),
        "filled": {dim: size for dim, size in nest.problem.extents.items() if size != problem.extents[dim]},
        "levels": [_level(nest, costs, number) for number in range(len(hierarchy.stores))],
        "multiply_seconds": busy[len(hierarchy.stores)],
        "link_joules": sum(joules.item() for joules in costs.link_joules.values()),
        "link_seconds": dict(zip(linked, busy[len(hierarchy.stores) + 1 :], strict=True)),
        "dram": {
            "level": outer,
            "bytes": _of(costs.reads, 0) + _of(costs.writes, 0),
            "least_bytes": problem.least_bytes(capacity),
            "compulsory_bytes": problem.compulsory_bytes,
            "capacity_bytes": capacity if capacity < inf else None,
        },
        "schedule": schedule.to_json(),
    }


def _capacity(nest: Nest) -> float:
    """Bytes that all instances of all memories inside the outermost one hold together: nothing can stay in less."""
    hierarchy, total, instances = nest.hierarchy, 0.0, 1
    axes = list(hierarchy.axes)
    for number, store in enumerate(hierarchy.stores):
        while axes and axes[0].before <= number:
            instances *= axes.pop(0).size
        if number:
            widest = max(operand.bytes for operand in nest.problem.operands)
            total += instances * (store.values * widest if store.values is not None else store.capacity)
    return total


def _of(bytes_: Bytes, store: int) -> float:
    return float(sum(value.item() for (at, _), value in bytes_.items() if at == store))


def _level(nest: Nest, costs: Costs, number: int) -> dict[str, Any]:
    operands = {}
    for operand in nest.problem.operands:
        read, written = (found.get((number, operand.name)) for found in (costs.reads, costs.writes))
        if read is not None or written is not None:
            operands[operand.name] = {
                "read": 0.0 if read is None else read.item(),
                "written": 0.0 if written is None else written.item(),
            }
    return {
        "name": nest.hierarchy.stores[number].name,
        "busy_seconds": costs.busy[number].item(),
        "held_bytes": costs.held[number].item(),
        "read_bytes": _of(costs.reads, number),
        "written_bytes": _of(costs.writes, number),
        "operands": operands,
    }


def _reason(nest: Nest, costs: Costs) -> str:
    for store, held in zip(nest.hierarchy.stores, costs.held, strict=True):
        if store.values is None and held.item() > store.capacity:
            return f"{store.name}: needs {held.item():,.0f} B, holds {store.capacity:,.0f}"
    return "more values than a register holds, or more instances than there are"
