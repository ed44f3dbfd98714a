"""The checks of a program before it runs: that it fits, comes to an end, has no race, and stays inside its buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from codesign.backends.accelerator.flat import Flat, Ints, flatten
from codesign.backends.accelerator.order import Batch, Deadlock, batches
from codesign.backends.accelerator.prepare import Prepared
from codesign.backends.accelerator.races import check_scratchpads
from codesign.backends.accelerator.timing import Gangs, distinct, gangs_of
from codesign.backends.accelerator.windows import BatchDomain, BatchEvaluator, places_of
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.machine import Machine
from codesign.ir.core import Value
from codesign.ir.errors import EvaluationError, ScheduleError
from codesign.ir.index import Index
from codesign.ir.program import Load, Program, Store
from codesign.ir.tile import Guard


def check(program: Program, machine: Machine) -> None:
    """Refuse a program that would not run to its end with the values that its text says.

    ScheduleError when it does not fit the machine, Deadlock when engines wait for ever, Race when two of them may meet at the same bytes,
    EvaluationError for addresses out of range and for reading what was not written. Addresses that data decides are checked when it runs.
    """
    target = target_of(machine)
    check_fits(program, target)
    flat = flatten(program)
    checked(program, flat, gangs_of(flat), target)


def checked(program: Program, flat: Flat, gangs: Gangs, target: Target) -> list[Batch]:
    """Its issues in an order in which they can be carried out, when nothing speaks against the program."""
    check_signals(program, flat)
    order = list(batches(program, flat, gangs, target))
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
        for read in (*op.reads(), *op.writes()):
            _check_access(program, item, rows.controls, read.source, read.indices, ())
        if isinstance(op, Load):
            _check_access(program, item, rows.controls, op.source, op.indices, op.guards)
        elif isinstance(op, Store):
            _check_access(program, item, rows.controls, op.target, op.indices, op.guards)


def _check_access(
    program: Program,
    item: Prepared,
    controls: dict[str, Ints],
    memory: Value,
    indices: Sequence[Index],
    guards: Sequence[Guard],
) -> None:
    """Executions whose lanes all lie inside are passed by their first and last lane, others looked at lane by lane."""
    op = item.instruction
    sides = [side for guard in guards for side in (guard.value, guard.low, guard.high) if side is not None]
    if any(expression.data() for expression in (*indices, *sides)):
        return
    axes = (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))
    shape: list[int] = [size if isinstance(size, int) else size.constant for size in memory.type.shape]
    names = sorted({name for e in (*indices, *sides) for name in e.variables()} & controls.keys())
    count = len(next(iter(controls.values()))) if controls else 1
    chosen = distinct([np.zeros(count, np.int64), *(controls[name] for name in names)])[0]
    values: dict[str, Any] = {name: controls[name][chosen] for name in names}
    doubtful = np.zeros(len(chosen), np.bool_)
    domain = BatchDomain(axes, values, len(chosen))
    for expression, size in zip(indices, shape, strict=True):
        found = domain.steps(expression)
        if found is None:
            doubtful |= True
            continue
        reach = [step * (domain.spans[domain.axis[name]].size - 1) for name, step in found[0].items()]
        low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
        doubtful |= (np.asarray(found[1]) + low < 0) | (np.asarray(found[1]) + high >= size)
    for row in np.flatnonzero(doubtful).tolist():
        lanes = BatchDomain(axes, {name: int(column[row]) for name, column in values.items()}, 1)
        evaluator = BatchEvaluator(lanes, {})
        empty = np.broadcast_to(np.zeros((), np.int8), shape)
        try:
            places_of(memory, indices, evaluator, empty, evaluator.active(guards))
        except EvaluationError as error:
            place = item.source.location if item.source.location.known else f"@{program.name}"
            raise EvaluationError(error.message, place=place) from error
