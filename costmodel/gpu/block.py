"""One block of a kernel under schedules: its work, and what its code holds on chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import prod

import numpy as np

from codesign.costmodel.gpu.done import work_of
from codesign.costmodel.gpu.generator import Held, Issued, code_generator
from codesign.costmodel.gpu.geometry import FOLD, LOOPED, Array, Geometry, sector_bytes, wide_of
from codesign.costmodel.gpu.library_work import product_work, unflatten
from codesign.costmodel.gpu.phases import parts_of
from codesign.costmodel.gpu.program import Program, program_of
from codesign.costmodel.gpu.taking import Rows, taken
from codesign.costmodel.gpu.tiles import Tiles
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine
from codesign.costmodel.structures import Structure, Text, structures
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import ScheduleError

TOGETHER = 4096
"""Points of a grid of schedules up to which all are priced by each of its texts, which takes less time than to part them: what texts have in common
is then worked out once."""


def block_work(
    kernel: KernelSummary, g: Geometry, machine: Machine, knobs: Mapping[str, Array], compiled: bool = True
) -> tuple[Work, Held | None]:
    """Work of one block, and what its code holds on chip: as this compiler generates it where it is `compiled`, else as
    a library has it (which leaves open what it holds)."""
    if not compiled and any(nest.contraction is not None for nest in kernel.nests):
        warps, unit = knobs.get("warps", 4.0), knobs.get("vector_unit", 0.0)
        return product_work(kernel, g, unit, warps, wide_of(machine), sector_bytes(machine)), None
    shape = np.broadcast_shapes((1,), *(np.shape(column) for column in knobs.values()))
    count, points = shape[-1], prod(shape)
    every = _Blocks(kernel, g, machine, knobs, compiled)
    found = [*_structures(kernel, g, knobs, count)]
    parts: list[tuple[Work, Held | None]] = []
    for structure in found:
        if structure.text is None:
            parts.append(_refused(structure))
        elif points <= TOGETHER or len(found) == 1:
            parts.append(every.of(structure.text))
        else:
            parts.append(every.taken(structure.rows, count).of(structure.text))
    if len(parts) == 1:
        return parts[0]
    rows = [structure.rows for structure in found]
    joined = _joined_work([work for work, _ in parts], rows, count)
    held = [held for _, held in parts if held is not None]
    if not compiled:
        return joined, None
    return joined, Held(*(_joined(each, rows, count) for each in zip(*held, strict=True)))


def _structures(kernel: KernelSummary, g: Geometry, knobs: Mapping[str, Array], count: int) -> Sequence[Structure]:
    """The structures of the schedules; sizes that are not known stand for the largest."""
    extents = {dim: int(np.max(extent)) for dim, extent in g.extents.items()}
    sizes = {name: int(np.max(size)) for name, size in g.symbols.items() if name in kernel.symbols}
    columns = {
        name: np.atleast_1d(np.asarray(column)).astype(np.int64)
        for name, column in knobs.items()
        if name.startswith(("tile.", "reduce.")) or name == "partial"
    }
    for dim in kernel.folds:
        mode = columns.get(f"reduce.{dim}", np.full(1, LOOPED))
        columns[f"reduce.{dim}"] = np.where(mode == LOOPED, FOLD, mode)
    return [*structures(kernel, extents, columns, count, sizes)]


def code_of(kernel: KernelSummary, g: Geometry, machine: Machine, knobs: Mapping[str, Array]) -> tuple[Program, Tiles]:
    """The program of a schedule, and the numbers in it; ScheduleError where there is none."""
    (one,) = _structures(kernel, g, knobs, 1)
    if one.text is None:
        raise ScheduleError(f"{kernel.name}: {one.reason}")
    return program_of(one.text, kernel), _tiles(g, machine, knobs)


def _tiles(g: Geometry, machine: Machine, knobs: Mapping[str, Array]) -> Tiles:
    return Tiles(g, knobs.get("warps", 4.0), wide_of(machine), machine.limit("warp_size"))


@dataclass(frozen=True)
class Part:
    """What a block does between two places where it waits for itself: the `work` of one loop, or of straight code up to a reduction or a store.

    `loop`: whether it is a loop; `fresh`: whether it is the first to load some of its data; `continues`: a loop that goes on where the one
    before ended.
    """

    work: Work
    loop: bool = True
    fresh: bool = True
    continues: bool = False


def parts_of_block(kernel: KernelSummary, g: Geometry, machine: Machine, knobs: Mapping[str, Array]) -> list[Part]:
    """The parts of a block of this compiler's code under one schedule, in their order; ScheduleError where there is none."""
    program, tiles = code_of(kernel, g, machine, knobs)
    code = code_generator(machine).code(tiles, machine, knobs)
    asking = dict(kernel.tested)
    found = []
    for phase, part in parts_of(program):
        along = {dim for loops in part.steps for dim, _ in loops}
        tests = {dim: asking.pop(dim) for dim in kernel.tested if dim in asking and dim in along}
        w = issuing(work_of(part, tiles, sector_bytes(machine), tests, [phase]), code.issued(part))
        found.append(Part(w, phase.loop, phase.fresh, phase.continues))
    return found


class _Blocks:
    """Blocks of schedules, whatever their texts: what texts have in common is worked out once. `compiled`: as our code has them, else as a
    library's, whose threads without an element do nothing."""

    def __init__(
        self, kernel: KernelSummary, g: Geometry, machine: Machine, knobs: Mapping[str, Array], compiled: bool
    ) -> None:
        self.kernel, self.g, self.machine, self.knobs = kernel, g, machine, knobs
        self.tiles = _tiles(g, machine, knobs)
        self.code = code_generator(machine).code(self.tiles, machine, knobs) if compiled else None
        if not compiled:
            self.tiles.threads = 0.0

    def of(self, text: Text) -> tuple[Work, Held | None]:
        """Their work by a text, and what its code holds."""
        program = program_of(text, self.kernel)
        w = work_of(program, self.tiles, sector_bytes(self.machine), self.kernel.tested)
        if self.code is not None:
            return issuing(w, self.code.issued(program)), self.code.held(program)
        if "unflatten" in self.g.thread:
            unflatten(self.kernel, self.g, w)
        return w, None

    def taken(self, rows: Rows, count: int) -> _Blocks:
        """Those of some of the schedules."""
        g, knobs = taken(self.g, rows, count), taken(self.knobs, rows, count)
        return _Blocks(self.kernel, g, self.machine, knobs, self.code is not None)


def issuing(w: Work, issued: Issued) -> Work:
    """The work of a block with what its code issues beside that."""
    lanes = {name: getattr(w, name) + slots for name, slots in issued.repeated.items()}
    for name, slots in issued.further.items():
        lanes[name] = lanes.get(name, getattr(w, name)) + slots
    lanes["integer"] = lanes.get("integer", w.integer) + issued.integer_slots
    return replace(w, **lanes, request_clocks=issued.request_clocks, tensor={**w.tensor, **issued.multiply_adds})


def _refused(structure: Structure) -> tuple[Work, Held]:
    """What stands for schedules that no text has."""
    return Work(request_clocks=0.0, refused=np.array([structure.reason], dtype=object)), Held(24.0, 0.0)


def _joined(values: Sequence[Array], rows: Sequence[Rows], count: int) -> Array:
    """The column of all schedules from those of each structure."""
    first = values[0]
    if np.ndim(first) == 0 and all(value is first or (np.ndim(value) == 0 and value == first) for value in values):
        return first
    leading = np.broadcast_shapes(*(np.shape(value)[:-1] for value in values))
    every = np.empty((*leading, count), dtype=np.result_type(*(np.asarray(value) for value in values)))
    for some, value in zip(rows, values, strict=True):
        every[..., some] = taken(value, some, count)
    return every


def _joined_work(works: Sequence[Work], rows: Sequence[Rows], count: int) -> Work:
    """The work of all schedules from that of each structure."""
    units = dict.fromkeys(unit for work in works for unit in work.tensor)
    tensor = {unit: _joined([work.tensor.get(unit, 0.0) for work in works], rows, count) for unit in units}
    again = dict.fromkeys(operand for work in works for operand in work.sweeps)
    sweeps = {one: _joined([work.sweeps.get(one, 0.0) for work in works], rows, count) for one in again}
    names = [field.name for field in fields(Work) if field.name not in ("tensor", "sweeps")]
    parts = {name: _joined([getattr(work, name) for work in works], rows, count) for name in names}
    return Work(tensor, **parts, sweeps=sweeps)
