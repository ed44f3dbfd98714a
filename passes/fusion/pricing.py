"""Prices of groups without a search over schedules: the roofline plus what a tiling can't avoid.

Quick and coarse; used where no tuned price is asked for (`fuse{prices=roofline}`), and as the first guess of a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from codesign.costmodel.launches import launch_seconds
from codesign.costmodel.machine import Machine
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import KernelSummary, Nest, footprint, summarize
from codesign.ir.tensor import Fusion

_ROWS = 16
"""Least rows of a tile that a tensor unit works on."""
_TILE = 128
"""Extent of an outer dim that one program covers, in the estimate of how often operands are read again."""


@dataclass
class RooflinePricer:
    """Seconds of a group: its roofline, operands read again by each tile, values recomputed by each program, and a launch.

    Groups whose resident values fit no program are infinitely dear.
    """

    machine: Machine
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, fusion: Fusion) -> float:
        return self.price(summarize(fusion))

    def price(self, kernel: KernelSummary) -> float:
        if kernel.strands:  # of one launch
            further = len(kernel.strands) - 1
            return sum(self.price(strand) for strand in kernel.strands) - further * launch_seconds(self.machine)
        extents = {name: float(extent.evaluate(self.sizes)) for name, extent in kernel.extents.items()}
        resident = _resident(kernel, extents)
        level = self.machine.core_level()
        on_chip = self.machine.need(level.capacity_bytes, "capacity")
        if 4.0 * _ROWS * resident > on_chip:
            return math.inf
        tile = _TILE if resident == 1 else max(_ROWS, min(_TILE, on_chip / (8.0 * resident)))
        tensor, vector, special, dram = roofline_bounds(kernel, self.machine, self.sizes)
        again = [self._repeats(kernel, nest, extents, tile) for nest in kernel.nests]
        worst = max(again, default=1.0)
        vector += self._hoisted(kernel, extents, tile)
        compute = max(tensor * _weighted(kernel, again, extents, contraction=True), (vector + special) * worst)
        fast = self.machine.above(level)
        traffic = sum(self._traffic(kernel, nest, extents, tile) for nest in kernel.nests)
        on_chip_seconds = (
            traffic / (self.machine.need(fast.bandwidth, "bandwidth") * self.machine.instances(fast.name))
            if fast.managed == "hardware"
            else 0.0
        )
        return max(compute, dram, on_chip_seconds) + launch_seconds(self.machine)

    def _repeats(self, kernel: KernelSummary, nest: Nest, extents: Mapping[str, float], tile: float) -> float:
        """How often the nest is done: once per tile of each outer dim that it lacks."""
        mine = {*nest.dims, *nest.reductions}
        return math.prod(math.ceil(extents[dim] / tile) for dim in kernel.outer if dim not in mine)

    def _hoisted(self, kernel: KernelSummary, extents: Mapping[str, float], tile: float) -> float:
        """Seconds of work per point of fewer dims than the nest's (prologues of operands), done again by each tile of the others."""
        rate = self.machine.rate("vector", "f32") or 1.0
        seconds = 0.0
        for nest in kernel.nests:
            for dims, operations in nest.hoisted:
                points = math.prod(extents[dim] for dim in dims)
                points *= math.prod(math.ceil(extents[dim] / tile) for dim in kernel.outer if dim not in dims)
                slots = sum(cost * (4.0 if unit == "special" else 1.0) for (unit, _), cost in operations.items())
                seconds += points * slots / (rate / 2.0)
        return seconds

    def _traffic(self, kernel: KernelSummary, nest: Nest, extents: Mapping[str, float], tile: float) -> float:
        """Bytes that the nest's accesses move between the chip's shared memory level and the programs."""
        whole: dict[str, float] = {**self.sizes, **{f"tile:{name}": extent for name, extent in extents.items()}}
        total = 0.0
        for access in (*nest.loads, *nest.stores):
            again = math.prod(math.ceil(extents[dim] / tile) for dim in kernel.outer if dim not in access.dims)
            total += float(footprint(access, whole)) * access.dtype.bytes * again
        return total


def _resident(kernel: KernelSummary, extents: Mapping[str, float]) -> float:
    """Elements per row of the largest reduced value that carries an inner dim."""
    inner = set(kernel.inner)
    largest = 1.0
    for nest in kernel.nests:
        if nest.reductions:
            carried = [2.0 ** math.ceil(math.log2(max(extents[dim], 1.0))) for dim in nest.dims if dim in inner]
            largest = max(largest, math.prod(carried))
    return largest


def _weighted(kernel: KernelSummary, again: list[float], extents: Mapping[str, float], *, contraction: bool) -> float:
    """Mean repetition of the contractions, weighted by their points."""
    points = repeated = 0.0
    for nest, times in zip(kernel.nests, again, strict=True):
        if (nest.contraction is not None) == contraction:
            size = math.prod(extents[dim] for dim in (*nest.dims, *nest.reductions))
            points += size
            repeated += size * times
    return repeated / points if points else 1.0
