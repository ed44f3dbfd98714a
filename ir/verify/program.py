"""Rules of the accelerator level: programs and their instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from codesign.ir.core import Value
from codesign.ir.index import Bounds, Index, index
from codesign.ir.program import (
    ENGINES,
    Instruction,
    Load,
    Loop,
    Matmul,
    Program,
    Scope,
    Set,
    Stage,
    Statement,
    Store,
    Sync,
    Vector,
)
from codesign.ir.scalar import Read
from codesign.ir.tensor import MONOIDS
from codesign.ir.tile import Axis, Guard
from codesign.ir.types import BufferType
from codesign.ir.verify.expressions import Site, check_dtype, check_index, check_inside, check_scalar, fail


class ProgramVerifier:
    """Checks one program; `names` are the registers, loop variables and counters that have a value at a statement."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.memories = {s.value: s for s in program.scratches}
        self.semaphores = frozenset(s.name for s in program.semaphores)
        self.counters = frozenset(f"#{name}" for name in self.semaphores)

    def run(self) -> None:
        """The whole program."""
        program = self.program
        here = Site(f"program @{program.name}", program.location)
        if program.cores < 1:
            fail(here, f"runs on {program.cores} cores")
        if not 0 <= program.outputs <= len(program.params):
            fail(here, f"has {program.outputs} outputs among {len(program.params)} parameters")
        for value in program.params:
            if not isinstance(value.type, BufferType):
                fail(here, f"parameter %{value.name} is {value.type}, must be a buffer")
            if not all(size.is_constant for size in value.type.shape):
                fail(here, f"%{value.name} is {value.type}; a program's buffers have constant sizes")
        self._unique(here, "parameter", [value.name for value in program.params])
        self._unique(here, "scratch", [s.name for s in program.scratches])
        self._unique(here, "semaphore", [s.name for s in program.semaphores])
        for item in program.scratches:
            if item.address < 0 or any(size < 1 for size in item.shape):
                fail(here, f"scratch {item.name}: {item.type} at {item.address} is no place in a memory")
        for semaphore in program.semaphores:
            if semaphore.scope not in get_args(Scope):
                fail(here, f"semaphore {semaphore.name} has the unknown scope {semaphore.scope!r}")
        self.block(program.body, frozenset({"core", "cores"}))

    def _unique(self, here: Site, what: str, names: Sequence[str]) -> None:
        for name in names:
            if names.count(name) > 1:
                fail(here, f"declares {what} {name} twice")

    def block(self, body: Iterable[Statement], names: frozenset[str]) -> None:
        """Statements in order; registers set here are known to those that follow."""
        for statement in body:
            if isinstance(statement, Set):
                check_index(self._site("set " + statement.name), statement.value, names | self.counters)
                names |= {statement.name}
            elif isinstance(statement, Loop):
                here = self._site("for " + statement.variable)
                for limit in (statement.lower, statement.upper, statement.step):
                    check_index(here, limit, names | self.counters)
                if statement.step.is_constant and statement.step.constant < 1:
                    fail(here, f"has step {statement.step}, must be positive")
                if statement.variable in names:
                    fail(here, f"its variable {statement.variable!r} is in use outside")
                self.block(statement.body, names | {statement.variable, statement.count} - {""})
            else:
                self.instruction(statement, names | self.counters)

    def _site(self, what: str, instruction: Instruction | None = None) -> Site:
        place = self.program.location if instruction is None else instruction.location
        return Site(f"program @{self.program.name}: {what}", place)

    def instruction(self, op: Instruction, names: frozenset[str]) -> None:
        """One instruction: its engine, semaphores, and what it reads and writes."""
        written = ", ".join(read.source.name for read in op.writes())
        here = self._site(f"{op.engine} {written}".rstrip(), op)
        if op.engine not in ENGINES:
            fail(here, f"there is no engine {op.engine!r}", hint=f"engines: {', '.join(ENGINES)}")
        for wait in op.waits:
            if wait.name not in self.semaphores:
                fail(here, f"waits for {wait.name}, which is no semaphore")
            check_index(here, wait.value, names)
        for name in op.signals:
            if name not in self.semaphores:
                fail(here, f"signals {name}, which is no semaphore")
        rule = _RULES.get(type(op))
        if rule is None:
            fail(here, f"is a {type(op).__name__}, which is no instruction")
        rule(self, here, op, names)

    # -- pieces -------------------------------------------------------------------------------------------------------
    def axes(self, here: Site, axes: Sequence[Axis], names: frozenset[str]) -> frozenset[str]:
        """Different names of positive size; gives the names that expressions over them may use."""
        own = [axis.name for axis in axes]
        for axis in axes:
            if own.count(axis.name) > 1:
                fail(here, f"axis {axis.name!r} appears twice")
            if axis.name in names:
                fail(here, f"axis {axis.name!r} has the name of a register or loop")
            if axis.size < 1:
                fail(here, f"axis {axis.name!r} has size {axis.size}")
        return names | frozenset(own)

    def place(self, here: Site, read: Read, axes: Sequence[Axis], names: frozenset[str]) -> None:
        """A place in scratchpad."""
        scratch = self.memories.get(read.source)
        if scratch is None:
            fail(here, f"{read.source.name} is no scratch of the program")
        self._indices(here, scratch.name, read.indices, [index(n) for n in scratch.shape], axes, names)

    def target(self, here: Site, read: Read, axes: Sequence[Axis], names: frozenset[str]) -> None:
        """A place in scratchpad that is written: no two lanes may write one element, which would keep whichever comes last."""
        self.place(here, read, axes, names)
        told = {name for expression in read.indices for name in expression.variables()}
        for axis in axes:
            if axis.size > 1 and axis.name not in told:
                fail(
                    here,
                    f"its {axis.size} lanes along {axis.name!r} write one place of {read.source.name}",
                    hint="index the place by the axis, or reduce over it",
                )

    def _indices(
        self,
        here: Site,
        what: str,
        indices: Sequence[Index],
        sizes: Sequence[Index],
        axes: Sequence[Axis],
        names: frozenset[str],
    ) -> None:
        if len(indices) != len(sizes):
            fail(here, f"{what} of rank {len(sizes)} with {len(indices)} indices")
        for expression in indices:
            check_index(here, expression, names)
        ranges = {axis.name: range(axis.size) for axis in axes}
        bounds = Bounds({axis.name: index(axis.size) for axis in axes})
        check_inside(here, what, indices, sizes, ranges, bounds)

    def memory(
        self,
        here: Site,
        value: Value,
        indices: Sequence[Index],
        guards: Sequence[Guard],
        axes: Sequence[Axis],
        names: frozenset[str],
    ) -> None:
        """The far side of a transfer: a buffer, or a scratch of an outer memory; guards say which lanes are active."""
        if value in self.memories:
            sizes = [index(n) for n in self.memories[value].shape]
        elif value in self.program.params:
            sizes = list(value.shape)
        else:
            fail(here, f"%{value.name} is neither a parameter nor a scratch of the program")
        if len(indices) != len(sizes):
            fail(here, f"{value.name} of rank {len(sizes)} with {len(indices)} indices")
        sides = [side for g in guards for side in g.sides]
        for expression in (*indices, *sides):
            check_index(here, expression, names)
            for scalar in expression.data():
                check_scalar(here, scalar, names, lambda read: self.place(here, read, axes, names))
        if not guards:
            self._indices(here, value.name, indices, sizes, axes, names)


def _load(v: ProgramVerifier, here: Site, op: Load, names: frozenset[str]) -> None:
    inside = v.axes(here, op.axes, names)
    v.target(here, op.target, op.axes, inside)
    v.memory(here, op.source, op.indices, op.guards, op.axes, inside)
    check_dtype(here, op.source.name, op.source.type.dtype, op.target.dtype)
    if op.otherwise is not None:
        check_dtype(here, "what idle lanes get", op.otherwise.dtype, op.target.dtype)


def _stage(v: ProgramVerifier, here: Site, op: Stage, names: frozenset[str]) -> None:
    _load(v, here, op, names)
    level = v.memories[op.target.source].level
    if level in ("core", "array"):
        fail(
            here,
            f"brings {op.target.source.name} into {level}",
            hint="load it, or declare the scratch in an outer memory",
        )
    if op.keep is not None:
        fail(here, "keeps what it brings already")


def _store(v: ProgramVerifier, here: Site, op: Store, names: frozenset[str]) -> None:
    inside = v.axes(here, op.axes, names)
    v.place(here, op.source, op.axes, inside)
    v.memory(here, op.target, op.indices, op.guards, op.axes, inside)
    check_dtype(here, op.source.source.name, op.source.dtype, op.target.type.dtype)
    if op.target in v.program.inputs:
        fail(here, f"writes %{op.target.name}, which is an input")


def _vector(v: ProgramVerifier, here: Site, op: Vector, names: frozenset[str]) -> None:
    every = (*op.axes, *op.reduced)
    inside = v.axes(here, every, names)
    v.target(here, op.target, op.axes, names | {axis.name for axis in op.axes})
    check_scalar(here, op.body, inside, lambda read: v.place(here, read, every, inside))
    if op.monoid is not None and op.monoid not in MONOIDS:
        fail(here, f"unknown reduction {op.monoid!r}", hint=f"known: {', '.join(MONOIDS)}")
    if op.reduced and op.monoid is None:
        fail(here, "has reduced axes but nothing to reduce with")


def _matmul(v: ProgramVerifier, here: Site, op: Matmul, names: frozenset[str]) -> None:
    v.axes(here, op.axes, names)
    m, n, k = op.axes
    v.target(here, op.target, (m, n), names | {m.name, n.name})
    for read, axes in ((op.a, (m, k)), (op.b, (k, n))):
        v.place(here, read, axes, names | {axis.name for axis in axes})
    if op.first is not None:
        check_index(here, op.first, names)
    check_dtype(here, op.b.source.name, op.b.dtype, op.a.dtype)


def _sync(v: ProgramVerifier, here: Site, op: Sync, names: frozenset[str]) -> None:
    if not op.waits and not op.signals:
        fail(here, "waits for nothing and signals nothing")


_RULES: Mapping[type[Instruction], Callable[[ProgramVerifier, Site, Any, frozenset[str]], None]] = {
    Load: _load,
    Stage: _stage,
    Store: _store,
    Vector: _vector,
    Matmul: _matmul,
    Sync: _sync,
}
