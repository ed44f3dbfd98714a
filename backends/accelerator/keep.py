"""What the memories between DRAM and the cores keep of a kernel's loads, and where each of its tiles lies there."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from math import prod

from codesign.backends.accelerator.ahead import Sets
from codesign.backends.accelerator.grid import Grid
from codesign.costmodel.dataflow import resting
from codesign.costmodel.dataflow.keeping import Again, holders, kept, unfit
from codesign.costmodel.dataflow.target import Target
from codesign.ir.core import Op, Value
from codesign.ir.dtypes import F4E2M1, DType
from codesign.ir.errors import ScheduleError
from codesign.ir.index import Index, index, maximum, minimum
from codesign.ir.program import Keep, Scratch, scratch
from codesign.ir.scalar import Read
from codesign.ir.tile import For, Kernel, Load
from codesign.ir.types import BufferType, TileType


@dataclass(frozen=True)
class _Repeated:
    """A load with the grid variables that it depends on, and its loops with their trips."""

    op: Load
    used: frozenset[str]
    loops: tuple[tuple[Index, int], ...]
    """For each loop whose variable it depends on, the number of the step, and of steps."""
    several: bool = False
    """Whether a loop around it reads the same in each of its steps."""

    @property
    def type(self) -> TileType:
        assert isinstance(self.op.result.type, TileType)
        return self.op.result.type


_Digits = list[tuple[Index, int]]
"""Expressions that tell tiles apart, each with how many values it has; the first counts most."""


def _bytes(buffer: Value, constant: Callable[[Index], Index]) -> int:
    assert isinstance(buffer.type, BufferType)
    return int(prod(constant(size).constant for size in buffer.type.shape) * buffer.type.dtype.bytes)


def _place(load: _Repeated, made: Scratch, digits: _Digits) -> Read:
    number = index(0)
    for digit, many in digits:
        number = number * many + digit
    return Read(made.value, (number, *(index(axis.name) for axis in load.op.axes)))


class Keeping:
    """The kept loads of a kernel. `scratches`: the arrays in outer memories that they lie in; `sets`: of those with two buffers."""

    def __init__(
        self,
        kernel: Kernel,
        grid: Grid,
        target: Target,
        constant: Callable[[Index], Index],
        packed: Container[Value] = (),
    ) -> None:
        """`packed`: loads that take bytes of two numbers apart."""
        self.packed = packed
        self.grid = grid
        self.constant = constant
        self.scratches: list[Scratch] = []
        self.places: dict[Load, Keep] = {}
        self.sets: dict[Value, Sets] = {}
        names = dict(zip(kernel.params, resting.names_of(kernel), strict=True))
        staged = {place: at.stage for place, at in kernel.schedule.levels.items()}
        ports = resting.resting(target, staged, bool(kernel.schedule.extras.get("joined", False)))
        sizes = {name: _bytes(value, constant) for value, name in names.items() if name in ports}
        if why := resting.unfit(target, ports, sizes):
            raise ScheduleError(f"@{kernel.name} on {target.name}: {why}")
        self.resting = {value: ports[name] for value, name in names.items() if name in ports}
        """The buffers that are not in DRAM, with the port of the memory where they are."""
        staged = {place: {name: n for name, n in at.items() if name not in ports} for place, at in staged.items()}
        held = resting.held(target, ports, sizes)
        found: list[_Repeated] = []
        if grid.layout.gangs == 1:
            self._visit(kernel.body.ops, (), found)
        found = [load for load in found if load.op.buffer not in self.resting]
        again = [
            Again(
                load.used,
                prod(trips for _, trips in load.loops),
                prod(load.type.shape) * self._dtype(load).bytes,
                names[load.op.buffer],
                load.several,
            )
            for load in found
        ]
        chosen = kept(target, grid.layout, grid.turns, again, staged, held)
        if why := unfit(target, again, chosen, staged):
            raise ScheduleError(f"@{kernel.name} on {target.name}: {why}")
        used = [held.get(port, 0) for port in range(len(target.ports))]
        for load, where in zip(found, chosen, strict=True):
            since = int(where.since)
            port = int(where.port)
            if port:
                over = holders(target, port)
                whole = int(where.blocks) == int(where.waiting)
                number, many = self._waiting(load, since)
                most = many if whole else int(where.blocks)
                block = (
                    (number, many) if whole else (minimum(number, most), most + 1)
                )  # the last for all that are not kept
                digits = [*self._cores(load, 0 if over > 1 else target.ports[port].inside), block, *load.loops]
                slots = min(int(where.buffers), int(where.sets)) if where.buffers > 1 else 1
                digits = [(index(0), slots), *digits] if slots > 1 else digits
                made = self._scratch(load, digits, target.ports[port].place, used[port])
                made.over = over
                used[port] = made.end
                self.scratches.append(made)
                self.places[load.op] = Keep(_place(load, made, digits), self._again(load, since, number, most, whole))
                if where.buffers > 1:
                    self.sets[made.value] = self._sets(
                        load, made, digits, since, (slots, int(where.sets)), (number, many)
                    )

    def _dtype(self, load: _Repeated) -> DType:
        """As its data lies in scratchpads."""
        return F4E2M1 if load.op.result in self.packed else load.type.dtype

    def _visit(self, ops: Sequence[Op], around: tuple[For, ...], found: list[_Repeated]) -> None:
        for op in ops:
            if isinstance(op, For):
                self._visit(op.body.ops, (*around, op), found)
            elif isinstance(op, Load):
                repeated = self._repeated(op, around)
                found += [] if repeated is None else [repeated]

    def _repeated(self, op: Load, around: tuple[For, ...]) -> _Repeated | None:
        """None where its data is not the same for the same program and steps, or its loops are not known."""
        sides = [side for guard in op.guards for side in guard.sides]
        names = {name for i in (*op.indices, *sides) for name in i.variables()}
        loops: list[tuple[Index, int]] = []
        several = False
        for loop in around:
            bounds = [self.constant(side) for side in (loop.lower, loop.upper, loop.step)]
            if not all(side.is_constant for side in bounds) or any(i.data() for i in (*op.indices, *sides)):
                return None
            lower, upper, step = (side.constant for side in bounds)
            trips = -(-(upper - lower) // step)
            if loop.variable in names:
                loops.append(((index(loop.variable) - lower) // step, trips))
            else:
                several = several or trips > 1
        if any(i.data() for i in (*op.indices, *sides)):
            return None
        return _Repeated(op, frozenset(names & self.grid.extents.keys()), tuple(loops), several)

    def _cores(self, load: _Repeated, inside: int) -> _Digits:
        """What tells the tiles of a load in one memory apart by the cores that need them."""
        found: _Digits = []
        for name in (name for name in self.grid.split if name in load.used):
            many = prod(at.get(name, 1) for at in self.grid.parts[inside:])
            if many > 1:
                found.append((index(self.grid.coordinates[name]) % many, many))
        return found

    def _waiting(self, load: _Repeated, since: int) -> tuple[Index, int]:
        """The number of a block among those between one that reads something and the next that reads it again, and how many they are."""
        number, many, waits = index(0), 1, False
        for place, turn in enumerate(self.grid.turns[since:], since):
            count = int(turn.count)
            if turn.dim not in load.used:
                waits = waits or count > 1
            elif waits and count > 1:
                number, many = number * count + self.grid.turn(place), many * count
        return number, many

    def _sets(
        self,
        load: _Repeated,
        made: Scratch,
        digits: _Digits,
        since: int,
        sets: tuple[int, int],
        block: tuple[Index, int],
    ) -> Sets:
        """How a load goes through its sets (held ones, and all); `block`: the number of a tile's block, and how many they are."""
        sweep, sweeps, blocks = index(0), 1, 1
        again: list[bool] = []
        for place, turn in enumerate(self.grid.turns[since:], since):
            count = int(turn.count)
            blocks *= count
            if turn.dim not in load.used:
                sweep, sweeps = sweep * count + self.grid.turn(place), sweeps * count
            again += [turn.dim not in load.used] if count > 1 else []
        tile, tiles = block
        for step, trips in load.loops:
            tile, tiles = tile * trips + step, tiles * trips
        held, count = sets

        def place_of(slot: Index) -> Read:
            return _place(load, made, [(slot, held), *digits[1:]] if held > 1 else digits)

        in_turn = again == sorted(again, reverse=True)
        return Sets(made.value, held, count, blocks, sweeps, tiles, sweep, tile, in_turn, place_of, load.used)

    def _scratch(self, load: _Repeated, digits: _Digits, place: str, address: int) -> Scratch:
        count = prod(many for _, many in digits)
        name = self.grid.fresh(f"kept_{load.op.buffer.name}")
        return scratch(name, self._dtype(load), (count, *load.type.shape), address, place)

    def _again(self, load: _Repeated, since: int, number: Index, most: int, whole: bool) -> Index:
        """Zero for the first of the blocks that read the same, and for those beyond the most that are kept."""
        total = index(0)
        for place, turn in enumerate(self.grid.turns[since:], since):
            if turn.dim not in load.used and turn.count > 1:
                total = total + self.grid.turn(place)
        return total if whole else total * maximum(minimum(most - number, 1), 0)
