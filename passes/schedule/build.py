"""Building the space of a kernel: the knobs that its dims and the machine give."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from codesign.costmodel.gpu.runs import adjacent_dims
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import Contraction, KernelSummary, Nest
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule
from codesign.passes.schedule.space import (
    LOOPED,
    RESIDENT,
    Columns,
    Constraint,
    Ints,
    Knob,
    Space,
    columns_product,
    nearest,
    powers_of_two,
)
from codesign.passes.tiling.domain import SMALLEST_DOT, next_power_of_two

DEEPEST_PIPELINE = 6
"""Iterations in flight beyond which no memory latency of these machines is left to hide."""


class Roles:
    """Which dims are sides of a matrix product (one tiled dim per side: what goes along memory before what is wide), and
    which are pinned to single steps by it."""

    def __init__(self, summary: KernelSummary, extents: Mapping[str, int]) -> None:
        self.sides: dict[str, str] = {}
        used: set[str] = set()
        accesses = [access for nest in summary.nests for access in (*nest.loads, *nest.stores)]
        along = {dim for access in accesses for dim in adjacent_dims(access) if extents[dim] >= SMALLEST_DOT}
        for nest in summary.nests:
            found = matrix_product(nest)
            if found is None:
                continue
            for role, dims in (("m", found.m), ("n", found.n), ("k", found.k)):
                widest = max(reversed(dims), key=lambda dim: (dim in along, extents[dim]))
                self.sides.setdefault(widest, role)
                used |= set(dims)
            used |= set(found.batch)
        self.pinned = used - set(self.sides)
        self.any = bool(self.sides)


def matrix_product(nest: Nest) -> Contraction | None:
    """The nest's contraction when a matrix unit does it: its dtypes are ones that the unit multiplies without loss."""
    found = nest.contraction
    return found if found is not None and found.unit is not None else None


def extents_of(summary: KernelSummary, sizes: Mapping[str, int] | None) -> dict[str, int]:
    """Extents as integers; ScheduleError when a symbol has no value."""
    try:
        return {dim: int(extent.evaluate(sizes or {})) for dim, extent in summary.extents.items()}
    except KeyError as error:
        raise ScheduleError(f"{summary.name}: no value for size {error.args[0]}", hint="give sizes={...}") from error


def space(
    summary: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, int] | None = None,
    *,
    splittable: tuple[str, ...] = (),
) -> Space:
    """The schedules of a kernel on a machine. `splittable`: reduction dims that may be split over the grid."""
    extents = extents_of(summary, sizes)
    roles = Roles(summary, extents)
    lanes = lane_limit(machine)
    knobs = [_tile_knob(dim, extents[dim], roles, lanes) for dim in summary.extents if dim not in roles.pinned]
    knobs = [knob for knob in knobs if len(knob.values) > 1 or knob.values[0] != 1]
    if machine.kind == "gpu":
        knobs += _gpu_knobs(summary, machine, roles, extents, splittable)
    else:  # programs of one core follow each other, so loads run ahead without an inner loop too
        knobs.append(Knob("pipeline", (1, 2, 3, 4), 2))
    fixed = {dim for dim in summary.inner if summary.extents[dim].is_constant}

    def derive(columns: dict[str, Ints]) -> dict[str, Ints]:
        out = dict(columns)
        for dim in summary.inner:
            tile = columns.get(f"tile.{dim}")
            if tile is not None:
                parts = columns.get(f"split.{dim}", 1)
                whole = tile * parts >= extents[dim] if dim in fixed else np.zeros(len(tile), np.bool_)
                out[f"reduce.{dim}"] = np.where(whole, RESIDENT, LOOPED).astype(np.int64)
        return out

    order = tuple(summary.outer)
    return Space(
        tuple(knobs), tuple(_constraints(summary, machine, lanes, extents, splittable)), derive, Schedule(order=order)
    )


def lane_limit(machine: Machine) -> int:
    """Values of 32 bits that one program's largest tile may have: half of what the register file (or core scratchpad) holds."""
    if machine.kind == "gpu":
        return int(machine.limit("registers_per_sm")) // 2
    level = machine.levels[-2]
    capacity = machine.need(level.capacity_bytes, f"levels.{level.name}.capacity_bytes")
    return max(int(capacity) // 16, SMALLEST_DOT * SMALLEST_DOT)


def _tile_knob(dim: str, extent: int, roles: Roles, lanes: int) -> Knob:
    top = next_power_of_two(extent)
    if dim in roles.sides:
        values = powers_of_two(SMALLEST_DOT, min(max(top, SMALLEST_DOT), lanes // SMALLEST_DOT))
        return Knob(f"tile.{dim}", values, nearest(values, 64 if roles.sides[dim] == "k" else 128))
    values = powers_of_two(1, min(top, lanes))
    return Knob(f"tile.{dim}", values, values[0] if roles.any else nearest(values, 32))


def _gpu_knobs(
    summary: KernelSummary, machine: Machine, roles: Roles, extents: Mapping[str, int], splittable: tuple[str, ...]
) -> list[Knob]:
    warps = int(machine.limit("threads_per_block") / machine.limit("warp_size"))
    knobs = [Knob("warps", powers_of_two(1, min(warps, 16)), 4)]
    loops = any(extents[dim] > 1 for dim in summary.inner)
    if loops:
        knobs.append(Knob("pipeline", tuple(range(1, DEEPEST_PIPELINE + 1)), 3 if roles.any else 2))
    cores = machine.instances(machine.levels[-2].name)
    wide = [dim for dim, role in roles.sides.items() if role in "mn" and extents[dim] > SMALLEST_DOT]
    if len(wide) > 1:
        values = powers_of_two(1, next_power_of_two(int(cores**0.5)))
        knobs.append(Knob("group", values, nearest(values, 8)))
    for dim in splittable:
        values = powers_of_two(1, min(cores, extents[dim] // (2 * SMALLEST_DOT)))
        values = tuple(parts for parts in values if extents[dim] % parts == 0)
        if len(values) > 1:
            knobs.append(Knob(f"split.{dim}", values, 1))
    return knobs


def _constraints(
    summary: KernelSummary, machine: Machine, lanes: int, extents: Mapping[str, int], splittable: tuple[str, ...]
) -> list[Constraint]:
    """What a program's tiles may hold, and that a split leaves parts worth having."""
    plain: dict[tuple[str, ...], None] = {}
    products: dict[tuple[tuple[str, ...], tuple[str, ...]], None] = {}
    for nest in summary.nests:
        found = matrix_product(nest)
        if found is None:
            plain[(*nest.dims, *nest.reductions)] = None
        else:
            plain.update(dict.fromkeys(((*nest.dims,), (*found.m, *found.k), (*found.n, *found.k))))
            products[(*nest.dims, *nest.reductions), found.batch] = None

    def largest(columns: Columns) -> Ints:
        """Values of the largest tile; a product with batch lanes is multiplied out, as no matrix unit takes it."""
        worst = np.ones(max((len(column) for column in columns.values()), default=1), dtype=np.int64)
        for dims in plain:
            worst = np.maximum(worst, columns_product(columns, dims))
        for dims, batch in products:
            lanes_of_batch = columns_product(columns, batch)
            worst = np.maximum(worst, np.where(np.greater(lanes_of_batch, 1), columns_product(columns, dims), 1))
        return worst

    def fits(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return largest(columns) <= lanes

    def explain(row: Mapping[str, int]) -> str:
        worst = int(largest({name: np.array([value]) for name, value in row.items()})[0])
        return f"a tile of {worst:,} values, limit {lanes:,} on {machine.name}"

    constraints = [Constraint("tile size", fits, explain)]
    if machine.kind == "gpu" and not products:
        constraints.append(_lanes_constraint(largest, int(machine.limit("warp_size")), summary, extents))
    if splittable and machine.kind == "gpu":
        cores = machine.instances(machine.levels[-2].name)
        constraints.append(_split_constraint(summary, extents, cores))
    return constraints


def _lanes_constraint(
    largest: Callable[[Columns], Ints], warp: int, summary: KernelSummary, extents: Mapping[str, int]
) -> Constraint:
    """A program without products gives each lane of a warp a value, as far as there are so many: a lane without one takes
    as long as one that has it."""
    most = largest({f"tile.{dim}": np.array([next_power_of_two(extents[dim])]) for dim in summary.extents})
    least = min(warp, int(most[0]))

    def full(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return largest(columns) >= least

    def explain(row: Mapping[str, int]) -> str:
        values = int(largest({name: np.array([value]) for name, value in row.items()})[0])
        return f"a tile of {values} leaves lanes of a warp without a value, which has {warp}"

    return Constraint("lanes", full, explain)


def _split_constraint(summary: KernelSummary, extents: Mapping[str, int], cores: int) -> Constraint:
    def blocks(columns: Columns) -> Ints | int:
        total: Ints | int = 1
        for dim in summary.outer:
            total = total * -(-extents[dim] // columns.get(f"tile.{dim}", 1))
        return total

    def holds(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        count = max((len(column) for column in columns.values()), default=1)
        good = np.ones(count, dtype=np.bool_)
        for dim in summary.inner:
            parts = columns.get(f"split.{dim}")
            if parts is not None:
                enough = -(-extents[dim] // parts) >= columns.get(f"tile.{dim}", 1)
                good &= (parts == 1) | (enough & (blocks(columns) * parts <= 4 * cores))
        return good

    def explain(row: Mapping[str, int]) -> str:
        return f"a split needs whole tiles in each part, and pays only below {4 * cores} programs in all"

    return Constraint("split", holds, explain)
