"""A program as flat arrays: every instruction that every core issues, in order, with the values that its control processor works out.

Cores run one text, so that a loop is expanded for all of them at once: a block of statements has *contexts*, one for each time that a core
runs it, and each expression is evaluated over them as one array.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.backends.accelerator.prepare import Prepared, prepare
from codesign.backends.accelerator.walk import Walk, check_steps, needs_walk, walked, worked_out
from codesign.ir.errors import VerificationError
from codesign.ir.index import Index
from codesign.ir.program import Loop, Program, Set, Statement

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """All executions of one instruction, by core and in order: where each is among all issues, and the values of its controls and waits."""

    places: Ints
    controls: dict[str, Ints]
    waits: tuple[Ints, ...]


@dataclass(frozen=True)
class Flat:
    """What the cores issue, core after core: core c has issues `first[c]` to `first[c + 1]`.

    `number`: of the instruction. `steps`: of the control processor since the last issue. `rows[number]`: that instruction's executions.
    """

    prepared: list[Prepared]
    first: Ints
    number: Ints
    steps: Ints
    rows: list[Rows]

    @property
    def cores(self) -> int:
        return len(self.first) - 1

    def core_of(self, places: Ints) -> Ints:
        """The core of each issue."""
        return np.searchsorted(self.first, places, side="right") - 1

    def controls_of(self, place: int) -> dict[str, int]:
        """The values of one issue's controls."""
        rows = self.rows[self.number[place]]
        row = int(np.searchsorted(rows.places, place))
        return {name: int(values[row]) for name, values in rows.controls.items()}


def flatten(program: Program) -> Flat:
    """Expand the control flow; VerificationError for a name without a value."""
    prepared = [prepare(number, op) for number, op in enumerate(program.instructions())]
    for item in prepared:
        for name in {name for value in item.asked for name in value.variables()}:
            if name.startswith("#") and name[1:] not in {s.name for s in program.semaphores}:
                raise VerificationError(f"program @{program.name}: unknown semaphore in '{name}'")
    if needs_walk(program):
        return _from_walk(prepared, walked(program, prepared))
    return _Expansion(program, prepared).flat()


@dataclass
class _Contexts:
    """The times that a block is run: `values` of names in each, `core`, and where each begins, relative to its parent's context `of`."""

    values: dict[str, Any]
    core: Ints
    parent: _Contexts | None = None
    of: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    begins: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.core)


class _Expansion:
    """Events are issues and control steps, numbered per core in the order in which they happen."""

    def __init__(self, program: Program, prepared: list[Prepared]) -> None:
        self.program = program
        self.prepared = prepared
        self.numbers = {id(item.source): item.number for item in prepared}
        self.contexts: list[_Contexts] = []
        self.issues: dict[int, tuple[_Contexts, Ints]] = {}
        """Of each instruction its contexts and where it is in each."""

    def flat(self) -> Flat:
        cores = self.program.cores
        whole = np.arange(cores, dtype=np.int64)
        top = _Contexts({"core": whole, "cores": np.full(cores, cores, np.int64)}, whole)
        events = self._block(self.program.body, top)
        bases = np.concatenate([[0], np.cumsum(events)])
        starts: dict[int, Ints] = {id(top): bases[:-1]}
        for contexts in self.contexts:
            assert contexts.parent is not None
            starts[id(contexts)] = starts[id(contexts.parent)][contexts.of] + contexts.begins
        at = {number: starts[id(contexts)] + offset for number, (contexts, offset) in self.issues.items()}
        return self._ordered(at, bases)

    def _block(self, body: list[Statement], contexts: _Contexts) -> Ints:
        """Expand statements; returns how many events each context has."""
        offset = np.zeros(len(contexts), np.int64)
        for statement in body:
            if isinstance(statement, Set):
                contexts.values[statement.name] = self._value(statement.value, contexts)
                offset = offset + 1
            elif isinstance(statement, Loop):
                offset = offset + self._loop(statement, contexts, offset)
            else:
                self.issues[self.numbers[id(statement)]] = (contexts, offset)
                offset = offset + 1
        return offset

    def _loop(self, loop: Loop, contexts: _Contexts, offset: Ints) -> Ints:
        lower, upper, step = (self._value(side, contexts) for side in (loop.lower, loop.upper, loop.step))
        if np.any(step == 0):
            raise VerificationError(f"program @{self.program.name}: the step of loop '{loop.variable}' is zero")
        trips = np.maximum(-((lower - upper) // step), 0)
        check_steps(float(trips.sum(dtype=np.float64)), loop, self.program)
        of = np.repeat(np.arange(len(contexts)), trips)
        turn = np.arange(len(of)) - np.repeat(np.cumsum(trips) - trips, trips)
        core = contexts.core[of]
        values = {name: value[of] for name, value in contexts.values.items()}
        values[loop.variable] = lower[of] + turn * step[of]
        if loop.count:
            values[loop.count] = np.arange(len(of)) - np.searchsorted(core, np.arange(self.program.cores))[core]
        inner = _Contexts(values, core, contexts, of)
        self.contexts.append(inner)
        events = 1 + self._block(loop.body, inner)
        ends = np.cumsum(events)
        before = np.concatenate([[0], ends])[np.cumsum(trips) - trips]
        inner.begins = ends - events - before[of] + offset[of] + 1
        total = np.zeros(len(contexts), np.int64)
        np.add.at(total, of, events)
        return total

    def _value(self, value: Index, contexts: _Contexts) -> Ints:
        return evaluate(value, contexts.values, len(contexts), self.program)

    def _ordered(self, at: Mapping[int, Ints], bases: Ints) -> Flat:
        """Number the issues among themselves and evaluate what each needs."""
        events = np.full(int(bases[-1]), -1, np.int64)
        for number, places in at.items():
            events[places] = number
        issued = np.flatnonzero(events >= 0)
        first = np.searchsorted(issued, bases)
        last = np.concatenate([[-1], issued[:-1]])
        last[first[:-1][first[:-1] < len(issued)]] = bases[:-1][first[:-1] < len(issued)] - 1
        signals = signals_of(self.prepared, at)
        rows: list[Rows] = []
        for item in self.prepared:
            contexts, _ = self.issues[item.number]
            places = at[item.number]
            order = np.argsort(places, kind="stable")
            values = {**contexts.values, **_counts(item, signals, places, bases[contexts.core])}
            controls = {
                name: evaluate(e, values, len(places), self.program)[order]
                for name, e in zip(item.controls, item.expressions, strict=True)
            }
            waits = tuple(evaluate(w.value, values, len(places), self.program)[order] for w in item.source.waits)
            rows.append(Rows(np.searchsorted(issued, places[order]), controls, waits))
        return Flat(self.prepared, first, events[issued], issued - last - 1, rows)


def signals_of(prepared: Sequence[Prepared], places: Mapping[int, Ints]) -> dict[str, Ints]:
    """Where each semaphore's signals are asked for, in order, by the places of each instruction's executions."""
    found: dict[str, list[Ints]] = {}
    for item in prepared:
        for name in item.source.signals:
            found.setdefault(name, []).append(places[item.number])
    return {name: np.sort(np.concatenate(each)) for name, each in found.items()}


def _counts(item: Prepared, signals: Mapping[str, Ints], places: Ints, begins: Ints) -> dict[str, Ints]:
    """The values of `#name` at an instruction's executions: signals that its core has asked for so far."""
    names = {name for value in item.asked for name in value.variables() if name.startswith("#")}
    none = np.zeros(0, np.int64)
    return {
        name: np.searchsorted(asked, places) - np.searchsorted(asked, begins)
        for name in sorted(names)
        for asked in (signals.get(name[1:], none),)
    }


def evaluate(value: Index, values: Mapping[str, Any], count: int, program: Program) -> Ints:
    """An expression over so many contexts."""
    found = np.asarray(worked_out(value, values, program), dtype=np.int64)
    return np.broadcast_to(found, (count,))


def _from_walk(prepared: list[Prepared], walk: Walk) -> Flat:
    number = np.asarray(walk.number, np.int64)
    rows = []
    for item in prepared:
        places = np.flatnonzero(number == item.number)
        table = np.asarray(walk.values[item.number], np.int64).reshape(len(places), -1)
        columns = [table[:, i] for i in range(table.shape[1])] if len(places) else []
        names = len(item.controls)
        none = np.zeros(0, np.int64)
        controls = {name: columns[i] if columns else none for i, name in enumerate(item.controls)}
        waits = tuple(columns[names + i] if columns else none for i in range(len(item.source.waits)))
        rows.append(Rows(places, controls, waits))
    return Flat(prepared, np.asarray(walk.first, np.int64), number, np.asarray(walk.steps, np.int64), rows)
