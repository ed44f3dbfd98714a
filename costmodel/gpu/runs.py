"""How an access goes along memory: contiguous runs, the sectors and the lines of L1 that they lie in."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from codesign.costmodel.summary import Access
from codesign.ir.index import Atom, FloorDiv, Index, Mod, Var, index

Array = Any
"""A NumPy array or a Python number; arrays broadcast against each other."""


class Tiling(Protocol):
    """What is asked of a tiling, by dim: tiles, their mean part inside, and trips of loops; and sizes by symbol."""

    tile: dict[str, Array]
    mean: dict[str, Array]
    trips: dict[str, Array]
    symbols: dict[str, Array]


LINE_BYTES = 128.0
"""Bytes of a line of L1 (CUDA C++ Programming Guide, compute capabilities from 5 on)."""


def run_bytes(access: Access, g: Tiling) -> Array:
    """Bytes of one contiguous run of a tile's access: what DRAM and sectors see of its pattern.

    A run goes on over the next dim where a tile covers the whole of the dims below it, and over one whose steps are no
    longer than the run, as those of a window that slides. A dim that is wrapped (a remainder) breaks its run about once
    a tile.
    """
    unit, wrapped, steps, above = _adjacent(access)
    run: Array = 1.0
    for dim in unit:
        run = run + (g.mean[dim] - 1.0)
    for dim in wrapped:
        run = np.maximum(run, np.maximum(g.mean[dim] * 0.5, 4.0))
    for dim, step in steps:
        run = np.where(np.greater_equal(run, step), run + step * (g.mean[dim] - 1.0), run)
    for dim, below in above:
        whole = np.greater_equal(run, below.evaluate(g.symbols))
        if not np.any(whole):
            break
        run = np.where(whole, run * g.mean[dim], run)
    return run * access.dtype.bytes


def lines_of_a_request(access: Access, g: Tiling, each: Array, warp: float) -> Array:
    """Lines of L1 that a warp's request touches when a lane takes `each` bytes: lanes go along the dims with the shortest
    steps first, as generated code lays them out."""
    unit, wrapped, few, above = _adjacent(access)
    size = access.dtype.bytes
    first: Array = 1.0  # several dims of step one, as those of a window, are gone along one by one
    for dim in (*unit, *wrapped):
        first = np.maximum(first, g.tile[dim])
    steps = [(first, 1.0), *((g.tile[dim], float(step)) for dim, step in few)]
    steps += [(g.tile[dim], below.evaluate(g.symbols)) for dim, below in above]
    lines: Array = 1.0
    left: Array = warp * each / size
    for tile, step in steps:
        lanes = np.minimum(tile, left)
        lines = lines * np.clip(lanes * step * (size / LINE_BYTES), 1.0, np.maximum(lanes, 1.0))
        left = left / lanes
    return lines


def adjacent_dims(access: Access) -> tuple[str, ...]:
    """Dims along which neighbours of an access are adjacent in memory."""
    return _adjacent(access)[0]


def nearest_first(access: Access) -> tuple[str, ...]:
    """The dims of an access in the order of their steps in memory, the shortest first."""
    unit, wrapped, few, above = _adjacent(access)
    known = (*unit, *wrapped, *(dim for dim, _ in few), *(dim for dim, _ in above))
    return (*known, *(dim for dim in access.dims if dim not in known))


@lru_cache(maxsize=4096)
def _adjacent(
    access: Access,
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, int], ...], tuple[tuple[str, Index], ...]]:
    """Dims along which neighbours are adjacent in memory, dims in which the address is not linear, dims in steps of a few
    elements, and dims that step over a whole run of so many elements."""
    address = index(0)
    for expression, stride in zip(access.index, access.strides, strict=True):
        address = address + expression * stride  # quotients and remainders of a collapsed dim rejoin here
    unit, wrapped, few, steps = [], [], [], []
    for dim in access.dims:
        coefficient = address.coefficient(dim)
        if coefficient is None:
            wrapped.append(dim)
        elif coefficient == 1 or coefficient == -1:
            unit.append(dim)
        elif coefficient in access.strides:
            steps.append((access.strides.index(coefficient), dim, coefficient))
        elif coefficient.is_constant and coefficient.constant > 1:
            few.append((coefficient.constant, dim))
    above = tuple((dim, below) for _, dim, below in sorted(steps, key=lambda step: -step[0]))
    return tuple(unit), tuple(wrapped), tuple((dim, step) for step, dim in sorted(few)), above


def sector_waste(access: Access, g: Tiling, sector: float) -> Array:
    """Bytes moved per byte used, by how long the contiguous runs of a tile are: whole sectors move, and L1 keeps them
    for later trips."""
    run = run_bytes(access, g)
    if not access.index or not np.any(np.less(run, sector)):
        return 1.0
    again: Array = 1.0
    for dim in access.dims:
        again = again * g.trips.get(dim, 1.0)
    return np.maximum(1.0, sector / np.maximum(np.maximum(run * again, run), 2.0))


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
