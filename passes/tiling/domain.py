"""How a schedule cuts a group's iteration domain: which dims the grid walks, which are looped over, which are held whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from codesign.ir.errors import ScheduleError
from codesign.ir.index import Bounds, Index, ceildiv, index
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.tile import Axis, GridDim

Kind = Literal["grid", "loop", "resident"]

ONE = index(1)
LARGEST_TILE = 1 << 20
"""Elements of the largest tile that a block-level target takes (Triton's limit)."""


def next_power_of_two(value: int) -> int:
    """The least power of two that is not below the value."""
    return 1 << max(value - 1, 0).bit_length()


@dataclass(frozen=True)
class DimPlan:
    """One dim of the group under a schedule.

    `size`: lanes of its tile axis (1: no axis, the dim is a scalar). `kind`: "grid" (program `variable` handles lanes
    `variable*size ...`), "loop" (steps of `size`), or "resident" (all lanes at once). `remainder`: some lanes lie outside the extent.
    """

    name: str
    extent: Index
    size: int
    kind: Kind
    remainder: bool
    variable: str = ""
    programs: Index = ONE

    @property
    def axis(self) -> Axis | None:
        return Axis(self.name, self.size) if self.size > 1 else None


class Domain:
    """The plan of every dim; raises ScheduleError for a schedule that does not apply to the group."""

    def __init__(self, fusion: Fusion, schedule: Schedule, bounds: Bounds) -> None:
        self.schedule = schedule
        self.bounds = bounds
        extents = {name: extent.simplify(bounds) for name, extent in fusion.dims().items()}
        self._taken = set(extents) | set(bounds.symbols)
        for extent in extents.values():
            self._taken |= extent.variables()
        _check_names(schedule, extents)
        inner = set(fusion.inner_dims())
        plans: dict[str, DimPlan] = {}
        for name, extent in extents.items():
            plans[name] = self._inner(name, extent) if name in inner else self._outer(name, extent)
        self.plans: Mapping[str, DimPlan] = plans
        self.grid = tuple(
            GridDim(plans[name].variable, plans[name].programs)
            for name in grid_order(fusion, schedule)
            if plans[name].programs != 1
        )
        self.lane_bounds = bounds.with_extents(
            {
                **{plan.name: index(plan.size) for plan in plans.values()},
                **{dim.name: dim.extent for dim in self.grid},
            }
        )

    def fresh(self, name: str) -> str:
        """A variable name that nothing else uses."""
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}{count}"
        self._taken.add(candidate)
        return candidate

    def _outer(self, name: str, extent: Index) -> DimPlan:
        size = _tile(self.schedule, name)
        programs = ceildiv(extent, size).simplify(self.bounds)
        return DimPlan(name, extent, size, "grid", not _divides(extent, size), self.fresh(f"p{name}"), programs)

    def _inner(self, name: str, extent: Index) -> DimPlan:
        mode = self.schedule.reduce.get(name, "looped")
        size = _tile(self.schedule, name)
        if mode == "online":
            raise ScheduleError(
                f"reduce.{name}: online reduction needs reductions rewritten by the reduction algebra",
                hint="use looped or resident",
            )
        fits = extent.is_constant and extent.constant <= size
        if mode == "looped" and not fits:
            return DimPlan(name, extent, size, "loop", not _divides(extent, size))
        _, high = extent.limits(self.bounds)
        if high is None:
            raise ScheduleError(
                f"reduce.{name}: resident needs a known upper limit, but the extent is {extent}",
                hint="use looped, or give the symbol a range",
            )
        size = next_power_of_two(high) if mode == "resident" and size < high else max(size, next_power_of_two(high))
        if size > LARGEST_TILE:
            raise ScheduleError(
                f"reduce.{name}: resident needs {size:,} lanes, limit {LARGEST_TILE:,}", hint="use looped"
            )
        return DimPlan(name, extent, size, "resident", extent != size)

    def looped(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the dims that are looped over, outermost first: single steps outside, so that tiles stream in the innermost."""
        wanted = set(names)
        found = [plan for plan in self.plans.values() if plan.kind == "loop" and plan.name in wanted]
        return tuple(plan.name for plan in sorted(found, key=lambda plan: plan.size > 1))

    def axes(self, names: Iterable[str]) -> tuple[Axis, ...]:
        """Tile axes of the dims, in the given order, without those of size 1."""
        return tuple(axis for name in names if (axis := self.plans[name].axis) is not None)


def grid_order(fusion: Fusion, schedule: Schedule) -> tuple[str, ...]:
    """Outer dims, slowest first: those that the schedule orders, then the others in the group's order."""
    outer = fusion.outer_dims()
    for name in schedule.order:
        if name not in outer:
            raise ScheduleError(
                f"order: {name!r} is not an outer dim of the kernel", hint=f"outer dims: {', '.join(outer)}"
            )
    return tuple(dict.fromkeys((*schedule.order, *outer)))


def _tile(schedule: Schedule, name: str) -> int:
    size = schedule.tiles.get(name, 1)
    if size < 1 or size & (size - 1):
        raise ScheduleError(f"tiles.{name}: needs a power of two, got {size}")
    return size


def _divides(extent: Index, size: int) -> bool:
    return (extent % size) == 0


def _check_names(schedule: Schedule, extents: Mapping[str, Index]) -> None:
    known = ", ".join(extents)
    for field, mapping in (("tiles", schedule.tiles), ("reduce", schedule.reduce), ("split", schedule.split)):
        for name in mapping:
            if name not in extents:
                raise ScheduleError(f"{field}.{name}: the kernel has no such dim", hint=f"dims: {known}")
    for name, parts in schedule.split.items():
        if parts > 1:
            raise ScheduleError(
                f"split.{name}: a split reduction is two kernels",
                hint="split the group first (codesign.passes.tiling.split)",
            )
