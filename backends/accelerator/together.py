"""Whether loads that cores make together are what they say: each time, as many cores as the load names, all of the same data.

The n-th time that a core makes a load with some key it meets the n-th time of the others. If those are as many as it names, every time, then who
meets whom is the same whatever the clocks are, and nobody waits for one that another set of cores has taken.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from codesign.backends.accelerator.flat import Flat, Ints, Rows
from codesign.backends.accelerator.prepare import Prepared, place_of
from codesign.backends.accelerator.timing import distinct
from codesign.ir.errors import EvaluationError
from codesign.ir.program import Load, Program

SHOWN = 8


def check_together(program: Program, flat: Flat) -> None:
    """EvaluationError for a shared load that more cores make than it names, or that they make of different data. (Where some are missing the others
    wait for ever, which the order of the program shows.)"""
    for item, rows in zip(flat.prepared, flat.rows, strict=True):
        if item.share is not None:
            _check(item, rows, program, flat)


def _check(item: Prepared, rows: Rows, program: Program, flat: Flat) -> None:
    assert item.share is not None
    keys, members = (rows.controls[item.controls[i]] for i in item.share)
    some = np.flatnonzero(members > 1)
    if not len(some):
        return
    keys, members, cores = keys[some], members[some], flat.core_of(rows.places[some])
    first, meeting = distinct([np.unique(keys, return_inverse=True)[1], _times(keys, cores)])
    there = np.bincount(meeting)[meeting]
    label = f"{item.source.engine} instruction {item.number}"
    for row in np.flatnonzero((there > members) | (members != members[first][meeting])).tolist():
        who = ", ".join(map(str, _shown(cores[meeting == meeting[row]])))
        raise EvaluationError(
            f"{label} is shared with key {keys[row]} by {members[row]}, and {there[row]} cores come with it: {who}",
            place=place_of(item, program),
            hint="give each set of cores a key of its own, and all of a set the same number",
        )
    assert isinstance(item.instruction, Load)
    sides = (side for guard in item.instruction.guards for side in guard.sides)
    names = {name for i in (*item.instruction.indices, *sides) for name in i.variables()}
    for name in sorted(names & rows.controls.keys()):
        values = rows.controls[name][some]
        for row in np.flatnonzero(values != values[first][meeting]).tolist():
            other = first[meeting[row]]
            raise EvaluationError(
                f"{label} is shared with key {keys[row]} by cores {cores[other]} and {cores[row]}, which load different data",
                place=place_of(item, program),
                hint="put all that its addresses depend on into the key",
            )


def _times(keys: Ints, cores: Ints) -> Ints:
    """How often before each execution its core made the load with the same key."""
    _, pair = distinct([np.unique(keys, return_inverse=True)[1], cores])
    order = np.argsort(pair, kind="stable")
    found = np.zeros(len(keys), np.int64)
    found[order] = np.arange(len(keys)) - np.searchsorted(pair[order], pair[order])
    return found


def _shown(cores: Ints) -> Iterable[int | str]:
    found: list[int | str] = sorted(cores.tolist())
    return found if len(found) <= SHOWN else [*found[:SHOWN], "..."]
