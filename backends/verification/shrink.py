"""A smaller problem with the same kernel structure: fewer tiles of the same sizes, so that interpreting it takes a second.

A kernel's tiles, loops, masks and expressions don't depend on how many tiles there are; its shapes do. So a big kernel is verified as its
own lowering, under its own schedule, of the same group with shorter dims: one or two tiles along each grid dim, up to three steps of
each loop, and a remainder where there was one. Inputs shrink to what the shorter dims reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from codesign.ir.core import Block, Op, Value, tensor_type
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import IndexValue, Read, Scalar
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Dim, Fusion
from codesign.ir.tiling.outputs import OutputMap
from codesign.ir.types import TensorType
from codesign.passes.normalize import Normalized

FEW_POINTS = 1 << 22
"""Points of the iteration domain that are verified as they are."""

FEW_STEPS = 192
"""Tile steps (programs times loop iterations) that are verified as they are."""

FEW_ENTRIES = 64
"""Entries that a dim keeps which data index."""

_PLACE = "?place"


@dataclass(frozen=True)
class Shrunk:
    """A group with shorter dims, and how its extents were ("m: 8192 -> 160"); `changed` empty when it is the original."""

    group: Normalized
    changed: Mapping[str, tuple[int, int]]
    values: Mapping[Value, Value]
    """The original group's inputs -> this one's."""


def shrink(group: Normalized, schedule: Schedule) -> Shrunk:
    """The group itself when it is small, else with shorter dims. Symbolic dims keep their extents (their sizes are chosen at run time)."""
    fusion = group.fusion
    extents = dict(fusion.dims())
    fixed = {name: extent.constant for name, extent in extents.items() if extent.is_constant}
    points = math.prod(fixed.values())
    steps = math.prod(
        -(-extent // schedule.tiles.get(name, 1)) for name, extent in fixed.items() if not _resident(name, schedule)
    )
    if points <= FEW_POINTS and steps <= FEW_STEPS:
        return Shrunk(group, {}, {value: value for value in fusion.uses()})
    inner = set(fusion.inner_dims())
    shorter = {}
    for name, extent in fixed.items():
        if _resident(name, schedule):
            continue
        tile = schedule.tiles.get(name, 1)
        new = tile * (2 if name in inner else 1) + (extent % tile or (0 if name in inner else tile))
        if new < extent:
            shorter[name] = new
    return _with_extents(group, shorter, fixed) if shorter else Shrunk(group, {}, {v: v for v in fusion.uses()})


def _resident(name: str, schedule: Schedule) -> bool:
    return schedule.reduce.get(name) == "resident"


def _with_extents(group: Normalized, shorter: Mapping[str, int], before: Mapping[str, int]) -> Shrunk:
    fusion = group.fusion
    extents = {name: index(shorter[name]) if name in shorter else extent for name, extent in fusion.dims().items()}
    bounds = Bounds(extents)
    members = {compute.result for compute in fusion.computes}
    mapping: dict[Value, Value] = {}
    for value in fusion.uses():
        reads = [r for c in fusion.computes for node in c.body.walk() for r in _reads(node) if r.source is value]
        for write in fusion.writes.values():
            found = (r for i in write.at for scalar in i.data() for r in scalar.reads())
            reads += [r for r in (Read(write.base, write.at), *found) if r.source is value]
        mapping[value] = Value(_reached(tensor_type(value), reads, bounds), value.name)
    inputs = dict(mapping)
    ops: list[Op] = []
    for compute in fusion.computes:
        dims, reductions = ([Dim(d.name, extents[d.name]) for d in each] for each in (compute.dims, compute.reductions))
        new = compute.with_domain(dims, reductions, compute.body.replace_sources(mapping))
        mapping[compute.result] = new.result
        ops.append(new)
    block = Block([], ops, [mapping[value] for value in fusion.body.yields])
    names = [value.name for value in fusion.results]
    writes = {position: write.replaced(mapping) for position, write in fusion.writes.items()}
    small = Fusion(block, names=names, label=fusion.label, writes=writes, location=fusion.location)
    outputs = tuple(
        OutputMap(tensor_type(writes[position].base), writes[position].at)
        if position in writes
        else OutputMap(TensorType(where.type.dtype, _reach(where.indices, where.type.shape, bounds)), where.indices)
        for position, where in enumerate(group.outputs)
    )
    assert members
    changed = {name: (before[name], new) for name, new in shorter.items()}
    return Shrunk(Normalized(small, outputs, group.merged), changed, inputs)


def _reads(node: Scalar) -> tuple[Read, ...]:
    return (node,) if isinstance(node, Read) else ()


def _reach(indices: tuple[Index, ...], shape: tuple[Index, ...], bounds: Bounds) -> tuple[Index, ...]:
    sizes = []
    for expression, size in zip(indices, shape, strict=True):
        _, high = expression.limits(bounds)
        sizes.append(index(min(high + 1, size.constant)) if high is not None and size.is_constant else size)
    return tuple(sizes)


def _reached(kind: TensorType, reads: list[Read], bounds: Bounds) -> TensorType:
    """The tensor cut to what the reads reach; along a dim that data indexes, to a few entries."""
    sizes = []
    inside = Bounds({**bounds.extents, _PLACE: index(FEW_ENTRIES)}, bounds.symbols)
    for position, size in enumerate(kind.shape):
        reach = 0
        for read in reads:
            expression = read.indices[position]
            _, high = expression.limits(bounds)
            if high is None and expression.data():
                _, high = expression.substitute({}, lambda _: IndexValue(_PLACE)).limits(inside)
            if high is None or not size.is_constant:
                reach = -1
                break
            reach = max(reach, high + 1)
        whole = reach <= 0 or not size.is_constant or reach > size.constant
        sizes.append(size if whole else index(reach))
    return TensorType(kind.dtype, tuple(sizes))
