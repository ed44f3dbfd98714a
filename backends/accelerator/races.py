"""Finds races while a program runs: two engines of a core on the same scratchpad bytes at the same time, one of them writing."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from codesign.backends.accelerator.control import Prepared
from codesign.ir.core import Value
from codesign.ir.errors import EvaluationError
from codesign.ir.index import Index, index
from codesign.ir.program import Program, Scratch
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


Busy = tuple[str, int, int, bool, str]
"""Memory, first byte, byte after the last, whether it is written, and the scratch's name."""


class RaceDetector:
    """Knows what every core's engines are touching; `begin` raises Race when a new instruction collides with one under way.

    Memories that cores share are checked within each core only: what cores do to each other is ordered by shared semaphores.
    """

    def __init__(self, program: Program, prepared: list[Prepared]) -> None:
        scratches = {s.value: s for s in program.scratches}
        self.program = program
        self.prepared = prepared
        self.regions = [_regions(item, scratches) for item in prepared]
        self.active: list[dict[tuple[int, int], list[Busy]]] = [{} for _ in range(program.cores)]

    def begin(self, core: int, number: int, controls: tuple[int, ...], ticket: int) -> None:
        """An instruction starts; `ticket` tells its executions apart."""
        fixed = dict(zip(self.prepared[number].controls, controls, strict=True))
        mine: list[Busy] = []
        for region in self.regions[number]:
            start = region.scratch.address + region.offset.evaluate(fixed)
            mine.append(
                (region.scratch.level, start + region.low, start + region.high, region.writes, region.scratch.name)
            )
        engine = self.prepared[number].source.engine
        for (other, _), busy in self.active[core].items():
            if self.prepared[other].source.engine == engine:
                continue
            for level, low, high, writes, name in mine:
                for their_level, their_low, their_high, they_write, their_name in busy:
                    if level == their_level and low < their_high and their_low < high and (writes or they_write):
                        self._fail(core, (number, name, writes), (other, their_name, they_write), max(low, their_low))
        self.active[core][number, ticket] = mine

    def end(self, core: int, number: int, ticket: int) -> None:
        """An instruction is done."""
        self.active[core].pop((number, ticket), None)

    def _fail(self, core: int, new: tuple[int, str, bool], old: tuple[int, str, bool], byte: int) -> None:
        def said(what: tuple[int, str, bool]) -> str:
            number, name, writes = what
            engine = self.prepared[number].source.engine
            return f"{engine} instruction {number} {'writes' if writes else 'reads'} {name}"

        raise Race(
            f"race in @{self.program.name} on core {core} at scratchpad byte {byte:,}: {said(new)} while {said(old)}",
            place=self.prepared[new[0]].source.location,
            hint="order them with a semaphore",
        )


def _regions(item: Prepared, scratches: dict[Value, Scratch]) -> list[_Region]:
    op = item.instruction
    axes = {a.name: a.size for a in (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))}
    found: list[_Region] = []
    for reads, writes in ((op.reads(), False), (op.writes(), True)):
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
    size = scratch.dtype.bytes
    for name, count in axes.items():
        factor = flat.coefficient(name)
        if factor is None or not factor.is_constant:
            return _Region(scratch, index(0), 0, scratch.bytes, writes)
        reach = factor.constant * (count - 1)
        low, high = low + min(reach, 0), high + max(reach, 0)
    offset = flat.substitute(dict.fromkeys(axes, 0))
    if offset.data() or size != int(size):
        return _Region(scratch, index(0), 0, scratch.bytes, writes)
    whole = int(size)
    return _Region(scratch, offset * whole, low * whole, (high + 1) * whole, writes)
