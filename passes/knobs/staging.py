"""What the memories between DRAM and the cores work on at a time and hold: the part of the levels knob that is not about space."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from math import prod

from codesign.costmodel.dataflow.keeping import holders
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.dataflow.turns import memories
from codesign.costmodel.summary import label_of
from codesign.ir.core import Value
from codesign.ir.schedule import LARGEST, operand_name, result_name
from codesign.passes.knobs.room import Value as Said
from codesign.passes.knobs.site import Site
from codesign.passes.knobs.tile import no_such_dim
from codesign.passes.schedule.space import Knob, powers_of_two

SMALLEST_TILE = 128
"""Elements along a dim of the smallest tile of a level that a search tries."""


def operands(site: Site) -> Mapping[str, Value]:
    """The kernel's operands by the names that schedules have for them."""
    group = site.summary.group
    return {operand_name(n): value for n, value in enumerate(() if group is None else group.uses())}


def sizes(site: Site) -> dict[str, tuple[int, frozenset[str]]]:
    """Of operands that are loaded by addresses that no data decides: bytes, and the dims that they depend on."""
    loads = {load.tensor: load for nest in site.summary.nests for load in nest.loads if not load.gather}
    named = {name: loads.get(label_of(value)) for name, value in operands(site).items()}
    return {
        name: (int(prod(site.extents[d] for d in load.dims) * load.dtype.bytes), frozenset(load.dims))
        for name, load in named.items()
        if load is not None
    }


def offered(site: Site) -> Iterable[Knob]:
    """Tiles of the innermost memory, and what it holds, where what is read again does not fit into it whole: else all stays there anyway."""
    target = target_of(site.machine)
    known = memories(target)
    loads = [load for nest in site.summary.nests for load in nest.loads if not load.gather]
    dims = [
        d for d in site.summary.outer if site.extents[d] > SMALLEST_TILE and any(d not in load.dims for load in loads)
    ]
    if not known or len(dims) < 2:
        return
    place, number = list(known.items())[-1]
    room = target.ports[number].capacity * holders(target, number)
    held = {name: size for name, (size, _) in sizes(site).items()}
    if sum(held.values()) <= room:
        return
    for dim in dims:
        values = powers_of_two(SMALLEST_TILE, site.extents[dim] - 1)
        yield Knob(f"levels.{place}.tile.{dim}", (*values, LARGEST), LARGEST)
    for dim in dims[1:]:  # which the tiles go along slowest; without one, as the grid is walked
        yield Knob(f"levels.{place}.order.{dim}", (0, 1), 0)
    large = [name for name, size in held.items() if len(held) * size > room]
    for name in large if len(large) > 1 else ():
        yield Knob(f"levels.{place}.stage.{name}", (0, 1), 0)


def wrong(place: str, what: str, name: str, value: Said, site: Site) -> str:
    """Why a schedule may not say this of a level; empty where it may."""
    known = memories(target_of(site.machine))
    if place not in known:
        if not known:
            return f"{site.machine.name} has no memory between DRAM and its cores that programs may use"
        near = difflib.get_close_matches(place, known, n=1)
        nearest = f"; nearest: {near[0]}" if near else ""
        return (
            f"{site.machine.name} has no memory there that programs may use{nearest}; memories at: {', '.join(known)}"
        )
    if what == "stage":
        results = 0 if site.summary.group is None else len(site.summary.group.results)
        if name not in operands(site) and name not in [result_name(number) for number in range(results)]:
            return no_such_operand(name, site)
        rests = name not in operands(site)
        if value == 1 or (value == 2 and not rests):
            return ""
        return f"needs 1{'' if rests else ' or 2'} buffers, got {value}"
    if name in site.summary.outer:
        return ""
    if name in site.extents:
        return f"{name} is a reduction dim, whose steps are tiles.{name}; outer dims: {', '.join(site.summary.outer)}"
    return no_such_dim(name, site.summary.outer)


def no_such_operand(name: str, site: Site) -> str:
    """The message for an operand that a kernel doesn't have."""
    named = ", ".join(f"{known} (%{value.name})" for known, value in operands(site).items())
    return f"the kernel has no operand {name!r}; operands: {named or 'none'}"
