"""The grid of a kernel over the cores of a machine: the loop in which a core takes its programs, and which loads it makes together with
others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from codesign.costmodel.dataflow.space import layout, worthwhile
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.turns import turns
from codesign.ir.errors import ScheduleError
from codesign.ir.index import Index, index, minimum, product
from codesign.ir.program import Loop, Set, Share, Statement
from codesign.ir.schedule import Schedule
from codesign.ir.tile import grid_variable


class Grid:
    """Programs by grid variable, laid out over the cores as the schedule splits them (see `costmodel.dataflow.space`).

    `cores`: how many of the machine's to use; with fewer than all of them no split is made.
    """

    def __init__(
        self,
        extents: Mapping[str, int],
        schedule: Schedule,
        target: Target,
        cores: int | None,
        fresh: Callable[[str], str],
    ) -> None:
        self.extents = dict(extents)
        self.target = target
        self.fresh = fresh
        total = prod(extents.values())
        every = target.cores if cores is None else max(1, min(cores, target.cores))
        self.parts: list[dict[str, int]] = [{} for _ in target.places]
        if every == target.cores:
            self.parts = [_split(schedule, place, count, self.extents) for place, count in target.places]
        self.whole = {name: prod(at.get(name, 1) for at in self.parts) for name in self.extents}
        self.split = [name for name, parts in self.whole.items() if parts > 1]
        self.cores = every if self.split else max(1, min(every, total))
        given = {place: at for (place, _), at in zip(target.places, self.parts, strict=True)}
        self.layout = layout(target, self.extents, given if every == target.cores else {})
        self.blocks = {name: -(-extent // self.whole[name]) for name, extent in self.extents.items()}
        lanes = {grid_variable(dim): tile for dim, tile in schedule.tiles.items()}
        tiles = {
            place: {grid_variable(dim): size for dim, size in at.tile.items()} for place, at in schedule.levels.items()
        }
        sizes = {name: lanes.get(name, 1) for name in self.extents}
        orders = {place: [grid_variable(dim) for dim in at.order] for place, at in schedule.levels.items()}
        self.turns = turns(target, self.blocks, given, sizes, tiles, orders)
        self.coordinates = {name: fresh(name.replace("p", "c", 1)) for name in self.split}
        self.variable = ""
        """Of the loop over a core's programs, once that is made."""

    # -- the loop ------------------------------------------------------------------------------------------------
    def loop(self, body: list[Statement]) -> tuple[list[Statement], Loop]:
        """The statements that run `body` for each of a core's programs, and the loop around it."""
        if not self.split:
            first, step = index("core"), index(self.cores)
            setup: list[Statement] = []
        else:
            setup, first, gangs = self._places()
            step = index(gangs)
        total = prod(self.blocks.values())
        if len(self.blocks) == 1 and not self.split:
            self.variable = next(iter(self.blocks))
            outer = Loop(self.variable, first, index(total), step, body)
            return [outer], outer
        self.variable = variable = self.fresh("t")
        inner = outer = Loop(variable, first, index(total), step, body)
        ragged = [name for name in self.split if self.extents[name] % self.whole[name]]
        if ragged:  # no program, no step
            left = [index(self.extents[name]) - index(name) for name in ragged]
            inner = Loop(self.fresh("any"), index(0), minimum(1, *left), index(1), body)
            outer = Loop(variable, first, index(total), step, [inner])
        outer.body[:0] = self.programs(index(variable))
        return [*setup, outer], inner

    def turn(self, number: int) -> Index:
        """Which part of its dim a turn is at, from the number of the program."""
        turn = self.turns[number]
        part = index(turn.dim) // (self.whole[turn.dim] * int(turn.below))
        outermost = all(before.dim != turn.dim for before in self.turns[:number])
        return part if outermost else part % int(turn.count)

    def programs(self, block: Index) -> list[Set]:
        """The program along each dim, from the number of its block and the core's place in the gang."""
        found = dict.fromkeys(self.extents, index(0))
        below, total = 1, prod(self.blocks.values())
        for turn in reversed(self.turns):
            count = int(turn.count)
            part = block // below
            part = part if below * count >= total else part % count
            found[turn.dim] = found[turn.dim] + part * int(turn.below)
            below *= count
        for name, coordinate in self.coordinates.items():
            found[name] = found[name] * self.whole[name] + index(coordinate)
        return [Set(name, value) for name, value in found.items()]

    def _places(self) -> tuple[list[Statement], Index, int]:
        """Where a core is in its gang, along each split dim; the gang's number; and how many there are."""
        found = dict.fromkeys(self.split, index(0))
        gang, gangs, below = index(0), 1, self.target.cores
        for (_, count), at in zip(self.target.places, self.parts, strict=True):
            outer, below = below, below // count
            digit = index("core") % outer // below if outer < self.target.cores else index("core") // below
            inside = prod(at.values())
            if inside < count:
                gang, gangs = gang * (count // inside) + digit // inside, gangs * (count // inside)
            for name, parts in at.items():
                inside //= parts
                found[name] = found[name] * parts + digit // inside % parts
        return [Set(self.coordinates[name], value) for name, value in found.items()], gang, gangs

    # -- what is read together -----------------------------------------------------------------------------------
    def share(self, used: frozenset[str]) -> Share | None:
        """Who makes a load together that depends on these grid variables; None where each core makes it alone."""
        common = [name for name in self.split if name not in used]
        sharers = [prod(n for name, n in at.items() if name not in used) for at in self.parts]
        if not common or not worthwhile(self.target, sharers):
            return None
        key, below = index(0), 1
        members: list[Index] = []
        for name in reversed(self.extents):
            first = index(name) - index(self.coordinates[name]) if name in common else index(name)
            key, below = key + first * below, below * self.extents[name]
            if name in common:
                ragged = self.extents[name] % self.whole[name] != 0
                left = minimum(self.whole[name], index(self.extents[name]) - first)
                members.append(left if ragged else index(self.whole[name]))
        return Share(key, product(members))


def _split(schedule: Schedule, place: str, count: int, extents: Mapping[str, int]) -> dict[str, int]:
    """Parts by grid variable at a place, the slowest first; a dim that is not in the grid has one program, which no place splits. ScheduleError
    where the place's instances can't be dealt out evenly to the parts: two gangs would be one."""
    at = schedule.levels.get(place)
    given = {} if at is None else {grid_variable(dim): parts for dim, parts in at.split.items() if parts > 1}
    found = {name: given[name] for name in extents if name in given}
    if count % prod(found.values()):
        parts = prod(found.values())
        raise ScheduleError(
            f"levels.{place}: {parts} parts do not divide the {count} instances", hint="give a divisor of them"
        )
    return found
