"""Time of what we do not compile: library calls and the tensor-level ops that stay whole (sorts, scans, scatters, random numbers).

A rule says how many times an op passes over its inputs and outputs; the time is that traffic at the outermost memory's bandwidth plus
launches. These are estimates from algorithms, not calibrated, and their intervals say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from codesign.costmodel.launches import launch_seconds
from codesign.costmodel.machine import Link, Machine
from codesign.ir.core import Op, Value
from codesign.ir.dtypes import DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.tensor import Call, Collective, Random, Scan, Scatter, Sort

EFFICIENCY = 0.7
"""Share of the memory bandwidth that such routines reach; library sorts and scans are published at 0.6 to 0.8 of it."""
SPREAD = (0.5, 3.0)
"""Factors to the interval of an estimate with a rule of its own."""
UNRULED_SPREAD = (0.3, 10.0)
"""The same for a call of which only the bytes are known."""
RADIX_BITS = 8
"""Bits that one pass of a library radix sort sorts by (Adinets and Merrill, Onesweep, 2022)."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of one call with its interval, the bytes moved, and the rule in words."""

    seconds: float
    low: float
    high: float
    bytes: float
    rule: str


def external_seconds(op: Op, machine: Machine, sizes: Mapping[str, int] | None = None) -> Estimate:
    """The estimated time of an op that is not compiled; UnsupportedError for ops that have no rule at all."""
    env = dict(sizes or {})
    inputs = sum(_bytes(value, env) for value in op.operands())
    outputs = sum(_bytes(value, env) for value in op.results)
    launches, spread = 1, SPREAD
    if isinstance(op, Scatter):
        points = math.prod(float(extent.evaluate(env)) for extent in op.extents().values())
        width = op.init.type.dtype.bytes
        traffic = inputs + outputs + (2 if op.combine != "set" else 1) * points * width
        launches, rule = 2, "copy, then one scattered update per point"
    elif isinstance(op, Scan):
        traffic, rule = inputs + outputs, "one pass with decoupled look-back"
    elif isinstance(op, Sort):
        passes = 1 if op.keep is not None else math.ceil(_dtype(op.source).bits / RADIX_BITS)
        pairs = inputs + outputs
        traffic, launches = pairs * (1 + passes), 1 + passes
        rule = "radix select" if op.keep is not None else f"radix sort of key and position in {passes} passes"
    elif isinstance(op, Random):
        traffic, rule = outputs, "one write"
    elif isinstance(op, Collective):
        if op.devices == 1:
            return Estimate(0.0, 0.0, 0.0, 0.0, "one device: nothing to do")
        return _collective(op, machine, max(inputs, outputs))
    elif isinstance(op, Call):
        traffic, spread = inputs + outputs, UNRULED_SPREAD
        rule = "bytes of operands and results once: a lower bound of the routine's traffic"
    else:
        raise UnsupportedError(f"no cost rule for {op.opcode!r}", place=op.location)
    bandwidth = machine.need(machine.levels[0].bandwidth, f"levels.{machine.levels[0].name}.bandwidth") * EFFICIENCY
    seconds = traffic / bandwidth + launches * launch_seconds(machine)
    return Estimate(seconds, seconds * spread[0], seconds * spread[1], traffic, rule)


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


def _bytes(value: Value, sizes: Mapping[str, int]) -> float:
    return math.prod(float(extent.evaluate(sizes)) for extent in value.shape) * _dtype(value).bytes
