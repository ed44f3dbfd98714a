"""A program's control flow one statement after the other: for programs whose registers depend on what was issued or set before, which the
expansion of whole loops (`flat`) does not follow, and as what the expansion is tested against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from codesign.backends.accelerator.prepare import Prepared
from codesign.ir.errors import EvaluationError, VerificationError
from codesign.ir.index import Index
from codesign.ir.program import Loop, Program, Set, Statement

MOST_STEPS = 1 << 26
"""Steps of a loop, over all entries of all cores, that are expanded: every issue takes some hundred bytes."""


@dataclass
class Walk:
    """The issues of all cores, one core after the other. `values[number]`: of each execution of an instruction, its controls, then its waits."""

    first: list[int] = field(default_factory=lambda: [0])
    number: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    values: list[list[list[int]]] = field(default_factory=list)


def needs_walk(program: Program) -> bool:
    """Whether a register or a loop's bound depends on `#name`, or a register that was set outside of a loop is set in it."""

    def visit(body: Sequence[Statement], outer: frozenset[str]) -> bool:
        names = set(outer)
        for statement in body:
            if isinstance(statement, Set):
                if statement.name in outer or any(name.startswith("#") for name in statement.value.variables()):
                    return True
                names.add(statement.name)
            elif isinstance(statement, Loop):
                bounds = (statement.lower, statement.upper, statement.step)
                if any(name.startswith("#") for side in bounds for name in side.variables()):
                    return True
                inside = frozenset(names | {statement.variable, statement.count})
                if visit(statement.body, inside):
                    return True
        return False

    return visit(program.body, frozenset())


def walked(program: Program, prepared: Sequence[Prepared]) -> Walk:
    """Every issue of every core; VerificationError for a name without a value."""
    walk = Walk(values=[[] for _ in prepared])
    by_source = {id(item.source): item for item in prepared}
    for core in range(program.cores):
        _Walker(program, by_source, walk, {"core": core, "cores": program.cores}).block(program.body)
        walk.first.append(len(walk.number))
    return walk


class _Walker:
    """One core's control processor: `values` of its registers, loop variables and counts of signals (`#name`)."""

    def __init__(self, program: Program, prepared: dict[int, Prepared], walk: Walk, values: dict[str, int]) -> None:
        self.program = program
        self.prepared = prepared
        self.walk = walk
        self.values = {**values, **{f"#{s.name}": 0 for s in program.semaphores}}
        self.begun: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self.steps = 0

    def block(self, body: Sequence[Statement]) -> None:
        for statement in body:
            if isinstance(statement, Set):
                self.values[statement.name] = self._evaluate(statement.value)
                self.steps += 1
            elif isinstance(statement, Loop):
                self._loop(statement)
            else:
                item = self.prepared[id(statement)]
                self.walk.values[item.number].append([self._evaluate(value) for value in item.asked])
                self.walk.number.append(item.number)
                self.walk.steps.append(self.steps)
                self.steps = 0
                for name in statement.signals:
                    self.values[f"#{name}"] += 1

    def _loop(self, loop: Loop) -> None:
        outer = dict(self.values)
        bounds = [self._evaluate(side) for side in (loop.lower, loop.upper, loop.step)]
        if not bounds[2]:
            raise VerificationError(f"program @{self.program.name}: the step of loop '{loop.variable}' is zero")
        self.taken[id(loop)] = self.taken.get(id(loop), 0) + max(-((bounds[0] - bounds[1]) // bounds[2]), 0)
        check_steps(self.taken[id(loop)], loop, self.program)
        for value in range(*bounds):
            self.values[loop.variable] = value
            self.steps += 1
            if loop.count:
                self.values[loop.count] = self.begun.get(id(loop), 0)
                self.begun[id(loop)] = self.values[loop.count] + 1
            self.block(loop.body)
        own = (loop.variable, loop.count)
        self.values = {name: value if name in own else self.values[name] for name, value in outer.items()}

    def _evaluate(self, value: Index) -> int:
        return int(worked_out(value, self.values, self.program))


def check_steps(steps: float, loop: Loop, program: Program) -> None:
    """EvaluationError for a loop with more steps than a program is expanded to."""
    if steps > MOST_STEPS:
        raise EvaluationError(
            f"program @{program.name}: loop '{loop.variable}' makes {steps:,.0f} steps over all cores, limit {MOST_STEPS:,} of a simulation",
            hint="let an instruction do more at a time",
        )


def worked_out(value: Index, values: Mapping[str, Any], program: Program) -> Any:
    """An expression of the control processor's, by the values of names (integers, or arrays of one for each context)."""
    for name in value.variables():
        if name not in values:
            raise VerificationError(f"program @{program.name}: '{name}' has no value here")
    if value.data():
        raise VerificationError(f"program @{program.name}: the control processor cannot work out {value}")
    return value.evaluate(values)
