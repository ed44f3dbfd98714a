"""Mappings as schedules say them: for each memory, in `levels.<its name>`, the dims split in space over its instances, the order of what is
staged there and of its loops, and the tile of each dim that is left inside of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod

import numpy as np

from codesign.costmodel.mapping.chains import Ints, divisors
from codesign.costmodel.mapping.counting import Counting
from codesign.costmodel.mapping.hierarchy import Axis, Hierarchy
from codesign.costmodel.mapping.nest import Loop, Nest
from codesign.costmodel.mapping.problem import Problem
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import AtLevel, Schedule


def schedule_of(nest: Nest, factors: Mapping[str, Sequence[int]], counting: Counting) -> Schedule:
    """A mapping as a schedule."""
    left, levels = dict(nest.problem.extents), dict[str, AtLevel]()
    for number, store in enumerate(nest.hierarchy.stores):
        split, tile, order, stage = dict[str, int](), dict[str, int](), list[str](), dict[str, int]()
        for at, entry in enumerate(nest.entries):
            if isinstance(entry, tuple):
                if entry[0] == number:
                    order.append(entry[1].name)
                    stage[entry[1].name] = counting.buffers
                continue
            if _home(nest, entry) != number:
                continue
            for dim, row in factors.items():
                if row[at] > 1:
                    left[dim] //= row[at]
                    if entry.axis is not None:
                        split[dim] = split.get(dim, 1) * row[at]
                    else:
                        order.append(dim)
                        tile[dim] = left[dim]
        levels[store.name] = AtLevel(split, tile, tuple(order), stage)
    return Schedule(levels={name: level for name, level in levels.items() if level.to_json()})


def _home(nest: Nest, loop: Loop) -> int:
    """The store whose level has a loop: the one that its slot is in, or that lies just inside of its axis."""
    if loop.axis is not None:
        return min(nest.hierarchy.axes[loop.axis].before, len(nest.hierarchy.stores) - 1)
    return nest.staged[loop.slot - 1][0] if loop.slot else 0


def mapping_of(schedule: Schedule, problem: Problem, hierarchy: Hierarchy) -> tuple[Nest, dict[str, Ints]]:
    """The nest and the factors [1, entries] of a schedule; ScheduleError names what of it is none."""
    operands = {operand.name: operand for operand in problem.operands}
    names = [store.name for store in hierarchy.stores]
    for name in schedule.levels:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ScheduleError(
                f"levels.{name}: {hierarchy.name} has no such level",
                hint=f"nearest: {near[0]}" if near else ", ".join(names),
            )
    staged = []
    for number, name in enumerate(names[1:], 1):
        level = schedule.levels.get(name, AtLevel())
        _only_known(name, (*level.order, *level.stage), {*operands, *problem.extents})
        here = [operands[entry] for entry in level.order if entry in operands]
        here += [operands[entry] for entry in level.stage if entry in operands and operands[entry] not in here]
        _held_right(hierarchy, number, {operand.role for operand in here})
        staged += [(number, operand) for operand in here]
    nest = Nest(problem, hierarchy, tuple(staged))
    factors = {dim: np.ones((1, len(nest.entries)), np.int64) for dim in problem.extents}
    left = dict(problem.extents)
    for number, name in enumerate(names):
        _place(nest, number, schedule.levels.get(name, AtLevel()), left, factors)
    for dim, rest in left.items():  # what no level says is looped over innermost
        if rest > 1:
            factors[dim][0, _innermost(nest, dim)] *= rest
    return nest, factors


def _innermost(nest: Nest, dim: str) -> int:
    return max(at for at in nest.loops_of(dim) if isinstance(entry := nest.entries[at], Loop) and entry.axis is None)


def _only_known(level: str, said: Iterable[str], known: set[str]) -> None:
    for name in said:
        if name not in known:
            raise ScheduleError(
                f"levels.{level}: {name!r} is no operand and no dim of the product",
                hint=f"known: {', '.join(sorted(known))}",
            )


def _held_right(hierarchy: Hierarchy, number: int, roles: set[str]) -> None:
    store = hierarchy.stores[number]
    if wrong := roles - store.may:
        raise ScheduleError(f"levels.{store.name}.stage: {hierarchy.name} holds no {', '.join(sorted(wrong))} there")
    if missing := store.keeps - roles:
        raise ScheduleError(
            f"levels.{store.name}.stage: {hierarchy.name} always has the {', '.join(sorted(missing))} there"
        )


def _place(nest: Nest, number: int, level: AtLevel, left: dict[str, int], factors: dict[str, Ints]) -> None:
    """Set the factors of one level."""
    name, problem = nest.hierarchy.stores[number].name, nest.problem
    axes = {
        at: nest.hierarchy.axes[entry.axis]
        for at, entry in enumerate(nest.entries)
        if isinstance(entry, Loop) and entry.axis is not None and _home(nest, entry) == number
    }
    _only_known(name, (*level.split, *level.tile), set(problem.extents))
    for dim, parts in level.split.items():
        if left[dim] % parts:
            raise ScheduleError(f"levels.{name}.split.{dim}: {parts} parts do not divide {left[dim]}")
        left[dim] //= parts
    for dim, at, factor in _along_axes(nest, name, level.split, axes):
        factors[dim][0, at] *= factor
    slot = max((s for s, (store, _) in enumerate(nest.staged, 1) if store < number), default=0)
    looped = set[str]()
    for entry in (*level.order, *(dim for dim in level.tile if dim not in level.order)):
        if entry not in problem.extents:
            slot += 1
            continue
        tile = level.tile.get(entry, left[entry])
        if left[entry] % tile:
            raise ScheduleError(f"levels.{name}.tile.{entry}: {tile} does not divide {left[entry]}")
        if entry not in looped:
            factors[entry][0, _hoisted(nest, entry, slot)] *= left[entry] // tile
            left[entry] = tile
            looped.add(entry)


def _hoisted(nest: Nest, dim: str, slot: int) -> int:
    """The entry of a loop in time in a slot: outside of operands that depend on its dim, whose tiles are loaded piece by piece then."""
    while slot and dim in nest.staged[slot - 1][1].dims and dim not in nest.staged[slot - 1][1].window_dims:
        slot -= 1
    return next(at for at, entry in enumerate(nest.entries) if entry == Loop(slot))


def _along_axes(
    nest: Nest, name: str, split: Mapping[str, int], axes: Mapping[int, Axis]
) -> list[tuple[str, int, int]]:
    """(dim, entry, factor): the parts of each dim laid along axes that have room for them and may have the dim."""
    dims = [dim for dim, parts in split.items() if parts > 1]
    choices = [
        [
            row
            for row in product(*(divisors(split[dim]) if at in nest.loops_of(dim) else (1,) for at in axes))
            if prod(row) == split[dim]
        ]
        for dim in dims
    ]
    for picked in product(*choices):
        if all(prod(row[i] for row in picked) <= axis.size for i, axis in enumerate(axes.values())):
            return [
                (dim, at, row[i])
                for dim, row in zip(dims, picked, strict=True)
                for i, at in enumerate(axes)
                if row[i] > 1
            ]
    room = ", ".join(f"{axis.name} {axis.size}" for axis in axes.values()) or "none"
    raise ScheduleError(f"levels.{name}.split: {dict(split)} do not lie along its axes ({room})")
