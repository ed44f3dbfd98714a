"""The checks of a program before it runs: that it fits, comes to an end, has no race, and stays inside its buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from codesign.backends.accelerator.dma import clipping
from codesign.backends.accelerator.flat import Flat, Ints, flatten
from codesign.backends.accelerator.order import Batch, Deadlock, batches
from codesign.backends.accelerator.prepare import place_of
from codesign.backends.accelerator.races import check_scratchpads
from codesign.backends.accelerator.timing import Gangs, distinct, gangs_of
from codesign.backends.accelerator.together import check_together
from codesign.backends.accelerator.windows import BatchDomain, BatchEvaluator, out_of_range, places_of
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.dataflow.turns import memories
from codesign.costmodel.machine import Machine
from codesign.ir.core import Value
from codesign.ir.errors import EvaluationError, ScheduleError
from codesign.ir.index import Bounds, Index, index
from codesign.ir.interpreter.scalars import Domain
from codesign.ir.program import Instruction, Load, Program, Store
from codesign.ir.tile import Axis, Guard


def check(program: Program, machine: Machine) -> None:
    """Refuse a program that would not run to its end with the values that its text says.

    ScheduleError when it does not fit the machine, Deadlock when engines wait for ever, Race when two of them may meet at the same bytes,
    EvaluationError for addresses out of range, for reading what was not written, and for loads that are not shared as they say. Addresses that
    data decides are checked when it runs.
    """
    target = target_of(machine)
    check_fits(program, target)
    flat = flatten(program)
    checked(program, flat, gangs_of(flat), target)


def checked(program: Program, flat: Flat, gangs: Gangs, target: Target) -> list[Batch]:
    """Its issues in an order in which they can be carried out, when nothing speaks against the program."""
    check_together(program, flat)
    check_signals(program, flat)
    order = batches(program, flat, gangs, target)
    check_addresses(program, flat)
    places = np.concatenate([batch.places for batch in order]) if order else np.zeros(0, np.int64)
    cores = flat.core_of(places)
    by_core = places[np.argsort(cores, kind="stable")]
    check_scratchpads(program, flat, [by_core[flat.first[c] : flat.first[c + 1]] for c in range(flat.cores)])
    return order


def check_fits(program: Program, target: Target) -> None:
    """ScheduleError when a program wants more cores or memory than the machine has."""
    if program.cores > target.cores:
        raise ScheduleError(f"@{program.name} wants {program.cores} cores, {target.name} has {target.cores}")
    for name, place in program.resting.items():
        if place not in memories(target):
            known = ", ".join(memories(target)) or "none"
            raise ScheduleError(
                f"@{program.name}: %{name} rests in {place}, and {target.name} has no memory there; it has {known}"
            )
    for level in dict.fromkeys(s.level for s in program.scratches):
        if level not in target.capacity:
            raise ScheduleError(
                f"@{program.name}: {target.name} has no memory '{level}'; it has {', '.join(target.capacity)}"
            )
        if program.scratch_bytes(level) > target.capacity[level]:
            raise ScheduleError(
                f"@{program.name}: {level} memory: needs {program.scratch_bytes(level):,} B, "
                f"limit {target.capacity[level]:,} B of {target.name}"
            )


def check_signals(program: Program, flat: Flat) -> None:
    """Deadlock for a semaphore that is waited for and that nothing ever signals."""
    signalled = {
        name
        for item, rows in zip(flat.prepared, flat.rows, strict=True)
        for name in item.source.signals
        if len(rows.places)
    }
    for item, rows in zip(flat.prepared, flat.rows, strict=True):
        for wait, needs in zip(item.source.waits, rows.waits, strict=True):
            if wait.name not in signalled and np.any(needs > 0):
                core = int(flat.core_of(rows.places[needs > 0])[0])
                raise Deadlock(
                    f"deadlock in @{program.name}: core {core} {item.source.engine} (instruction {item.number}) waits for "
                    f"{wait.name} >= {int(needs[needs > 0][0])}, which is 0, and nothing signals '{wait.name}'"
                )


def check_addresses(program: Program, flat: Flat) -> None:
    """EvaluationError for an access outside of its buffer or scratch, as far as data does not decide it."""
    for item, rows in zip(flat.prepared, flat.rows, strict=True):
        if not len(rows.places):
            continue
        op = item.instruction
        accesses = [_Access(op, read.source, read.indices) for read in (*op.reads(), *op.writes())]
        if isinstance(op, Load):
            accesses.append(_Access(op, op.source, op.indices, op.guards))
            accesses += [_Access(op, op.keep.place.source, op.keep.place.indices)] if op.keep is not None else []
        elif isinstance(op, Store):
            accesses.append(_Access(op, op.target, op.indices, op.guards))
        try:
            for access in accesses:
                access.check(rows.controls)
        except EvaluationError as error:
            raise EvaluationError(error.message, place=place_of(item, program)) from error


class _Access:
    """An instruction's access to a memory, in the lanes that its guards leave active."""

    def __init__(self, op: Instruction, memory: Value, indices: Sequence[Index], guards: Sequence[Guard] = ()) -> None:
        self.memory, self.indices, self.guards = memory, indices, guards
        self.shape = [size if isinstance(size, int) else size.constant for size in memory.type.shape]
        self.axes: tuple[Axis, ...] = (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))
        self.expressions = [*indices, *(side for guard in guards for side in guard.sides)]
        self.clip = clipping(self.axes, guards)

    def check(self, controls: Mapping[str, Ints]) -> None:
        """EvaluationError for a lane outside; executions whose lanes all lie inside are passed at once, others looked at one by one."""
        if any(expression.data() for expression in self.expressions):
            return
        names = sorted({name for e in self.expressions for name in e.variables()} & controls.keys())
        count = len(next(iter(controls.values()))) if controls else 1
        chosen = distinct([np.zeros(count, np.int64), *(controls[name] for name in names)])[0]
        values = {name: controls[name][chosen] for name in names}
        indices = self._unsure(values)
        domain = BatchDomain(self.axes, values, len(chosen))
        doubtful = np.zeros(len(chosen), np.bool_)
        for expression, size in zip(indices, self.shape, strict=True):
            found = domain.steps(expression)
            if found is None:
                doubtful |= True
                continue
            low, high = domain.reach(found[0])
            doubtful |= (np.asarray(found[1]) + low < 0) | (np.asarray(found[1]) + high >= size)
        for row in np.flatnonzero(doubtful).tolist():
            self._check_lanes(indices, {name: int(column[row]) for name, column in values.items()})

    def _unsure(self, values: Mapping[str, Ints]) -> list[Index]:
        """The indices, with 0 for those that are inside by the limits of what they depend on."""
        ranges = {name: (int(column.min()), int(column.max())) for name, column in values.items()}
        bounds = Bounds({axis.name: axis.extent for axis in self.axes}, ranges)
        indices = []
        for expression, size in zip(self.indices, self.shape, strict=True):
            low, high = expression.limits(bounds)
            inside = low is not None and low >= 0 and high is not None and high < size
            indices.append(index(0) if inside else expression)
        return indices

    def _check_lanes(self, indices: Sequence[Index], values: Mapping[str, int]) -> None:
        """One execution: by the ends of the axes where indices are linear and the guards cut a box out, else lane by lane."""
        domain = BatchDomain(self.axes, values, 1)
        linear = [found for expression in indices if (found := domain.steps(expression)) is not None]
        if self.clip is None or len(linear) < len(indices):
            evaluator = BatchEvaluator(domain, {})
            empty = np.broadcast_to(np.zeros((), np.int8), self.shape)
            places_of(self.memory, indices, evaluator, empty, evaluator.active(self.guards))
            return
        active = Domain(self.clip(values), values)
        if 0 in active.shape:
            return
        for axis, ((steps, start), size) in enumerate(zip(linear, self.shape, strict=True)):
            low, high = active.reach(steps)
            if start + low < 0 or start + high >= size:
                least, most = domain.reach(steps)
                raise out_of_range(self.memory, axis, size, start + least, start + most)
