"""The tiling that a schedule makes of a kernel: blocks, loop trips, tiles and their mean part inside.

Everything is an array operation over schedules; sizes may be arrays too (calibration asks for rows x schedules at
once), so nothing here knows of a particular operator: a kernel is nests over named dims, with accesses and
operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.costmodel.machine import Machine, load_machine, machine_names
from codesign.costmodel.summary import KernelSummary
from codesign.costmodel.tested import VISITED
from codesign.costmodel.visits import visited
from codesign.ir.reach import Stretch
from codesign.ir.schedule import REDUCE_MODES

LOOPED, RESIDENT, FOLD = (REDUCE_MODES.index(mode) for mode in ("looped", "resident", "fold"))

SECTOR_BYTES = 32.0
"""Bytes of DRAM's least transfer where a machine file does not say: a sector of NVIDIA's caches."""

PORT_BYTES_PER_CLOCK = {0: 64.0, 1: 64.0, 2: 128.0}
"""Bytes that an SM takes from L2 in a clock, by who multiplies: a B300's products of 128 x 64 tiles take in 139."""

Array = Any
"""A NumPy array or a Python number; arrays broadcast against each other."""


def wide_of(machine: Machine) -> int:
    """Who multiplies: 0 warps with fragments in registers, 1 warp groups, 2 units with tensor memory."""
    return 2 if machine.features.get("tensor_memory") else 1 if machine.features.get("wgmma") else 0


def port_bytes_per_clock(machine: Machine) -> float:
    """Bytes that an SM takes from L2 in a clock."""
    return PORT_BYTES_PER_CLOCK[wide_of(machine)]


def each_clock(machine: Machine) -> float:
    """Operations of 16 bits of one SM's tensor unit in a clock."""
    clock = machine.need(machine.unit("vector").clock_hz, "units.vector.clock_hz")
    return (machine.rate("tensor", "bf16") or 1.0) / machine.instances("shared") / clock


def full_clock(machine: Machine) -> float:
    """Operations of 16 bits of one SM's tensor unit in a clock where its architecture has most: of parts that are offered at a lower rate the trips
    are no longer. Of mixtures of experts on an L40, at half the rate of an L40S, times err by 17 % with the L40S's clocks and by 21 % with twice
    as many."""
    shipped = (load_machine(name) for name in machine_names())
    alike = [each for each in shipped if each.kind == "gpu" and each.architecture == machine.architecture]
    return max(each_clock(each) for each in (machine, *alike))


def halved_l2(machine: Machine) -> bool:
    """Whether L2 is in two halves: what SMs beside both read lies in both, and a write goes to both."""
    return bool(machine.features.get("halved_l2", False))


def sector_bytes(machine: Machine) -> float:
    """Bytes that memory moves at the least."""
    figure = machine.level("dram").line_bytes
    return SECTOR_BYTES if figure is None else machine.need(figure, "levels.dram.line_bytes")


@dataclass
class Geometry:
    """Sizes of the tiling, by dim: `tile` as scheduled (padded), `mean` the average that is not masked, `blocks`
    along the grid, `trips` of the loop over an inner dim, `looped` where an inner dim is a loop, `split` the parts
    of the reduction, `grid` the number of blocks, `cluster` the blocks along an outer dim that share reads by
    multicast, `thread` the part of the tile that one thread of the vector unit holds, its vector widths, and which
    operands are staged."""

    extents: dict[str, Array]
    tile: dict[str, Array] = field(default_factory=dict)
    mean: dict[str, Array] = field(default_factory=dict)
    blocks: dict[str, Array] = field(default_factory=dict)
    trips: dict[str, Array] = field(default_factory=dict)
    looped: dict[str, Array] = field(default_factory=dict)
    online: dict[str, Array] = field(default_factory=dict)
    split: Array = 1.0
    grid: Array = 1.0
    symbols: dict[str, Array] = field(default_factory=dict)
    cluster: dict[str, Array] = field(default_factory=dict)
    thread: dict[str, Array] = field(default_factory=dict)
    left: dict[str, Array] = field(default_factory=dict)
    """Of inner dims that masks cut, the share of their steps that a block makes, in the mean over the grid."""
    skew: Array = 1.0
    """How much longer the longest block's loops are than the mean ones, where masks cut them."""
    asked: dict[str, Array] = field(default_factory=dict)
    """Steps along dims in which data are asked whether there is anything to do; `trips` are those in which there is."""
    whole: Array = 0.0
    """Share of the steps of such loops in which masks leave everything, so that nothing is masked."""
    parted: dict[tuple[str, Stretch], Array] = field(default_factory=dict)
    """Trips of each stretch of a loop: steps that masks leave whole, and those before and after."""

    @property
    def threaded(self) -> bool:
        """True when the schedule says what single threads hold."""
        return any(name.startswith("inner.thread.") for name in self.thread)

    def sizes(self, which: dict[str, Array]) -> dict[str, Array]:
        """The mapping that `footprint` reads: `tile:<dim>` for every dim and the symbols."""
        return {**self.symbols, **{f"tile:{dim}": size for dim, size in which.items()}}


def geometry(
    kernel: KernelSummary, knobs: Mapping[str, Array], sizes: Mapping[str, Array], sms: float = 1.0
) -> Geometry:
    """The tiling of a kernel; `knobs` are columns of a schedule batch as float arrays, `sizes` the values of size
    symbols.

    An outer dim without a tile has tile 1. An inner dim is looped in steps of its tile, or resident: the whole
    extent, padded to a power of two, at once. `loop.<dim>`: the block walks along this outer dim by itself.
    `stride.<dim>`: so many blocks on each of `sms` SMs at most, which stride over the grid along this dim.
    `unflatten`: how often a thread finds its coordinates in collapsed dims by division, per element.
    """
    extents: dict[str, Array] = {}
    for dim, extent in kernel.extents.items():
        extents[dim] = float(extent.constant) if extent.is_constant else extent.evaluate(sizes)
    g = Geometry(extents, symbols=dict(sizes))
    for dim in kernel.outer:
        _along_the_grid(g, dim, knobs)
    for dim in kernel.outer:
        if f"stride.{dim}" in knobs:
            _striding(g, dim, knobs, sms)
    for dim in kernel.inner:
        _inside(g, dim, knobs)
    _masked(g, kernel, sizes)
    for dim in kernel.tested:
        _asked(g, dim, knobs)
    g.cluster = {dim: knobs[f"cluster.{dim}"] for dim in kernel.outer if f"cluster.{dim}" in knobs}
    g.thread = {name: column for name, column in knobs.items() if name.startswith(OF_THREADS) or name == "unflatten"}
    return g


OF_THREADS = ("inner.thread.", "vector.", "staged.", "loaders.", "apart.", "pitch.", "read_only.")
"""Knobs that say what single threads hold and how operands are staged."""


def _along_the_grid(g: Geometry, dim: str, knobs: Mapping[str, Array]) -> None:
    """The blocks along an outer dim, or the trips of a block that walks along it by itself."""
    extent, size = g.extents[dim], knobs.get(f"tile.{dim}", 1.0)
    count = np.ceil(extent / size)
    g.tile[dim], g.mean[dim] = size, extent / count
    if f"loop.{dim}" in knobs:
        serial = np.greater(knobs[f"loop.{dim}"], 0.0)
        g.trips[dim], count = np.where(serial, count, 1.0), np.where(serial, 1.0, count)
        g.tile[dim] = np.where(serial, g.mean[dim], size)  # threads past the end do nothing
        g.looped[dim], g.online[dim] = serial, np.False_
    g.blocks[dim] = count
    g.grid = g.grid * count


def _striding(g: Geometry, dim: str, knobs: Mapping[str, Array], sms: float) -> None:
    """No more blocks than the SMs have at once, which stride over the grid along an outer dim."""
    passes = np.maximum(g.grid / (knobs[f"stride.{dim}"] * sms), 1.0)
    g.trips[dim] = np.ceil(passes)
    g.tile[dim] = g.mean[dim] = g.mean[dim] * passes / g.trips[dim]
    g.looped[dim], g.online[dim] = np.greater(passes, 1.0), np.False_
    g.blocks[dim] = g.blocks[dim] / passes
    g.grid = g.grid / passes


def _inside(g: Geometry, dim: str, knobs: Mapping[str, Array]) -> None:
    """The steps along an inner dim, in parts where the reduction is split."""
    extent = g.extents[dim]
    mode, parts, step = (knobs.get(f"{name}.{dim}", default) for name, default in _INSIDE)
    resident = np.equal(mode, RESIDENT)
    padded = np.exp2(np.ceil(np.log2(np.maximum(extent / parts, 1.0))))
    step = np.where(resident, np.maximum(padded, step), step) if np.any(resident) else step
    total = np.ceil(extent / step)
    each = np.ceil(total / parts)
    parts = np.ceil(total / each)
    g.tile[dim], g.trips[dim] = step, each
    g.mean[dim] = extent / (parts * each)
    g.looped[dim] = np.logical_not(resident)
    g.online[dim] = np.equal(mode, FOLD)
    g.split = g.split * parts
    g.grid = g.grid * parts
    g.parted[dim, "whole"] = np.floor(extent / step) / total * each
    g.parted[dim, "after"] = each - g.parted[dim, "whole"]


_INSIDE = (("reduce", float(LOOPED)), ("split", 1.0), ("tile", 1.0))


def _masked(g: Geometry, kernel: KernelSummary, sizes: Mapping[str, Array]) -> None:
    """Steps that masks leave, and the longest block's beside the mean one's."""
    g.whole = 1.0
    for dim, reach in kernel.reach.items():
        needed = {name: sizes[name] for name in reach.variables - g.extents.keys()}
        seen = visited(reach, dim, g.tile, g.blocks, g.extents, needed)
        steps, most, _ = seen.all
        looped = g.looped[dim]
        g.left[dim] = np.where(looped, steps / np.ceil(g.extents[dim] / g.tile[dim]), 1.0)
        g.parted.update({(dim, stretch): steps.mean for stretch, steps in seen.parted.items()})
        g.trips[dim] = g.trips[dim] * g.left[dim]
        g.whole = g.whole * np.where(looped, seen.whole / np.maximum(steps, 1e-9), 0.0)
        g.skew = np.maximum(g.skew, np.where(looped, most / np.maximum(steps, 1e-9), 1.0))


def _asked(g: Geometry, dim: str, knobs: Mapping[str, Array]) -> None:
    """Steps along a dim in which data are asked whether there is anything to do, and those in which there is."""
    on = np.greater(knobs.get("skip", 0.0), 0.0) & g.looped[dim]
    g.asked[dim] = np.where(on, g.trips[dim], 0.0)
    passed = np.where(on, np.maximum(g.trips[dim] * VISITED, 1.0), g.trips[dim])
    share, g.trips[dim] = passed / np.maximum(g.trips[dim], 1e-9), passed
    g.parted.update({key: steps * share for key, steps in g.parted.items() if key[0] == dim})
