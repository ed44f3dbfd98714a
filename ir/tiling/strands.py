"""Strands of a group: parts that share neither a loop nor a value, whose programs lie side by side on the grid.

Products of one operand with several weights, each of its own columns and with its own epilogue (query, key and value), are strands; so is
any small work beside a larger one. A grid over all their dims together would do each anew for every tile of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codesign.ir.core import Block, Value
from codesign.ir.schedule import AtLevel, Schedule
from codesign.ir.tensor import Compute, Fusion


@dataclass(frozen=True)
class Strand:
    """A part of a group, as a group of its own; `results`: the positions of its results among the whole group's."""

    fusion: Fusion
    results: tuple[int, ...]


def strands(fusion: Fusion) -> tuple[Strand, ...]:
    """The strands of a group in order of their first compute; the group itself where it is one loop nest."""
    found = nests(fusion.computes)
    if len(found) == 1:
        return (Strand(fusion, tuple(range(len(fusion.results)))),)
    return tuple(_strand(fusion, nest) for nest in found)


def nests(computes: Sequence[Compute]) -> list[list[Compute]]:
    """Computes by the loop nest that does them, in order of the first of each.

    Parts of which at most one has a dim for the grid are one nest: each program does all of them.
    """
    parts = connected(computes)
    return parts if sum(bool(outer_dims(part)) for part in parts) > 1 else [list(computes)]


def outer_dims(computes: Iterable[Compute]) -> set[str]:
    """Dims that none of the computes reduces over."""
    every = list(computes)
    reduced = {dim.name for op in every for dim in op.reductions}
    return {dim.name for op in every for dim in op.dims} - reduced


def restricted(schedule: Schedule, fusion: Fusion) -> Schedule:
    """What a schedule of a whole group says of the dims of a strand."""
    dims = fusion.dims()

    def mine(given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if name in dims}

    levels = {
        place: AtLevel(mine(at.split), mine(at.tile), tuple(n for n in at.order if n in dims), at.stage)
        for place, at in schedule.levels.items()
    }
    order = tuple(name for name in schedule.order if name in dims)
    return Schedule(
        mine(schedule.tiles),
        levels,
        order,
        mine(schedule.reduce),
        mine(schedule.split),
        schedule.pipeline,
        schedule.extras,
    )


def connected(computes: Sequence[Compute]) -> list[list[Compute]]:
    """The computes by what they share: those with a dim or a value in common are of one part."""
    found: list[tuple[set[str | Value], list[Compute]]] = []
    made = {op.result for op in computes}
    for op in computes:
        marks: set[str | Value] = {op.result, *made.intersection(op.operands()), *(dim.name for dim in op.domain)}
        touching = [part for part in found if part[0] & marks]
        before = [other for part in touching for other in part[1]]
        marks = marks.union(*(part[0] for part in touching))
        where = found.index(touching[0]) if touching else len(found)
        found = [part for part in found if part not in touching]
        found.insert(where, (marks, [*before, op]))
    order = {op: position for position, op in enumerate(computes)}
    return [sorted(part, key=order.__getitem__) for _, part in found]


def _strand(fusion: Fusion, part: list[Compute]) -> Strand:
    made = {op.result for op in part}
    results = tuple(k for k, value in enumerate(fusion.body.yields) if value in made)
    body = Block((), part, (fusion.body.yields[k] for k in results))
    writes = {place: fusion.writes[k] for place, k in enumerate(results) if k in fusion.writes}
    shapes = {place: fusion.shapes[k] for place, k in enumerate(results) if k in fusion.shapes}
    names = [fusion.results[k].name for k in results]
    own = Fusion(body, names=names, label=fusion.label, writes=writes, shapes=shapes, location=fusion.location)
    return Strand(own, results)
