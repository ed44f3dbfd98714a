"""The phases of a program: what each evaluates, loads, keeps and leaves behind.

A phase is a loop of the program's body, or straight code up to a reduction or a store: what lives in it lives at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple
from weakref import WeakKeyDictionary

from codesign.costmodel.gpu.program import Dims, Elements, Multiply, Program, Transfer
from codesign.costmodel.structures import Text
from codesign.costmodel.summary import Access
from codesign.ir.core import Op, Value
from codesign.ir.index import index
from codesign.ir.tile import Dot, For, Load, Map, Reduce, Store


@dataclass(frozen=True)
class Fetch:
    """A load that a phase uses. `again`: a later phase uses it, too."""

    load: Transfer
    again: bool


@dataclass(frozen=True)
class Outside:
    """A value that was made before a phase: its dims, and the product that left it."""

    dims: Dims
    multiply: Multiply | None


class Turned(NamedTuple):
    """A load of the tile of a store in which `pairs` of dims lie the other way around."""

    load: Access
    pairs: frozenset[tuple[str, str]]


@dataclass(eq=False)
class Phase:
    """One loop of a program, or straight code up to its next reduction or store.

    `along`: dims that it reduces or goes along; `loop`: whether it is a loop, `nested` with another within, which `continues` the loop of
    the phase before along its dim. `body`: element-wise work,
    `multiplies` and `stores`; `fetches`; `carried`: dims of the sums that its loops carry besides those of products; `outside`: what was
    made before it. `turned`: for each store, the loads in which pairs of its dims lie the other way around. `ops`: what it is the first
    to do; `fresh`: whether it is the first to load some of the block's own data; `early`: what the text loads before it and only a later phase
    uses.
    """

    along: frozenset[str]
    loop: bool = False
    nested: bool = False
    continues: bool = False
    body: list[Elements] = field(default_factory=list)
    multiplies: list[Multiply] = field(default_factory=list)
    stores: list[Transfer] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    carried: list[Dims] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)
    turned: dict[Op, tuple[Turned, ...]] = field(default_factory=dict)
    ops: frozenset[Op] = frozenset()
    fresh: bool = False
    early: tuple[Transfer, ...] = ()

    @property
    def products(self) -> list[Multiply]:
        """The products that it does or whose results it reads."""
        return [*self.multiplies, *(one.multiply for one in self.outside if one.multiply is not None)]


_KNOWN: WeakKeyDictionary[Text, tuple[Phase, ...]] = WeakKeyDictionary()


def phases_of(program: Program) -> tuple[Phase, ...]:
    """The phases of a program in order, worked out once for its text."""
    found = _KNOWN.get(program.text)
    if found is None:
        found = _KNOWN[program.text] = _Division(program).phases()
    return found


def parts_of(program: Program) -> tuple[tuple[Phase, Program], ...]:
    """The phases with the part of the program that each does: every op once, in the phase that needs it first."""
    return tuple((phase, program.part(phase.ops)) for phase in phases_of(program))


class _Division:
    """Divides a program's body into phases by what needs what."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.body = program.text.template.kernel.body
        self.stage: dict[Value, int] = {}
        """How many loops, reductions and products lie on the longest path to a value, its own included."""
        reducing = (op for op in self.body.walk() if isinstance(op, (For, Reduce, Dot)))
        self.inner = frozenset(dim for op in reducing for dim in self._along(op))
        self.finished: dict[Op, list[Op]] = {}
        """Of a loop, the reductions of the lanes of its sums."""

    def phases(self) -> tuple[Phase, ...]:
        roots: dict[tuple[int, object], list[Op]] = {}
        last: list[Op] = []
        for op in self.body.ops:
            before = max((self.stage.get(value, 0) for value in op.uses()), default=0)
            finish = isinstance(op, Reduce) and {type(value.owner) for value in op.operands()} == {For}
            own = isinstance(op, (For, Reduce, Dot)) and not finish
            if finish and isinstance(loop := op.operands()[0].owner, For):
                self.finished.setdefault(loop, []).append(op)
            self.stage.update(dict.fromkeys(op.results, before + own))
            if own:
                roots.setdefault((before, op if isinstance(op, For) else self._along(op)), []).append(op)
            elif isinstance(op, Store):
                along = self._along(op)
                roots.setdefault((before, along), []).append(op) if along else last.append(op)
        groups = [*(roots[key] for key in sorted(roots, key=lambda key: key[0])), *([last] if last else [])]
        loads = [self._filled(group) for group in groups]
        place = {op: number for number, op in enumerate(self.body.ops)}
        found: list[Phase] = []
        later: dict[object, Transfer] = {}
        for (phase, used), roots_of in zip(reversed(loads), reversed(groups), strict=True):
            phase.fetches = [Fetch(load, load.key in later) for load in used]
            taken = {load.key for load in used}
            begins = min((place[op] for op in roots_of if isinstance(op, For)), default=0)
            phase.early = tuple(
                load for key, load in later.items() if key not in taken and place.get(load.op, begins) < begins
            )
            later |= {load.key: load for load in used}
            phase.turned = {store.op: _turned(store.access, used) for store in phase.stores}
            found.insert(0, phase)
        self._firsts(found)
        return tuple(found)

    def _firsts(self, phases: list[Phase]) -> None:
        """What each phase is the first to do and to load."""
        done: set[Op] = set()
        seen: set[object] = set()
        fresh = False
        inner = self.program.inner
        single = all(
            inner >= {*one.access.dims} for one in self.program.transfers.values()
        )  # all data are one block's own
        for phase in phases:
            phase.ops = phase.ops - done
            done |= phase.ops
            loads = [fetch.load for fetch in phase.fetches]
            if loads and not phase.continues:
                fresh = any(load.key not in seen and (single or not inner >= {*load.access.dims}) for load in loads)
            phase.fresh = bool(loads) and fresh
            seen |= {load.key for load in loads}

    def _along(self, op: Op) -> frozenset[str]:
        if isinstance(op, For):
            loops = [op, *(inner for inner in op.body.walk() if isinstance(inner, For))]
            return frozenset(self.program.text.template.along[loop.variable] for loop in loops)
        if isinstance(op, Reduce):
            return frozenset(axis.name for axis in op.reduced)
        if isinstance(op, Store):
            return self.inner & {*self.program.transfers[op].access.dims}
        return frozenset({self.program.multiplies[op].depth})

    def _filled(self, roots: list[Op]) -> tuple[Phase, list[Transfer]]:
        """The phase of some roots with all that they need, and its loads."""
        along: frozenset[str] = frozenset().union(*(self._along(op) for op in roots))
        begins = [value.owner for op in roots if isinstance(op, For) for value in op.initial]
        phase = Phase(
            along, any(isinstance(op, For) for op in roots), continues=any(isinstance(op, For) for op in begins)
        )
        loads: dict[object, Transfer] = {}
        phase.ops = frozenset(op for root in roots for op in self.finished.get(root, ()))
        phase.ops |= {op for op in begins if isinstance(op, Map)}
        seen: set[Value] = set()
        pending = [*roots]
        while pending:
            op = pending.pop()
            self._take(op, phase, loads)
            for value in (
                op.body.free_values() if isinstance(op, For) else op.uses()
            ):  # what a loop begins with is where its sums are
                if value in seen or value.owner is None:
                    continue
                seen.add(value)
                if isinstance(value.owner, (Load, Map)):
                    pending.append(value.owner)
                elif value.owner not in roots:
                    phase.outside.append(Outside(self.program.dims_of(value), self._multiply(value)))
        return phase, list(loads.values())

    def _take(self, op: Op, phase: Phase, loads: dict[object, Transfer]) -> None:
        """Count an op, and those of its loop, to a phase."""
        program = self.program
        phase.ops |= {op}
        if isinstance(op, For):
            phase.nested = phase.nested or any(isinstance(inner, For) for inner in op.body.walk())
            for each in (op, *(inner for inner in op.body.walk() if isinstance(inner, For))):
                for arg, value in zip(each.body.args, each.body.yields, strict=True):
                    if self._multiply(value) is None:
                        phase.carried.append(program.dims_of(arg))
            for inner in op.body.walk():
                if isinstance(inner, For):
                    phase.ops |= {inner}
                else:
                    self._take(inner, phase, loads)
        elif isinstance(op, (Load, Store)):
            transfer = program.transfers[op]
            if isinstance(op, Load):
                loads.setdefault(transfer.key, transfer)
            else:
                phase.stores.append(transfer)
        elif isinstance(op, Dot):
            phase.multiplies.append(program.multiplies[op])
        elif isinstance(op, (Map, Reduce)):
            phase.body.append(program.elements[op])

    def _multiply(self, value: Value) -> Multiply | None:
        """The product that leaves a value, through the loops around it."""
        owner = value.owner
        while isinstance(owner, For):
            value = owner.body.yields[owner.results.index(value)]
            owner = value.owner
        return self.program.multiplies[owner] if isinstance(owner, Dot) else None


def _turned(store: Access, loads: Iterable[Transfer]) -> tuple[Turned, ...]:
    """Loads of the same tile that have pairs of dims in another order than a store."""
    place = {dim: position for position, dim in enumerate(_by_stride(store))}
    found: list[Turned] = []
    for load in loads:
        order = _by_stride(load.access)
        if {*order} == {*place}:
            pairs = combinations(order, 2)
            turned = frozenset((first, second) for first, second in pairs if place[first] > place[second])
            if turned:
                found.append(Turned(load.access, turned))
    return tuple(found)


@lru_cache(maxsize=4096)
def _by_stride(access: Access) -> tuple[str, ...]:
    """Dims in the order of their steps in memory, the longest first; empty where a step is no constant."""
    address = index(0)
    for expression, stride in zip(access.index, access.strides, strict=True):
        address = address + expression * stride
    steps = {dim: address.coefficient(dim) for dim in access.dims}
    known = {dim: step.constant for dim, step in steps.items() if step is not None and step.is_constant}
    return tuple(sorted(known, key=lambda dim: -known[dim])) if len(known) == len(steps) else ()
