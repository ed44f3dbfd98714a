"""Building the space of a kernel: the knobs that its dims and the machine give."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule
from codesign.ir.tiling.domain import next_power_of_two
from codesign.passes.knobs import Room, Site, matrix_product, rooms
from codesign.passes.knobs.order import order_of
from codesign.passes.schedule.space import Columns, Constraint, Ints, Space, columns_product


def space(
    summary: KernelSummary,
    machine: Machine,
    sizes: Mapping[str, int] | None = None,
) -> Space:
    """The schedules of a kernel on a machine, as one kernel: into how many parts a reduction is split is the tuner's to choose."""
    site = Site.of(summary, machine, sizes)
    known = rooms()
    replaced = {name for room in known for name in room.replaces(site)}
    knobs = tuple(knob for room in known for knob in room.offered(site) if knob.name not in replaced)
    deriving = [room for room in reversed(known) if type(room).derive is not Room.derive and not room.unread(site)]

    def derive(columns: dict[str, Ints]) -> dict[str, Ints]:
        out = dict(columns)
        for room in deriving:
            out.update(room.derive(out, site))
        return out

    constraints = (*_constraints(site), *(rule for room in known for rule in room.constraints(site)))
    return Space(knobs, constraints, derive, Schedule(order=order_of(site)))


def _constraints(site: Site) -> list[Constraint]:
    """What a program's tiles may hold."""
    summary, machine, lanes = site.summary, site.machine, site.lanes
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
        worst = np.ones(1, dtype=np.int64)
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
    if site.gpu and not products:
        constraints.append(_lanes_constraint(largest, int(machine.limit("warp_size")), summary, site.extents))
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
