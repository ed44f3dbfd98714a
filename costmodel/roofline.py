"""Fidelity 0: the roofline, a bound that no schedule beats.

The time of a kernel is at least its operations over the peak of the unit that does them, and at least its least
possible traffic over the bandwidth of the outermost memory. It needs the sizes of the kernel only: every schedule
gets the same bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import Contraction, KernelSummary, Nest
from codesign.costmodel.visits import shares_left
from codesign.ir.errors import UnsupportedError
from codesign.ir.schedule import ScheduleBatch

TERM_NAMES = ("tensor", "vector", "special", "dram")


@dataclass(frozen=True)
class Roofline:
    """The roofline of a machine; `seconds` is the largest of the four bounds, which is the only non-zero term."""

    fidelity: ClassVar[int] = 0

    def predict(
        self, kernel: KernelSummary, machine: Machine, schedules: ScheduleBatch, sizes: Mapping[str, int] | None = None
    ) -> CostBatch:
        """The same bound for every schedule; see CostModel."""
        count = len(schedules)
        bounds = roofline_bounds(kernel, machine, sizes or {})
        best = max(range(len(bounds)), key=lambda i: bounds[i])
        terms = np.zeros((count, len(TERM_NAMES)))
        terms[:, best] = bounds[best]
        seconds = np.full(count, bounds[best])
        traffic = float(kernel.read_bytes.evaluate(sizes or {}) + kernel.write_bytes.evaluate(sizes or {}))
        return CostBatch(
            seconds=seconds,
            terms=terms,
            term_names=TERM_NAMES,
            low=seconds,
            high=np.full(count, np.inf),
            in_domain=np.ones(count, dtype=np.bool_),
            reason=np.full(count, "", dtype=object),
            joules=np.full(count, np.nan),
            dram_bytes=np.full(count, traffic),
            details={"flops": np.full(count, kernel_flops(kernel, sizes or {}))},
        )


def kernel_flops(kernel: KernelSummary, sizes: Mapping[str, int]) -> float:
    """Floating-point operations of the contractions, two per multiply-add."""
    return 2.0 * sum(points_of(kernel, nest, sizes) for nest in kernel.nests if nest.contraction is not None)


def points_of(kernel: KernelSummary, nest: Nest, sizes: Mapping[str, float]) -> float:
    """Points at which a nest works something out."""
    dims = (*nest.dims, *nest.reductions)
    extents = {dim: float(kernel.extents[dim].evaluate(sizes)) for dim in dims}
    total = math.prod(extents.values())
    if not kernel.reach.keys().isdisjoint(dims):  # what masks empty is not worked out
        extents = {dim: float(extent.evaluate(sizes)) for dim, extent in kernel.extents.items()}
        total *= math.prod(share for dim, share in shares_left(kernel.reach, extents, sizes).items() if dim in dims)
    return total


def product_rate(machine: Machine, contraction: Contraction) -> float | None:
    """Peak operations per second of the matrix unit for a product; None where the vector unit does it, as the price of
    a kernel has it: products of types that no unit takes, and on a GPU those of wide types that keep all bits."""
    if contraction.unit is None or (machine.kind == "gpu" and contraction.factors.ieee):
        return None
    named = contraction.operand.name if contraction.precision == "ieee" else contraction.factors.rate
    rate = machine.burst_rate("tensor", named) or machine.burst_rate("tensor", contraction.factors.rate)
    if rate is None and contraction.factors.rate == "f8":
        rate = machine.burst_rate("tensor", "bf16")
    return None if rate is None else rate / contraction.factors.products


def roofline_bounds(
    kernel: KernelSummary, machine: Machine, sizes: Mapping[str, float], tiles: Mapping[str, float] | None = None
) -> tuple[float, float, float, float]:
    """Least seconds on the tensor, vector and special units and at the outermost memory, as the group is written or as its folds do it: of each
    the lesser, as schedules do either.

    `tiles`: the longest tiles of the dims of the grid, where programs work out by themselves what they need.
    """
    written = _bounds_of(kernel, machine, sizes, tiles)
    if kernel.folded is None:
        return written
    tensor, vector, special, dram = map(min, written, _bounds_of(kernel.folded, machine, sizes, tiles))
    return tensor, vector, special, dram


def _times(kernel: KernelSummary, nest: Nest, sizes: Mapping[str, float], tiles: Mapping[str, float] | None) -> float:
    """How often a nest is done at the least: by the programs along each dim of the grid that it does not have."""
    if tiles is None:
        return 1.0
    others = (dim for dim in kernel.outer if dim not in nest.dims and dim not in nest.reductions)
    return math.prod(math.ceil(float(kernel.extents[dim].evaluate(sizes)) / tiles[dim]) for dim in others)


def _bounds_of(
    kernel: KernelSummary, machine: Machine, sizes: Mapping[str, float], tiles: Mapping[str, float] | None
) -> tuple[float, float, float, float]:
    tensor = vector = special = 0.0
    adding, beside = machine.doing("fma").name, machine.doing("special").name
    vector_rate = machine.rate(adding, "f32") or 0.0
    special_rate = (machine.rate(beside, "f32") if beside != "vector" else None) or vector_rate / 4.0
    if not vector_rate:
        raise UnsupportedError(
            f"{machine.name}: no f32 rate on the vector unit", hint="add units.vector.rate.f32 to the machine file"
        )
    double_rate = machine.rate(adding, "f64") or vector_rate
    for nest in kernel.nests:
        points = points_of(kernel, nest, sizes) * _times(kernel, nest, sizes, tiles)
        if nest.contraction is not None:
            rate = product_rate(machine, nest.contraction)
            if rate is None:
                vector += 2.0 * points / (double_rate if nest.contraction.operand.name == "f64" else vector_rate)
            else:
                tensor += 2.0 * points / rate
        for (unit, dtype), cost in nest.operations.items():
            if unit == "special":
                special += points * cost / special_rate
            elif unit == "fma":
                vector += points * cost / ((double_rate if dtype == "f64" else vector_rate) / 2.0)
    least = float(kernel.read_bytes.evaluate(sizes) + kernel.write_bytes.evaluate(sizes))
    level = machine.levels[0]
    dram = least / machine.need(level.bandwidth, f"levels.{level.name}.bandwidth")
    return tensor, vector, special, dram
