"""Gives every scratch of a program its slots and its address.

What one engine writes in an iteration and another reads gets several slots, so that the writer can go on to the next iteration;
the rest share addresses where their lives do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codesign.backends.accelerator.rewrite import map_reads, with_slot
from codesign.costmodel.dataflow.target import Target
from codesign.ir.core import Value
from codesign.ir.errors import ScheduleError
from codesign.ir.index import index
from codesign.ir.program import Engine, Instruction, Loop, Matmul, Program, Scratch, Set, Statement
from codesign.ir.scalar import Read
from codesign.ir.types import TileType

ALIGNMENT = 64


@dataclass(frozen=True)
class Slots:
    """A scratch has `depth` slots, used in turn by the iterations of `loop`."""

    loop: Loop
    depth: int


@dataclass
class _Access:
    position: int
    path: tuple[Loop, ...]
    instruction: Instruction
    writes: bool


def arrange(program: Program, target: Target, depths: Mapping[int, int], programs: Loop) -> dict[Value, Slots]:
    """Set slots, levels and addresses of the program's scratches, in place; returns which have slots.

    `depths`: for a loop (by id), how many iterations may be in flight. `programs`: the loop over what a core works on. When all slots do
    not fit, its own are given up, then all. Raises ScheduleError when a single set does not fit.
    """
    accesses = _accesses(program.body)
    spans = _loop_spans(program.body)
    program.scratches = [s for s in program.scratches if s.value in accesses]
    wanted = {s.value: slots for s in program.scratches if (slots := _slots(accesses[s.value], depths))}
    outermost = {value: slots for value, slots in wanted.items() if slots.loop is not programs}
    needed = 0
    options: tuple[tuple[str, dict[Value, Slots], bool], ...] = (
        ("", wanted, True),
        ("loads of the next tile wait for this one", wanted, False),
        ("outer loop not double-buffered", outermost, True),
        ("outer loop not double-buffered, addresses shared", outermost, False),
        ("not double-buffered", {}, True),
        ("not double-buffered, addresses shared", {}, False),
    )
    for note, choice, apart in options:
        needed = _place(program, target, accesses, spans, choice, apart)
        if needed <= target.capacity["core"]:
            if note:
                program.notes["buffers"] = f"{note}: more slots do not fit the scratchpad"
            _apply(program, choice)
            return choice
    raise ScheduleError(
        f"@{program.name} on {target.name}: scratchpad: needs {needed:,} B, limit {target.capacity['core']:,} B",
        hint="use smaller tiles",
    )


def _accesses(body: list[Statement]) -> dict[Value, list[_Access]]:
    """Every access to each scratch with its position in program order and the loops around it."""
    found: dict[Value, list[_Access]] = {}
    position = 0

    def visit(block: list[Statement], path: tuple[Loop, ...]) -> None:
        nonlocal position
        for statement in block:
            position += 1
            if isinstance(statement, Loop):
                visit(statement.body, (*path, statement))
                position += 1
            elif isinstance(statement, Instruction):
                for reads, writes in ((statement.reads(), False), (statement.writes(), True)):
                    for read in reads:
                        found.setdefault(read.source, []).append(_Access(position, path, statement, writes))

    visit(body, ())
    return found


def _loop_spans(body: list[Statement]) -> dict[int, tuple[int, int]]:
    """First and last position of each loop, by id, in the numbering of `_accesses`."""
    spans: dict[int, tuple[int, int]] = {}
    position = 0

    def visit(block: list[Statement]) -> None:
        nonlocal position
        for statement in block:
            position += 1
            if isinstance(statement, Loop):
                first = position
                visit(statement.body)
                position += 1
                spans[id(statement)] = (first, position)

    visit(body)
    return spans


def _home(accesses: list[_Access]) -> tuple[Loop, ...]:
    """The loops that contain every access."""
    common = accesses[0].path
    for access in accesses[1:]:
        length = 0
        while length < min(len(common), len(access.path)) and common[length] is access.path[length]:
            length += 1
        common = common[:length]
    return common


def _slots(accesses: list[_Access], depths: Mapping[int, int]) -> Slots | None:
    home = _home(accesses)
    engines: set[Engine] = {access.instruction.engine for access in accesses}
    depth = depths.get(id(home[-1]), 1) if home else 1
    return Slots(home[-1], depth) if len(engines) > 1 and depth > 1 else None


def _place(
    program: Program,
    target: Target,
    accesses: Mapping[Value, list[_Access]],
    spans: Mapping[int, tuple[int, int]],
    slots: Mapping[Value, Slots],
    apart: bool,
) -> int:
    """First-fit by size over lives; returns bytes needed of the core's scratchpad.

    `apart`: what two engines touch shares its addresses with nothing, so that its writer can run ahead.
    """
    lives: dict[Value, tuple[int, int]] = {}
    sizes: dict[Value, int] = {}
    for item in program.scratches:
        mine = accesses[item.value]
        home = _home(mine)
        low, high = min(a.position for a in mine), max(a.position for a in mine)
        for access in mine:  # an access in a deeper loop is made at any time of that loop
            for loop in access.path[len(home) :]:
                low, high = min(low, spans[id(loop)][0]), max(high, spans[id(loop)][1])
        if apart and len({access.instruction.engine for access in mine}) > 1:
            low, high = 0, 1 << 60
        elif item.value in slots:  # other slots are in use during the whole loop
            low, high = spans[id(slots[item.value].loop)]
        lives[item.value] = (low, high)
        depth = slots[item.value].depth if item.value in slots else 1
        sizes[item.value] = -(-item.bytes * depth // ALIGNMENT) * ALIGNMENT
    on_array = _accumulators(program, target, accesses, sizes, lives)
    for level in ("array", "core"):
        items = [item for item in program.scratches if (item.value in on_array) == (level == "array")]
        for item, address in _addresses(items, sizes, lives).items():
            item.level, item.address = level, address
    return max((s.address + sizes[s.value] for s in program.scratches if s.level == "core"), default=0)


def _addresses(
    items: Sequence[Scratch], sizes: Mapping[Value, int], lives: Mapping[Value, tuple[int, int]]
) -> dict[Scratch, int]:
    """Addresses in a memory, the largest first: each at the lowest place that nothing has that lives beside it."""
    placed: dict[Scratch, int] = {}
    for item in sorted(items, key=lambda s: -sizes[s.value]):
        low, high = lives[item.value]
        busy = sorted(
            (address, address + sizes[other.value])
            for other, address in placed.items()
            if lives[other.value][0] <= high and low <= lives[other.value][1]
        )
        free = 0
        for start, end in busy:
            if free + sizes[item.value] <= start:
                break
            free = max(free, end)
        placed[item] = free
    return placed


def _accumulators(
    program: Program,
    target: Target,
    accesses: Mapping[Value, list[_Access]],
    sizes: Mapping[Value, int],
    lives: Mapping[Value, tuple[int, int]],
) -> set[Value]:
    """Targets of products that only the tensor and vector units touch, as far as the array's own memory holds them."""
    limit = target.capacity.get("array", 0)
    chosen: list[Scratch] = []
    for item in program.scratches:
        mine = accesses[item.value]
        product = any(isinstance(a.instruction, Matmul) and a.instruction.target.source is item.value for a in mine)
        near = all(a.instruction.engine in ("tensor", "vector") for a in mine)
        operand = any(
            isinstance(a.instruction, Matmul) and item.value in (a.instruction.a.source, a.instruction.b.source)
            for a in mine
        )
        if product and near and not operand:
            placed = _addresses([*chosen, item], sizes, lives)
            if max(address + sizes[other.value] for other, address in placed.items()) <= limit:
                chosen.append(item)
    return {item.value for item in chosen}


def names_in(program: Program) -> set[str]:
    """Every name that an index expression of the program may mean: axes, registers, loop variables and scratches."""
    names = {"core", "cores", *(s.name for s in program.scratches)}
    for statement in program.walk():
        if isinstance(statement, Loop):
            names |= {statement.variable, statement.count}
        elif isinstance(statement, Set):
            names.add(statement.name)
        else:
            axes = (*getattr(statement, "axes", ()), *getattr(statement, "reduced", ()))
            names |= {axis.name for axis in axes}
    return names


def _apply(program: Program, slots: Mapping[Value, Slots]) -> None:
    """Give slotted scratches their leading dimension and index it by the loop's count."""
    taken = names_in(program)
    for loop in dict.fromkeys(s.loop for s in slots.values()):
        number = 0
        while (name := f"i{number or ''}") in taken:
            number += 1
        taken.add(name)
        loop.count = name
    for item in program.scratches:
        if item.value in slots:
            item.value.type = TileType(item.dtype, (slots[item.value].depth, *item.shape))

    def change(read: Read) -> Read:
        found = slots.get(read.source)
        return read if found is None else with_slot(read, index(found.loop.count) % found.depth)

    def visit(block: list[Statement]) -> None:
        for position, statement in enumerate(block):
            if isinstance(statement, Loop):
                visit(statement.body)
            elif isinstance(statement, Instruction):
                block[position] = map_reads(statement, change)

    visit(program.body)
