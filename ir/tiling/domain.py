"""How a schedule cuts a group's iteration domain: which dims the grid walks, which are looped over, which are held whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from codesign.ir.core import Value
from codesign.ir.errors import ScheduleError
from codesign.ir.fold import Fold, folds
from codesign.ir.index import Bounds, Index, ceildiv, index
from codesign.ir.reach import Reach, Stretch, reaches
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.tile import Axis, GridDim, grid_variable

Kind = Literal["grid", "loop", "resident"]
Structure = tuple[str, Kind, bool, bool, bool, bool]

ONE = index(1)
SMALLEST_DOT = 16
"""Least size of each side of a dot: what block-level matrix units take (Triton's limit on NVIDIA and AMD)."""

LARGEST_TILE = 1 << 20
"""Elements of the largest tile that a block-level target takes (Triton's limit)."""


def next_power_of_two(value: int) -> int:
    """The least power of two that is not below the value."""
    return 1 << max(value - 1, 0).bit_length()


@dataclass(frozen=True)
class DimPlan:
    """One dim of the group under a schedule.

    `size`: lanes of its tile axis, as a number or as the symbol of a template. `kind`: "grid" (program `variable` handles lanes
    `variable*size ...`), "loop" (steps of `size`), or "resident" (all lanes at once). `remainder`: some lanes lie outside the extent.
    `tiled`: it has an axis (else the dim is a scalar). `wide`: the axis is long enough for a side of a dot. `sole`: one program has it all.
    """

    name: str
    extent: Index
    size: Index
    kind: Kind
    remainder: bool
    tiled: bool
    wide: bool
    variable: str = ""
    programs: Index = ONE
    sole: bool = True

    @property
    def axis(self) -> Axis | None:
        return Axis(self.name, self.size) if self.tiled else None

    @property
    def structure(self) -> Structure:
        """What of a dim's plan shapes the kernel's text, its sizes aside."""
        return self.name, self.kind, self.remainder, self.tiled, self.wide, self.sole


class Domain:
    """The plan of every dim, over size symbols; raises ScheduleError for a schedule that does not apply to the group.

    `sizes`: what the schedule gives the symbols. `tiles`: the symbol of each tiled dim. `depth`: the symbol of its loops' depth.
    `along`: the dim of each index of the grid and of loops.
    `stretches`: of indices of loops that make only some of the steps along their dim, which ones.
    `reach`: the part of reduced dims that masks leave. `folds`: reductions that go on in one pass. A domain `beside` another is of the same
    kernel: no name is in both, and loops are of one depth.
    """

    def __init__(
        self,
        fusion: Fusion,
        schedule: Schedule,
        bounds: Bounds,
        beside: Domain | None = None,
        reach: Mapping[str, Reach] | None = None,
    ) -> None:
        self.schedule = schedule
        self.bounds = bounds
        extents = {name: extent.simplify(bounds) for name, extent in fusion.dims().items()}
        self._taken: set[str] = beside._taken if beside is not None else set(bounds.symbols)
        self._taken |= set(extents)
        for extent in extents.values():
            self._taken |= extent.variables()
        check_names(schedule, extents)
        inner = set(fusion.inner_dims())
        self.tiles: dict[str, str] = {}
        self.along: dict[str, str] = {}
        self.stretches: dict[str, Stretch] = {}
        self.sizes: dict[str, int] = {}
        self.plans: Mapping[str, DimPlan] = {
            name: self._inner(name, extent) if name in inner else self._outer(name, extent)
            for name, extent in extents.items()
        }
        loops = (plan for plan in self.plans.values() if plan.kind == "loop")
        self._loops = tuple(plan.name for plan in sorted(loops, key=lambda plan: plan.tiled))
        self.folds = self._folds(fusion)
        self.grid = tuple(
            GridDim(self.plans[name].variable, self.plans[name].programs)
            for name in grid_order(fusion, schedule)
            if not self.plans[name].sole
        )
        self.reach = reaches(fusion.computes, {*fusion.body.yields}, bounds) if reach is None else reach
        self.depth: str = beside.depth if beside is not None else self.fresh("depth")
        self.sizes[self.depth] = schedule.pipeline

    @property
    def structure(self) -> tuple[object, ...]:
        """Equal for schedules whose kernels are one text but for the numbers in it."""
        extras = tuple(self.schedule.extra(name, default) for name, default in (("partial", 1), ("skip", 0)))
        folding = tuple(fold.dims for fold in self.folds)
        plans = tuple(plan.structure for plan in self.plans.values())
        return plans, tuple(dim.name for dim in self.grid), folding, extras

    def fresh(self, name: str) -> str:
        """A variable name that nothing else uses."""
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}{count}"
        self._taken.add(candidate)
        return candidate

    def variable(self, dim: str, name: str) -> str:
        """A name that nothing else uses, for an index along a dim."""
        found = self.fresh(name)
        self.along[found] = dim
        return found

    def _symbol(self, name: str, size: int) -> Index:
        """What stands for the lanes of a dim: a new symbol, where it has more than one."""
        if size == 1:
            return ONE
        symbol = self.tiles[name] = self.fresh(f"T_{name}")
        self.sizes[symbol] = size
        return index(symbol)

    def _plan(self, name: str, extent: Index, size: int, kind: Kind) -> DimPlan:
        remainder = extent != size if kind == "resident" else not _divides(extent, size)
        lanes = self._symbol(name, size)
        tiled, wide = size > 1, size >= SMALLEST_DOT
        if kind != "grid":
            return DimPlan(name, extent, lanes, kind, remainder, tiled, wide)
        sole = ceildiv(extent, size).simplify(self.bounds) == 1
        programs = ONE if sole else ceildiv(extent, lanes)
        variable = self.variable(name, grid_variable(name))
        return DimPlan(name, extent, lanes, kind, remainder, tiled, wide, variable, programs, sole)

    def _outer(self, name: str, extent: Index) -> DimPlan:
        return self._plan(name, extent, _tile(self.schedule, name), "grid")

    def _inner(self, name: str, extent: Index) -> DimPlan:
        mode = self.schedule.reduce.get(name, "looped")
        size = _tile(self.schedule, name)
        fits = extent.is_constant and extent.constant <= size
        if mode != "resident" and not fits:
            return self._plan(name, extent, size, "loop")
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
        return self._plan(name, extent, size, "resident")

    def _folds(self, fusion: Fusion) -> tuple[Fold, ...]:
        """The folds along the dims that the schedule folds; ScheduleError where there is none along one."""
        wanted = {name for name, mode in self.schedule.reduce.items() if mode == "fold"}
        if not wanted:
            return ()
        known = folds(fusion)
        for name in sorted(wanted - {dim for fold in known for dim in fold.dims}):
            raise ScheduleError(
                f"reduce.{name}: fold: no reduction along it needs another that it could go on with", hint="use looped"
            )
        looped = {name for name, plan in self.plans.items() if plan.kind == "loop"}
        found = tuple(fold for fold in known if wanted & looped & {*fold.dims})
        for fold in found:
            carried = [looped & {dim.name for dim in part.reduced.dims} for part in fold.parts]
            some: set[str] = set().union(*carried)
            for other in sorted(dim for dim in some if any(dim not in dims for dims in carried)):
                raise ScheduleError(
                    f"reduce.{fold.dims[0]}: fold: only some of its reductions are made in the steps of the loop along {other}",
                    hint=f"reduce.{other}=resident, or reduce.{fold.dims[0]}=looped",
                )
        return found

    def fold_of(self, value: Value) -> Fold | None:
        """The fold that a reduction's result is made in."""
        return next((fold for fold in self.folds if fold.part(value) is not None), None)

    def looped(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the dims that are looped over, outermost first: single steps outside, so that tiles stream in the innermost."""
        wanted = set(names)
        return tuple(name for name in self._loops if name in wanted)

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


def check_names(schedule: Schedule, extents: Mapping[str, Index]) -> None:
    """ScheduleError for a dim that the kernel doesn't have, or that is cut into parts."""
    known = ", ".join(extents)
    for field, mapping in (("tiles", schedule.tiles), ("reduce", schedule.reduce), ("split", schedule.split)):
        for name in mapping:
            if name not in extents:
                raise ScheduleError(f"{field}.{name}: the kernel has no such dim", hint=f"dims: {known}")
    for name, parts in schedule.split.items():
        if parts > 1:
            raise ScheduleError(
                f"split.{name}: a split reduction is two kernels",
                hint="this is one of its own: leave it out, or give it for the group, whose entry ends in _parts_whole",
            )
