"""Finds races before a program runs: two engines of a core on the same scratchpad bytes, one of them writing, that nothing orders.

Each issue knows of what is done when it begins: all that its engine did before it, what signalled the semaphores that it waits for, and what
those knew. Whatever another engine was asked for beyond that may be under way at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import prod

import numpy as np

from codesign.backends.accelerator.flat import Flat, Ints
from codesign.backends.accelerator.prepare import Prepared, place_of
from codesign.ir.core import Value
from codesign.ir.errors import EvaluationError
from codesign.ir.index import Index, index
from codesign.ir.program import ENGINES, Instruction, Load, Matmul, Program, Scratch, Stage
from codesign.ir.scalar import Read


class Race(EvaluationError):
    """Two instructions that no semaphore orders touch the same bytes; the message names both."""


@dataclass(frozen=True)
class _Region:
    """Bytes of a memory that an instruction touches: `offset` (of the controls' values) plus `low <= byte < high`."""

    scratch: Scratch
    offset: Index
    low: int
    high: int
    writes: bool

    @property
    def memory(self) -> str:
        """What its bytes are counted in: of a scratch that is spread over instances, its own."""
        return self.scratch.level if self.scratch.over == 1 else f"{self.scratch.level} {self.scratch.name}"


_Known = list[int]
"""By engine, how many of its issues are done."""
_Touch = tuple[int, int, int, int, bool, str]
"""Position among its engine's issues, instruction, first byte, byte after the last, whether it is written, and the scratch's name."""


def check_scratchpads(program: Program, flat: Flat, order: Sequence[Ints]) -> None:
    """Race for two engines at the same bytes, EvaluationError for what is read and was not written.

    `order`: for each core, its issues in an order in which they can be carried out. Memories that cores share are checked within each core
    only: what cores do to each other is ordered by shared semaphores. Cores that do the same are checked once.
    """
    scratches = {s.value: s for s in program.scratches}
    _apart(program)
    staged = {op.target.source for op in program.instructions() if isinstance(op, Stage)}
    regions = [_regions(item, scratches, staged) for item in flat.prepared]
    places = [
        [_starts(region, rows.controls, len(rows.places)) for region in regions[number]]
        for number, rows in enumerate(flat.rows)
    ]
    known: set[int] = set()
    for core, mine in enumerate(order):
        if not len(mine):
            continue
        looks = _signature(flat, core, mine, places)
        if looks not in known:
            known.add(looks)
            _Core(program, flat, core, regions, places, staged).check(mine)


def _apart(program: Program) -> None:
    """EvaluationError for a scratch that is spread over instances of a memory and shares bytes there with another."""
    for one in (s for s in program.scratches if s.over > 1):
        for other in program.scratches:
            if other is not one and other.level == one.level and one.address < other.end and other.address < one.end:
                raise EvaluationError(
                    f"@{program.name}: scratch {one.name} is spread over {one.over} memories and shares bytes there with {other.name}",
                    hint="give it addresses of its own",
                )


def _signature(flat: Flat, core: int, order: Ints, places: list[list[Ints]]) -> int:
    """What tells cores apart: instructions, waits, what the tensor unit overwrites, and addresses."""
    low, high = flat.first[core], flat.first[core + 1]
    parts = [(order - low).tobytes(), flat.number[low:high].tobytes()]
    for item, rows, starts in zip(flat.prepared, flat.rows, places, strict=True):
        begin, end = np.searchsorted(rows.places, [low, high])
        columns = [*rows.waits, *starts]
        if isinstance(item.instruction, Matmul) and item.instruction.first is not None:
            columns.append(rows.controls[str(item.instruction.first)] == 0)
        parts += [column[begin:end].tobytes() for column in columns]
    return hash(tuple(parts))


class _Core:
    def __init__(
        self,
        program: Program,
        flat: Flat,
        core: int,
        regions: list[list[_Region]],
        places: list[list[Ints]],
        staged: Set[Value],
    ) -> None:
        """`staged`: scratches that outer memories' own DMA brings something into."""
        self.program, self.flat, self.core, self.regions, self.places = program, flat, core, regions, places
        self.staged = staged
        self.engine = [ENGINES.index(item.source.engine) for item in flat.prepared]
        self.overlaps = {
            a.value: [
                b.value
                for b in program.scratches
                if b is not a and a.level == b.level and a.address < b.end and b.address < a.end
            ]
            for a in program.scratches
        }
        self.good: set[Value] = set()
        self.knows: list[list[_Known]] = [[] for _ in ENGINES]
        self.touched: dict[str, list[list[_Touch]]] = {}
        self.signals: dict[str, dict[int, list[int]]] = {s.name: {} for s in program.semaphores if s.scope == "core"}
        """Of each semaphore of the core, by engine, which of its issues signal it."""

    def check(self, order: Ints) -> None:
        self._collect(order)
        for place in order.tolist():
            number = int(self.flat.number[place])
            row = int(np.searchsorted(self.flat.rows[number].places, place))
            knows = self._known(number, row)
            self._written(number, row)
            self._touch(number, row, knows)
            self.knows[self.engine[number]].append(knows)

    def _collect(self, order: Ints) -> None:
        """Which issues of each engine signal each semaphore."""
        counts = [0] * len(ENGINES)
        for place in order.tolist():
            number = int(self.flat.number[place])
            engine = self.engine[number]
            for name in self.flat.prepared[number].source.signals:
                if name in self.signals:
                    self.signals[name].setdefault(engine, []).append(counts[engine])
            counts[engine] += 1

    def _known(self, number: int, row: int) -> _Known:
        """What is done when an issue begins."""
        engine = self.engine[number]
        before = self.knows[engine]
        knows = [0] * len(ENGINES) if not before else before[-1][:]
        knows[engine] = len(before)
        rows = self.flat.rows[number]
        for position, wait in enumerate(self.flat.prepared[number].source.waits):
            made = self.signals.get(wait.name, {})
            least = int(rows.waits[position][row])
            for by, signals in made.items():
                sure = least - sum(len(others) for other, others in made.items() if other != by)
                if sure < 1 or signals[sure - 1] >= len(self.knows[by]):
                    continue
                last = signals[sure - 1]
                knows = [max(a, b) for a, b in zip(knows, self.knows[by][last], strict=True)]
                knows[by] = max(knows[by], last + 1)
        return knows

    def _written(self, number: int, row: int) -> None:
        """EvaluationError when something is read that is not there."""
        op = self.flat.prepared[number].instruction
        for read in self._reads(op, number, row):
            if read.source not in self.good and read.source in self.overlaps:
                raise EvaluationError(
                    f"{op.engine} instruction {number} reads scratch {read.source.name}, which core {self.core} has not "
                    "written, or has overwritten through another scratch at the same address",
                    place=place_of(self.flat.prepared[number], self.program),
                )
        for write in op.writes():
            self.good.difference_update(self.overlaps[write.source])
            self.good.add(write.source)

    def _reads(self, op: Instruction, number: int, row: int) -> Sequence[Read]:
        if isinstance(op, Matmul) and op.first is not None and not self.flat.rows[number].controls[str(op.first)][row]:
            return op.factors()
        return _reads(op, self.staged)

    def _touch(self, number: int, row: int, knows: _Known) -> None:
        engine = self.engine[number]
        mine: list[tuple[str, _Touch]] = []
        position = len(self.knows[engine])
        for region, starts in zip(self.regions[number], self.places[number], strict=True):
            low, high = int(starts[row]) + region.low, int(starts[row]) + region.high
            touch = (position, number, low, high, region.writes, region.scratch.name)
            mine.append((region.memory, touch))
            for other, touches in enumerate(self.touched.get(region.memory, ())):
                if other == engine:
                    continue
                for there in reversed(touches):
                    if there[0] < knows[other]:
                        break
                    if low < there[3] and there[2] < high and (region.writes or there[4]):
                        self._fail(touch, there)
        for level, touch in mine:
            self.touched.setdefault(level, [[] for _ in ENGINES])[engine].append(touch)

    def _fail(self, new: _Touch, old: _Touch) -> None:
        def said(touch: _Touch) -> str:
            _, number, _, _, writes, name = touch
            engine = self.flat.prepared[number].source.engine
            return f"{engine} instruction {number} {'writes' if writes else 'reads'} {name}"

        byte = max(new[2], old[2])
        raise Race(
            f"race in @{self.program.name} on core {self.core} at scratchpad byte {byte:,}: {said(new)} while {said(old)}",
            place=place_of(self.flat.prepared[new[1]], self.program),
            hint="order them with a semaphore",
        )


def _starts(region: _Region, controls: dict[str, Ints], count: int) -> Ints:
    """The offset of a region in its memory, in each execution."""
    found = np.asarray(region.offset.evaluate(controls), dtype=np.int64) + region.scratch.address
    return np.broadcast_to(found, (count,))


def _reads(op: Instruction, staged: Set[Value]) -> Sequence[Read]:
    """What an instruction reads of scratchpads, and what a load takes from where it was staged."""
    kept = op.keep.place if isinstance(op, Load) and op.keep is not None else None
    return (*op.reads(), kept) if kept is not None and kept.source in staged else op.reads()


def _regions(item: Prepared, scratches: dict[Value, Scratch], staged: Set[Value]) -> list[_Region]:
    op = item.instruction
    axes = {a.name: a.size for a in (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))}
    found: list[_Region] = []
    for reads, writes in ((_reads(op, staged), False), (op.writes(), True)):
        for read in reads:
            if read.source in scratches:
                found.append(_region(read, scratches[read.source], axes, writes))
    return found


def _region(read: Read, scratch: Scratch, axes: dict[str, int], writes: bool) -> _Region:
    strides = [prod(scratch.shape[i + 1 :]) for i in range(len(scratch.shape))]
    flat = index(0)
    for expression, stride in zip(read.indices, strides, strict=True):
        flat = flat + expression * stride
    low = high = 0
    bits = int(scratch.dtype.bytes * 8)
    for name, count in axes.items():
        factor = flat.coefficient(name)
        if factor is None or not factor.is_constant:
            return _Region(scratch, index(0), 0, scratch.bytes, writes)
        reach = factor.constant * (count - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    offset = flat.substitute(dict.fromkeys(axes, 0))
    if offset.data():
        return _Region(scratch, index(0), 0, scratch.bytes, writes)
    within = 0 if bits % 8 == 0 or all(factor * bits % 8 == 0 for _, factor in offset.terms) else 7  # of its first byte
    return _Region(scratch, offset * bits // 8, low * bits // 8, -(-((high + 1) * bits + within) // 8), writes)
