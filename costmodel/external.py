"""Time of what we do not compile: library calls and the tensor-level ops that stay whole (sorts, scans, scatters).

A rule says how many times an op passes over its inputs and outputs and how many operations it takes; the time is that of the traffic at the
outermost memory's bandwidth or of the operations at the machine's rate, whichever is longer, plus launches. These are estimates from
algorithms, not calibrated, and their intervals say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codesign.costmodel.launches import launch_seconds
from codesign.costmodel.machine import Link, Machine
from codesign.costmodel.routines import least_operations, work_of
from codesign.ir.core import Op, Value
from codesign.ir.dtypes import DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.tensor import Call, Collective, Scan, Scatter, Sort

EFFICIENCY = 0.7
"""Share of the memory bandwidth, or of the rate of operations, that such routines reach; library sorts and scans are published at 0.6 to 0.8
of the first, products of large matrices at as much of the second."""
SPREAD = (0.5, 3.0)
"""Factors to the interval of an estimate with a rule of its own."""
UNRULED_SPREAD = (0.3, 10.0)
"""The same for a call of which only the bytes are known, and for factorisations, whose small panels keep a machine waiting."""
SMALL_SORT = 4096
"""Keys along a dim that torch sorts in one kernel, each row in one block (ATen/native/cuda/Sort.cpp, `should_use_small_sort`)."""
SCAN_STEP = {"logsumexp": 20.0, "argmax": 3.0, "argmin": 3.0}
"""Operations of one combination of a scan; 1 where it is not said."""
RADIX_BITS = 8
"""Bits that one pass of a library radix sort sorts by (Adinets and Merrill, Onesweep, 2022)."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of one call with its interval, the bytes moved, the operations done, and the rule in words."""

    seconds: float
    low: float
    high: float
    bytes: float
    rule: str
    operations: float = 0.0


def external_seconds(op: Op, machine: Machine, sizes: Mapping[str, int] | None = None) -> Estimate:
    """The estimated time of an op that is not compiled; UnsupportedError for ops that have no rule at all."""
    env = dict(sizes or {})
    inputs = sum(_bytes(value, env) for value in op.operands())
    outputs = sum(_bytes(value, env) for value in op.results)
    launches, spread, operations = 1, SPREAD, 0.0
    work = work_of(op, env) if isinstance(op, Call) else None
    if isinstance(op, Scatter):
        points = math.prod(float(extent.evaluate(env)) for extent in op.extents().values())
        width = op.init.type.dtype.bytes
        traffic = inputs + outputs + (2 if op.combine != "set" else 1) * points * width
        launches, rule, operations = 2, "copy, then one scattered update per point", points
    elif isinstance(op, Scan):
        traffic, rule = inputs + outputs, "one pass with decoupled look-back"
        operations = SCAN_STEP.get(op.monoid, 1.0) * _elements(op.result, env)
    elif isinstance(op, Sort):
        traffic, launches, operations, rule = _sorting(op, inputs + outputs, env)
    elif isinstance(op, Collective):
        if op.devices == 1:
            return Estimate(0.0, 0.0, 0.0, 0.0, "one device: nothing to do")
        return _collective(op, machine, max(inputs, outputs))
    elif isinstance(op, Call):
        traffic = inputs + outputs
        if work is not None:
            operations, launches, rule = work.operations, work.launches, work.rule
            spread = UNRULED_SPREAD if work.products else SPREAD
        else:
            operations, spread = least_operations(op, env), UNRULED_SPREAD
            rule = "bytes of operands and results once, one operation a result: a lower bound of the routine"
    else:
        raise UnsupportedError(f"no cost rule for {op.opcode!r}", place=op.location)
    bandwidth = machine.need(machine.levels[0].bandwidth, f"levels.{machine.levels[0].name}.bandwidth") * EFFICIENCY
    units = ("tensor", "vector") if work is not None and work.products else ("vector",)
    computing = operations / (_rate(op, machine, units) * EFFICIENCY)
    seconds = max(traffic / bandwidth, computing) + launches * launch_seconds(machine)
    least = max(traffic / bandwidth, computing) * EFFICIENCY  # at the machine's own peak, which nothing beats
    low = max(seconds * spread[0], least)
    return Estimate(seconds, low, seconds * spread[1], traffic, rule, operations)


def _sorting(op: Sort, pairs: float, env: Mapping[str, int]) -> tuple[float, int, float, str]:
    """Traffic, launches, operations and the rule of a sort whose keys, positions and results are `pairs` bytes."""
    keys = _elements(op.source, env)
    along = float(op.source.shape[op.dim].evaluate(env)) if op.source.shape else 1.0
    if op.keep is not None:
        return 2 * pairs, 2, keys * math.ceil(_dtype(op.source).bits / RADIX_BITS), "radix select"
    if along <= SMALL_SORT:
        depth = math.log2(max(along, 2.0))
        return (
            pairs,
            1,
            keys * depth * (depth + 1) / 2,
            "a sort of each row in one block (bitonic: n log2(n)^2 / 2 exchanges)",
        )
    passes = math.ceil(_dtype(op.source).bits / RADIX_BITS)
    rule = f"radix sort of key and position in {passes} passes"
    return pairs * (1 + passes), 1 + passes, 5 * keys * passes, rule


def _rate(op: Op, machine: Machine, units: Sequence[str]) -> float:
    """Operations a second of what the op works in, on the fastest of some units."""
    kinds = [_dtype(value).name for value in (*op.operands(), *op.results) if _dtype(value).is_float]
    dtype = kinds[0] if kinds else "f32"
    rates = [machine.rate(unit, dtype) or machine.rate(unit, "f32") or 0.0 for unit in units if machine.has_unit(unit)]
    return max(rates, default=0.0) or math.inf


def _collective(op: Collective, machine: Machine, size: float) -> Estimate:
    """Ring algorithms over the fastest link: (n-1)/n of the bytes, twice for an all-reduce (Patarasuk and Yuan, 2009), and
    the latency of the link in each step."""
    if not machine.links:
        raise UnsupportedError(f"{machine.name} has no links: a collective can't be costed", place=op.location)
    link = max(machine.links, key=lambda known: _bandwidth(machine, known))
    steps = (op.devices - 1) * (2 if op.kind == "all_reduce" else 1)
    latency = machine.need(link.latency_seconds, f"links.{link.name}.latency_seconds") if link.latency_seconds else 0.0
    seconds = size * steps / op.devices / _bandwidth(machine, link) + steps * latency + launch_seconds(machine)
    return Estimate(seconds, seconds * SPREAD[0], seconds * SPREAD[1], size, "ring over the fastest link")


def _bandwidth(machine: Machine, link: Link) -> float:
    return machine.need(link.bandwidth, f"links.{link.name}.bandwidth") * link.count


def _dtype(value: Value) -> DType:
    return value.type.dtype


def _elements(value: Value, sizes: Mapping[str, int]) -> float:
    return math.prod(float(extent.evaluate(sizes)) for extent in value.shape)


def _bytes(value: Value, sizes: Mapping[str, int]) -> float:
    return _elements(value, sizes) * _dtype(value).bytes
