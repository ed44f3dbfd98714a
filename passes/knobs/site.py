"""Where knobs stand: a kernel on a machine, with what several of them ask about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from codesign.costmodel.gpu.runs import adjacent_dims
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import Contraction, KernelSummary, Nest
from codesign.ir.errors import ScheduleError
from codesign.ir.tiling.domain import SMALLEST_DOT


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


@dataclass(frozen=True)
class Site:
    """A kernel on a machine; `extents` in numbers."""

    summary: KernelSummary
    machine: Machine
    extents: Mapping[str, int]

    @staticmethod
    def of(
        summary: KernelSummary,
        machine: Machine,
        sizes: Mapping[str, int] | None = None,
    ) -> Site:
        """The site at some sizes; ScheduleError when a symbol has no value."""
        try:
            extents = {dim: int(extent.evaluate(sizes or {})) for dim, extent in summary.extents.items()}
        except KeyError as error:
            raise ScheduleError(
                f"{summary.name}: no value for size {error.args[0]}", hint="give sizes={...}"
            ) from error
        return Site(summary, machine, extents)

    @cached_property
    def roles(self) -> Roles:
        return Roles(self.summary, self.extents)

    @cached_property
    def lanes(self) -> int:
        """Values of 32 bits that one program's largest tile may have: half of what the register file (or core scratchpad) holds."""
        if self.gpu:
            return int(self.machine.limit("registers_per_sm")) // 2
        level = self.machine.core_level()
        capacity = self.machine.need(level.capacity_bytes, f"levels.{level.name}.capacity_bytes")
        return max(int(capacity) // 8, SMALLEST_DOT * SMALLEST_DOT)

    @property
    def gpu(self) -> bool:
        return self.machine.kind == "gpu"

    @property
    def cores(self) -> int:
        return self.machine.instances(self.machine.core_level().name)

    @property
    def loops(self) -> bool:
        """Whether a reduction has more than one step, so that there may be a loop."""
        return any(self.extents[dim] > 1 for dim in self.summary.inner)

    @property
    def may_loop(self) -> bool:
        """Whether there may be one at some sizes."""
        return any(self.summary.extents[dim] != 1 for dim in self.summary.inner)
