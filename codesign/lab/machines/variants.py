"""Variants of a machine: its figures by path, and copies in which some of them have other values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping

from codesign.costmodel.machine import Machine, figures_of
from codesign.costmodel.whatif import Change
from codesign.ir.errors import CodesignError

WRITTEN_FOR = frozenset({"limits.warp_size"})
"""Figures that programs have built in, as the lanes that run one instruction: a machine with another has other programs, not more of something."""


def adjustable(machine: Machine) -> Iterator[tuple[str, float, Callable[[float], Machine]]]:
    """Every figure with a value and how to change it; how many of each level there are (`levels.NAME.fanout`) among them.

    Quoted peaks are left out: they are checks of rates and clocks, which no model reads. So is what code is written for (`WRITTEN_FOR`).
    """
    for path, figure in figures_of(machine):
        if figure.value and ".peak." not in path and path not in WRITTEN_FOR:

            def change(value: float, path: str = path) -> Machine:
                return machine.with_figures({path: value})

            yield path, figure.value, change
    for level in machine.levels:
        if level.fanout > 1:

            def more(value: float, name: str = level.name, fanout: int = level.fanout) -> Machine:
                return Change("", value / fanout, level=name).apply(machine)

            yield f"levels.{level.name}.fanout", float(level.fanout), more


def changer(machine: Machine, figure: str) -> tuple[float, Callable[[float], Machine]]:
    """The value of a figure by its path, and how to change it; CodesignError names the nearest for one that there is not."""
    known = {path: (value, change) for path, value, change in adjustable(machine)}
    if figure not in known:
        near = difflib.get_close_matches(figure, known, n=3, cutoff=0.3) or list(known)[:3]
        raise CodesignError(f"{machine.name} has no figure {figure!r} with a value", hint=f"nearest: {', '.join(near)}")
    return known[figure]


def variant(machine: Machine, values: Mapping[str, float]) -> Machine:
    """The machine with figures changed, those that are not counts of levels all at once."""
    for figure in values.keys() - {path for path, _, _ in adjustable(machine)}:
        changer(machine, figure)  # which says what is wrong with it
    plain = {figure: value for figure, value in values.items() if not figure.endswith(".fanout")}
    changed = machine.with_figures(plain) if plain else machine
    for figure in values.keys() - plain.keys():
        _, change = changer(changed, figure)
        changed = change(values[figure])
    return changed
