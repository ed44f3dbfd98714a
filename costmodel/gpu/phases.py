"""The loops of a kernel as Triton's code generator has them: what each evaluates, loads, keeps and leaves behind.

Which dims are loops and how often depends on the schedule; what is said here does not. `generated.py` evaluates it for
many schedules at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

from codesign.costmodel.gpu.work import stages_of
from codesign.costmodel.summary import Access, KernelSummary, Nest
from codesign.ir.index import Atom, FloorDiv, Index, Mod, Var, index


@dataclass(frozen=True)
class Fetch:
    """A load of a phase, once for all nests that share it. `nest` reads it first; `side`: it is a contraction's left (0)
    or right (1) factor as it is. `deeper`: its dims along which a loop within the phase's loop goes; `along`: those of
    the phase's own loop. `again`: a later phase loads the same."""

    access: Access
    nest: str
    side: int | None
    deeper: tuple[str, ...]
    along: tuple[str, ...]
    again: bool


@dataclass
class Phase:
    """One loop of a kernel, or what follows the last one.

    `roots`: reductions that it does and values that it stores; `loops`: dims that it goes along; `body`: nests evaluated
    in it, roots included; `deeper`: dims of the loops within; `outside`: values made before it; `fetches`: its loads;
    `turned`: for each root that is stored, pairs of its dims that lie the other way around in one of the loads.
    """

    roots: list[Nest]
    loops: frozenset[str]
    body: list[Nest] = field(default_factory=list)
    deeper: frozenset[str] = frozenset()
    outside: list[Nest] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    turned: dict[str, frozenset[tuple[str, str]]] = field(default_factory=dict)

    @property
    def products(self) -> list[Nest]:
        """The contractions that it does or whose results it reads."""
        return [nest for nest in (*self.body, *self.outside) if nest.contraction is not None]


def open_dims(kernel: KernelSummary) -> frozenset[str]:
    """Dims whose extent is not known before the kernel runs."""
    return frozenset(dim for dim, extent in kernel.extents.items() if not extent.is_constant)


_KNOWN: dict[int, tuple[KernelSummary, tuple[Phase, ...]]] = {}
_MOST_KNOWN = 256


def phases_of(kernel: KernelSummary) -> tuple[Phase, ...]:
    """The phases of a kernel in order: reductions and stores along the same dims at the same stage share a loop."""
    known = _KNOWN.get(id(kernel))
    if known is None or known[0] is not kernel:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        known = _KNOWN[id(kernel)] = kernel, _phases(kernel)
    return known[1]


def _phases(kernel: KernelSummary) -> tuple[Phase, ...]:
    inner = frozenset(kernel.inner)
    by_name = {nest.name: nest for nest in kernel.nests}
    stages = stages_of(kernel)
    loops: dict[tuple[int, frozenset[str]], Phase] = {}
    last = Phase([], frozenset())
    for nest in kernel.nests:
        along = inner & {*nest.dims}
        if nest.reductions and not along:
            key = stages[nest.name], frozenset(nest.reductions)
            loops.setdefault(key, Phase([], key[1])).roots.append(nest)
        if nest.stores and along:
            key = stages[nest.name] + bool(nest.reductions), along
            loops.setdefault(key, Phase([], key[1])).roots.append(nest)
        elif nest.stores:
            last.roots.append(nest)
    found = [loops[key] for key in sorted(loops, key=lambda key: key[0])]
    if last.roots:
        found.append(last)
    for phase in found:
        _fill(phase, by_name)
    later: set[object] = set()
    for phase in reversed(found):
        phase.fetches = _fetches(phase, later)
        phase.turned = {nest.name: _turned(nest, phase.fetches) for nest in phase.roots if nest.stores}
        later |= {_key(fetch.access) for fetch in phase.fetches}
    return tuple(found)


def _fill(phase: Phase, by_name: dict[str, Nest]) -> None:
    """What a phase evaluates: all that its roots read, except reductions that do not depend on its loops."""
    seen: set[str] = set()
    pending = list(phase.roots)
    while pending:
        nest = pending.pop()
        if nest.name in seen:
            continue
        seen.add(nest.name)
        own = any(nest is root for root in phase.roots) and phase.loops & {*nest.reductions}
        if nest.reductions and not own and not (phase.loops | phase.deeper) & {*nest.dims}:
            phase.outside.append(nest)
            continue
        phase.body.append(nest)
        if nest.reductions and not phase.loops & {*nest.reductions}:
            phase.deeper |= {*nest.reductions}
        pending += [by_name[name] for name in nest.internal]


def _fetches(phase: Phase, later: set[object]) -> list[Fetch]:
    found: dict[object, Fetch] = {}
    for nest in phase.body:
        for access in nest.loads:
            key, dims = _key(access), {*access.dims}
            if key not in found:
                deeper, along = tuple(phase.deeper & dims), tuple(phase.loops & dims)
                found[key] = Fetch(access, nest.name, _side(nest, access), deeper, along, key in later)
    return list(found.values())


def _turned(nest: Nest, fetches: list[Fetch]) -> frozenset[tuple[str, str]]:
    """Pairs of dims that a load of the same tile has in another order than the store of a nest."""
    found: set[tuple[str, str]] = set()
    for store in nest.stores:
        place = {dim: position for position, dim in enumerate(_by_stride(store))}
        for fetch in fetches:
            order = _by_stride(fetch.access)
            if {*order} == {*place}:
                pairs = combinations(order, 2)
                found.update((first, second) for first, second in pairs if place[first] > place[second])
    return frozenset(found)


@lru_cache(maxsize=4096)
def _by_stride(access: Access) -> tuple[str, ...]:
    """Dims in the order of their steps in memory, the longest first; empty where a step is no constant."""
    address = index(0)
    for expression, stride in zip(access.index, access.strides, strict=True):
        address = address + expression * stride
    steps = {dim: address.coefficient(dim) for dim in access.dims}
    known = {dim: step.constant for dim, step in steps.items() if step is not None and step.is_constant}
    return tuple(sorted(known, key=lambda dim: -known[dim])) if len(known) == len(steps) else ()


def _key(access: Access) -> object:
    return access.tensor, access.index


def _side(nest: Nest, access: Access) -> int | None:
    """Which factor of a contraction a load is as it is: 0 the left, 1 the right; None for neither."""
    found = nest.contraction
    if found is None:
        return None
    dims = {*access.dims}
    for side, (mine, other) in enumerate(((found.m, found.n), (found.n, found.m))):
        if found.plain[side] and dims & {*mine} and dims & {*found.k} and not dims & {*other}:
            return side
    return None


@lru_cache(maxsize=4096)
def aligned_run(access: Access) -> tuple[str, int]:
    """The dim along which neighbours of an access are adjacent in memory, and how many of them a thread may take at
    once: a power of two that divides every other step of its address; ("", 1) where there is none.

    This is what Triton's axis analysis finds; sizes that are not constants are taken to be multiples of 16.
    """
    address = index(0)
    for expression, stride in zip(access.index, access.strides, strict=True):
        address = address + expression * stride
    dim, step = "", 0
    for monomial, coefficient in address.terms:
        sizes = [atom for atom in monomial if isinstance(atom, Var) and atom.name not in access.dims]
        varying, every = _unit(monomial[0]) if len(monomial) == 1 else ("", 0)
        if varying in access.dims and abs(coefficient) == 1 and not dim:
            dim, step = varying, math.gcd(step, every)
        else:
            step = math.gcd(step, coefficient * (16 if sizes else 1))
    for monomial, _ in address.terms:  # a quotient of the dim is constant over runs of its divisor
        for atom in monomial:
            if isinstance(atom, FloorDiv) and dim in Index.atom(atom).variables():
                step = math.gcd(step, atom.denominator.constant if atom.denominator.is_constant else 16)
    return (dim, (step & -step) or 16) if dim else ("", 1)


def _unit(atom: Atom) -> tuple[str, int]:
    """The variable that an atom goes along in steps of one and how far: a variable, or its remainder by a constant."""
    if isinstance(atom, Var):
        return atom.name, 0
    if isinstance(atom, Mod) and atom.denominator.is_constant:
        for name in sorted(atom.numerator.variables()):
            rest = atom.numerator - Index.atom(Var(name))
            if name not in rest.variables():
                return name, math.gcd(atom.denominator.constant, *(coefficient for _, coefficient in rest.terms))
    return "", 0
