"""Operands with two buffers in an outer memory: its own DMA brings them there, ahead of the loads that take them from there.

A set is all that cores read until they read something else: tiles that are read in several sweeps over the blocks of programs. The first set is
staged as its tiles are needed; while a set is in use, the tiles of the next one come into the other buffer, as many in each sweep. Three
semaphores order that: `first` and `staged` count tiles that came, `read` the loads that are done with theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from codesign.backends.accelerator.grid import Grid
from codesign.backends.accelerator.rewrite import map_guards
from codesign.ir.core import Value
from codesign.ir.index import Index, index, maximum, minimum
from codesign.ir.program import Load, Loop, Program, Semaphore, Set, Share, Stage, Statement, Wait
from codesign.ir.scalar import Read


@dataclass(frozen=True)
class Sets:
    """How a load goes through the sets of its operand, for a scratch `kept` that holds so many of them (`held`) of `count`.

    `blocks`: of programs that read one; `sweeps` over its `tiles`; `sweep`, `tile`: the numbers of those of a load. `in_turn`: whether all
    tiles are read once before any is read again. `place`: of a tile, by the slot of its set. `used`: grid variables that the load depends on.
    """

    kept: Value
    held: int
    count: int
    blocks: int
    sweeps: int
    tiles: int
    sweep: Index
    tile: Index
    in_turn: bool
    place: Callable[[Index], Read]
    used: frozenset[str]


def stage_ahead(program: Program, grid: Grid, found: dict[Value, Sets], fresh: Callable[[str], str]) -> None:
    """Insert what stages operands that have two buffers, in place, with its semaphores."""
    if found:
        _Stager(program, grid, found, fresh).run()


class _Stager:
    def __init__(self, program: Program, grid: Grid, found: dict[Value, Sets], fresh: Callable[[str], str]) -> None:
        self.program, self.grid, self.found, self.fresh = program, grid, found, fresh
        self.registers: dict[tuple[str, int], str] = {}
        """By grid variable and blocks of a set, the register with its value in the next one."""

    def run(self) -> None:
        self._block(self.program.body)
        programs = next(s for s in self.program.walk() if isinstance(s, Loop) and s.variable == self.grid.variable)
        position = next((i for i, s in enumerate(programs.body) if not isinstance(s, Set)), 0)
        later: list[Statement] = []
        for (name, blocks), register in self.registers.items():
            values = {s.name: s.value for s in self.grid.programs(index(self.grid.variable) + blocks)}
            later.append(Set(register, values[name]))
        programs.body[position:position] = later

    def _block(self, block: list[Statement]) -> None:
        for statement in list(block):
            if isinstance(statement, Loop):
                self._block(statement.body)
            elif isinstance(statement, Load) and statement.keep is not None:
                sets = self.found.get(statement.keep.place.source)
                if sets is not None:
                    position = block.index(statement)
                    block[position : position + 1] = self._staged(statement, sets)

    def _staged(self, load: Load, sets: Sets) -> list[Statement]:
        """What takes the place of a load."""
        assert load.keep is not None
        number = index(self.grid.variable) // sets.blocks
        first, staged, read = (self.fresh(f"{what}_{load.source.name}") for what in ("first", "staged", "read"))
        several = sets.count > 1
        names = (first, staged, read) if several else (first,)
        self.program.semaphores += [Semaphore(name) for name in names]
        own = Stage(sets.place(number % sets.held), load.axes, load.source, load.indices, load.guards, load.otherwise)
        own.half = load.half
        own.share, own.signals, own.location = load.share, (first,), load.location
        missing = 1 - minimum(1, sets.sweep + number)
        load.keep = replace(load.keep, place=sets.place(number % sets.held), again=index(1))
        load.waits += (Wait(first, sets.tile + 1),)
        body: list[Statement] = [Loop(self.fresh("own"), index(0), missing, index(1), [own]), load]
        if several:
            load.waits += (Wait(staged, (number - 1) * sets.tiles + _rank(sets, number)),)
            load.signals += (read,)
            body.append(self._next(load, sets, number, staged, read))
        return body

    def _next(self, load: Load, sets: Sets, number: Index, staged: str, read: str) -> Loop:
        """Stages the same tile of the next set, in one of the sweeps."""
        later = {name: index(self._later(name, sets.blocks)) for name in sorted(sets.used)}
        indices = tuple(i.substitute(later) for i in load.indices)
        guards = map_guards(load.guards, lambda i: i.substitute(later))
        ahead = Stage(sets.place((number + 1) % sets.held), load.axes, load.source, indices, guards, load.otherwise)
        ahead.half = None if load.half is None else load.half.substitute(later)
        if load.share is not None:
            ahead.share = Share(load.share.key.substitute(later), load.share.members.substitute(later))
        done = sets.tiles * sets.sweeps
        ahead.waits = (Wait(read, (number + 2 - sets.held) * done),)
        ahead.signals, ahead.location = (staged,), load.location
        another = minimum(1, maximum(sets.count - 1 - number, 0))
        return Loop(self.fresh("ahead"), index(0), another * _here(sets, number), index(1), [ahead])

    def _later(self, name: str, blocks: int) -> str:
        key = (name, blocks)
        if key not in self.registers:
            self.registers[key] = self.fresh(f"next_{name}")
        return self.registers[key]


def _here(sets: Sets, number: Index) -> Index:
    """One where a tile of the next set is to be staged in the present sweep, else zero: in any one, while the first set is in use in any but the
    first, in which that is staged itself."""
    after = sets.sweeps - 1
    in_first = minimum(1, sets.sweep) * _none((sets.tile + (after - 1) * (sets.sweep - 1)) % after)
    if sets.count == 2:
        return in_first
    in_others = _none((sets.tile + after * sets.sweep) % sets.sweeps)
    return in_first + minimum(1, number) * (in_others - in_first)


def _rank(sets: Sets, number: Index) -> Index:
    """Tiles of a set that came until the one of a load is there."""
    if not sets.in_turn:
        return index(sets.tiles)

    def rank(sweeps: int) -> Index:
        each, more = divmod(sets.tiles, sweeps)
        came_in = sets.tile % sweeps
        return came_in * each + minimum(came_in, more) + sets.tile // sweeps + 1

    early = rank(sets.sweeps - 1)
    if sets.count == 2:
        return early
    return early + minimum(1, maximum(number - 1, 0)) * (rank(sets.sweeps) - early)


def _none(value: Index) -> Index:
    """One where a number is zero, else zero."""
    return 1 - minimum(1, value)
