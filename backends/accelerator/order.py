"""An order in which a program may be carried out: what its values are worked out in, and what shows that it comes to an end.

Semaphores only count up and a queue's head is never overtaken, so whether a program comes to its end does not depend on its clocks: any order in
which each instruction's waits hold shows it. Where the text's own order is one, as it is in programs that `lower` makes, all cores go
through it side by side, and what several of them do next is one batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codesign.backends.accelerator.flat import Flat, Ints, signals_of
from codesign.backends.accelerator.timing import Gangs
from codesign.costmodel.dataflow.target import Target
from codesign.ir.errors import EvaluationError
from codesign.ir.program import ENGINES, Program

SHOWN = 8


class Deadlock(EvaluationError):
    """Engines that wait for each other for ever; the message says who waits for what."""


@dataclass(frozen=True)
class Batch:
    """Issues of one instruction, of different cores, that nothing orders."""

    number: int
    places: Ints


def in_text_order(program: Program, flat: Flat) -> bool:
    """Whether every wait holds when all that its core issued before is done."""
    if any(semaphore.scope != "core" for semaphore in program.semaphores):
        return False
    made = signals_of(flat.prepared, {number: rows.places for number, rows in enumerate(flat.rows)})
    none = np.zeros(0, np.int64)
    for item, rows in zip(flat.prepared, flat.rows, strict=True):
        begins = flat.first[flat.core_of(rows.places)]
        for wait, needs in zip(item.source.waits, rows.waits, strict=True):
            asked = made.get(wait.name, none)
            if np.any(np.searchsorted(asked, rows.places) - np.searchsorted(asked, begins) < needs):
                return False
    return True


def batches(program: Program, flat: Flat, gangs: Gangs, target: Target) -> list[Batch]:
    """All issues in an order that may be; Deadlock where there is none."""
    found = _side_by_side(flat, gangs) if in_text_order(program, flat) else None
    if found is not None:
        return found
    order = Untimed(program, flat, gangs, target).order()
    return [Batch(int(flat.number[place]), np.array([place])) for place in order]


def check_ends(program: Program, flat: Flat, gangs: Gangs, target: Target) -> None:
    """Deadlock for a program that doesn't come to its end."""
    Untimed(program, flat, gangs, target).order()


def _side_by_side(flat: Flat, gangs: Gangs) -> list[Batch] | None:
    """Every core in text order: those at the instruction that most can begin go on, at a load that is shared when all who share it are there. None
    where two cores are at loads that each makes before the other's: engines of their own may get past that."""
    found: list[Batch] = []
    at, stop = flat.first[:-1].copy(), flat.first[1:]
    shared = np.array([item.share is not None for item in flat.prepared], np.bool_)
    while True:
        going = np.flatnonzero(at < stop)
        if not len(going):
            return found
        heads = flat.number[at[going]]
        if shared[heads].any():
            gang = gangs.of[at[going]]
            there = np.bincount(np.unique(gang, return_inverse=True)[1])[np.unique(gang, return_inverse=True)[1]]
            ready = (gang == 0) | (there >= gangs.members[at[going]])
            if not ready.any():
                return None
            going, heads = going[ready], heads[ready]
        if (heads != heads[0]).any():
            number = np.bincount(heads).argmax()
            going = going[heads == number]
        found.append(Batch(int(flat.number[at[going[0]]]), at[going]))
        at[going] += 1


class Untimed:
    """The program without its clocks: heads of queues begin as soon as they may, and are done at once."""

    def __init__(self, program: Program, flat: Flat, gangs: Gangs, target: Target) -> None:
        self.program, self.flat, self.gangs, self.depth = program, flat, gangs, target.queue_depth
        self.kinds = len(ENGINES)
        self.kind = [ENGINES.index(item.source.engine) for item in flat.prepared]
        self.queues: list[deque[int]] = [deque() for _ in range(self.kinds * flat.cores)]
        self.at = flat.first[:-1].tolist()
        self.stop = flat.first[1:].tolist()
        scopes = {s.name: s.scope for s in program.semaphores}
        self.owner = [
            {name: core // target.sharing.get(scope, 1) for name, scope in scopes.items()} for core in range(flat.cores)
        ]
        self.counts: dict[tuple[str, int], int] = {}
        self.blocked: dict[tuple[str, int], list[int]] = {}
        self.meetings: dict[int, list[int]] = {}
        self.number = flat.number.tolist()
        self.needs = self._needs()

    def _needs(self) -> list[tuple[int, ...]]:
        needs: list[tuple[int, ...]] = [()] * len(self.number)
        for rows in self.flat.rows:
            if rows.waits:
                columns = [values.tolist() for values in rows.waits]
                for place, *values in zip(rows.places.tolist(), *columns, strict=True):
                    needs[place] = tuple(values)
        return needs

    def order(self, choose: Callable[[list[int]], int] = list.pop) -> list[int]:
        """The issues in the order in which they are done; `choose` takes the engine out that goes on next."""
        done: list[int] = []
        work = list(range(len(self.queues)))
        for core in range(self.flat.cores):
            self._issue(core, work)
        while work:
            engine = choose(work)
            queue = self.queues[engine]
            if queue and self._ready(engine, queue[0]):
                for member in self._group(engine, queue[0]):
                    self._finish(member, done, work)
        self._check()
        return done

    def _issue(self, core: int, work: list[int]) -> None:
        while self.at[core] < self.stop[core]:
            place = self.at[core]
            engine = self.kinds * core + self.kind[self.number[place]]
            if len(self.queues[engine]) >= self.depth:
                return
            self.queues[engine].append(place)
            if len(self.queues[engine]) == 1:
                work.append(engine)
            self.at[core] += 1

    def _ready(self, engine: int, place: int) -> bool:
        owner = self.owner[engine // self.kinds]
        waits = self.flat.prepared[self.number[place]].source.waits
        for wait, least in zip(waits, self.needs[place], strict=True):
            key = (wait.name, owner[wait.name])
            if self.counts.get(key, 0) < least:
                self.blocked.setdefault(key, []).append(engine)
                return False
        return True

    def _group(self, engine: int, place: int) -> list[int]:
        """The engines that begin together now; none while others are missing."""
        gang = int(self.gangs.of[place])
        if not gang:
            return [engine]
        there = self.meetings.setdefault(gang, [])
        if engine not in there:
            there.append(engine)
        if len(there) < self.gangs.members[place]:
            return []
        return self.meetings.pop(gang)

    def _finish(self, engine: int, done: list[int], work: list[int]) -> None:
        place = self.queues[engine].popleft()
        core = engine // self.kinds
        done.append(place)
        for name in self.flat.prepared[self.number[place]].source.signals:
            key = (name, self.owner[core][name])
            self.counts[key] = self.counts.get(key, 0) + 1
            work += self.blocked.pop(key, [])
        self._issue(core, work)
        work.append(engine)

    def _check(self) -> None:
        lines: list[str] = []
        for group in self.meetings.values():
            core, place = group[0] // self.kinds, self.queues[group[0]][0]
            item = self.flat.prepared[self.number[place]]
            assert item.share is not None
            key = self.flat.controls_of(place)[item.controls[item.share[0]]]
            lines.append(
                f"core {core} (instruction {item.number}) waits for others to load {key} together: {len(group)} are there"
            )
        for engine, queue in enumerate(self.queues):
            lines += self._waiting(engine, queue[0]) if queue else []
        for core, (at, stop) in enumerate(zip(self.at, self.stop, strict=True)):
            if at < stop:
                kind = ENGINES[self.kind[self.number[at]]]
                lines.append(f"core {core} control waits for room in the {kind} queue")
        if lines:
            more = f" (and {len(lines) - SHOWN} more)" if len(lines) > SHOWN else ""
            raise Deadlock(f"deadlock in @{self.program.name}: {'; '.join(lines[:SHOWN])}{more}")

    def _waiting(self, engine: int, place: int) -> list[str]:
        """What the head of a queue waits for, and whether anything would signal it."""
        core, kind = divmod(engine, self.kinds)
        item = self.flat.prepared[self.number[place]]
        lines: list[str] = []
        for wait, least in zip(item.source.waits, self.needs[place], strict=True):
            count = self.counts.get((wait.name, self.owner[core][wait.name]), 0)
            if count < least:
                never = "" if any(wait.name in p.source.signals for p in self.flat.prepared) else " and nothing signals"
                lines.append(
                    f"core {core} {ENGINES[kind]} (instruction {item.number}) waits for {wait.name} >= {least}, "
                    f"which is {count}{never}"
                )
        return lines
