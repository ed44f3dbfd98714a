"""AccelForge's own answers: mappings as it prints them (which tensors are stored where, loops in time with the tile inside them, loops in space),
and the results of its search as JSON (`energy_J`, `latency_s`, the workload's sizes, the accesses of each tensor).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codesign.costmodel.mapping.hierarchy import Hierarchy
from codesign.costmodel.mapping.problem import Problem, batched, gemm
from codesign.ir.errors import CodesignError, ScheduleError
from codesign.ir.schedule import AtLevel, Schedule

_NODE = re.compile(
    r"Storage\(tensors=\[(?P<tensors>[^\]]*)\], component='(?P<store>\w+)'"
    r"|Temporal\(rank_variable='(?P<looped>\w+)', tile_shape=(?P<tile>\d+)"
    r"|Spatial\((?P<split>\w+), in \[0\.\.(?P<parts>\d+)\) shape=\d+, (?P<axis>\w+), (?P<at>\w+)\)"
    r"|(?P<end>Compute)\("
)


def read_mapping(text: str, problem: Problem, hierarchy: Hierarchy) -> Schedule:
    """The schedule of a printed mapping; tensors and dims are named as in the product. ScheduleError where the text is cut off or names others."""
    names = [operand.name for operand in problem.operands]
    level, slots, ended = hierarchy.stores[0].name, dict[str, AtLevel](), False
    for found in _NODE.finditer(text):
        at = slots.get(level, AtLevel())
        if found["store"]:
            level = _store(found["store"], hierarchy)
            at = slots.get(level, AtLevel())
            if level != hierarchy.stores[0].name:
                here = tuple(re.findall(r"'(\w+)'", found["tensors"]))
                if unknown := [name for name in here if name not in names]:
                    raise ScheduleError(
                        f"{unknown[0]} is no operand of the product", hint=f"operands: {', '.join(names)}"
                    )
                slots[level] = AtLevel(at.split, at.tile, (*at.order, *here), {**at.stage, **dict.fromkeys(here, 1)})
        elif found["looped"]:
            dim = found["looped"]
            order = at.order if dim in at.order else (*at.order, dim)
            slots[level] = AtLevel(at.split, {**at.tile, dim: int(found["tile"])}, order, at.stage)
        elif found["split"]:
            home = _axis(found["axis"], hierarchy)
            at = slots.get(home, AtLevel())
            parts = at.split.get(found["split"], 1) * int(found["parts"])
            slots[home] = AtLevel({**at.split, found["split"]: parts}, at.tile, at.order, at.stage)
        else:
            ended = True
    if not ended:
        raise ScheduleError("the printed mapping is cut off: it has no Compute at its end", hint="print it in whole")
    return Schedule(levels=slots)


def _store(component: str, hierarchy: Hierarchy) -> str:
    for store in hierarchy.stores:
        if component.lower().startswith(store.name.lower()):
            return store.name
    raise ScheduleError(
        f"{hierarchy.name} has no memory like {component}", hint=", ".join(store.name for store in hierarchy.stores)
    )


def _axis(name: str, hierarchy: Hierarchy) -> str:
    for axis in hierarchy.axes:
        if axis.name == name:
            return hierarchy.stores[min(axis.before, len(hierarchy.stores) - 1)].name
    raise ScheduleError(f"{hierarchy.name} has no axis {name}", hint=", ".join(axis.name for axis in hierarchy.axes))


@dataclass(frozen=True)
class Result:
    """What it found best: for a workload on a machine of its examples, under `objective`."""

    machine: str
    problem: Problem
    objective: str
    joules: float
    seconds: float
    wall_seconds: float


def read_result(path: Path) -> Result:
    """A result from its JSON file: products of matrices (sizes M and KN: n and k alike) and batches of them (B, M, N, K)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        sizes, machine = data["jinja"], str(data["arch"])
        joules, seconds, wall = (float(data[key]) for key in ("energy_J", "latency_s", "wall_s"))
        objective = "latency" if "ENERGY" not in str(data["metric"]) else "energy"
        problem = _workload(sizes, _width(data["actions_tensor"], float(data["actions"]["('MAC', 'compute')"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CodesignError(f"no AccelForge result: {type(error).__name__} {error}", place=str(path)) from None
    return Result(machine, problem, objective, joules, seconds, wall)


def _width(actions: Mapping[str, Any], macs: float) -> float:
    """Bytes of a value: of what stays at a multiplier, that many are read for each product, and of no factor more."""
    reads = (float(count) / macs / 8.0 for key, count in actions.items() if key.endswith("'read')"))
    return min(read for read in reads if read >= 1.0)


def _workload(sizes: Mapping[str, Any], width: float) -> Problem:
    whole = {key: int(value) for key, value in sizes.items()}
    dtype = "i8" if width == 1.0 else "bf16"
    if "KN" in whole and whole.get("N_EINSUMS", 1) == 1:
        return gemm(whole["M"], whole["KN"], whole["KN"], dtype, width)
    if {"M", "N", "K"} <= whole.keys():
        return batched(whole.get("B", 1), whole["M"], whole["N"], whole["K"], dtype, width)
    raise ValueError(f"sizes {sizes}: needs M and KN of one product, or B, M, N and K")
