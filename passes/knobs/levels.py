"""Levels: into how many parts the grid's dims are split in space over the instances of each level of a machine, and what of a kernel the memories
of its levels work on at a time and hold."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod

import numpy as np

from codesign.costmodel.dataflow.target import target_of
from codesign.ir.schedule import AT_LEVEL, Schedule
from codesign.passes.knobs import staging
from codesign.passes.knobs.room import Read, Room, Value, register
from codesign.passes.knobs.site import Site
from codesign.passes.knobs.tile import no_such_dim
from codesign.passes.schedule.space import Columns, Constraint, Knob


@register
class Levels(Room):
    """Splits in space, from the outermost level in; of levels with a memory between DRAM and the cores also the tile that an instance works
    on at a time (the grid is walked tile by tile, in an order of its own) and the operands that are staged there.

    Programs that are split along a dim and read what does not depend on it read it together, once from each memory that can send it to many: that
    follows, and is no choice. Where nothing is staged, the memories keep what is read again most often, as far as it fits.
    """

    name = "levels"
    rank = 10

    def unread(self, site: Site) -> str:
        if not site.gpu and not target_of(site.machine).places:
            return f"{site.machine.name} has one core"
        return _hardware(site)

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        if site is None:
            return range(1, 1 << 20)
        count = dict(target_of(site.machine).places).get(dim.split(".")[0], 1)
        return tuple(n for n in range(1, count + 1) if count % n == 0)

    def offered(self, site: Site) -> Iterable[Knob]:
        if not site.gpu:
            yield from staging.offered(site)
        dims = _worth_splitting(site)
        if self.unread(site) or not dims:
            return
        start = _even(site, dims)
        for place, count in target_of(site.machine).places:
            for dim in dims:
                values = tuple(n for n in range(1, count + 1) if count % n == 0 and n < 2 * site.extents[dim])
                if len(values) > 1:
                    yield Knob(_column(place, dim), values, start[place, dim])

    def constraints(self, site: Site) -> Iterable[Constraint]:
        """The parts at each place are as many as its instances, or divide them."""
        if self.unread(site):
            return
        for place, count in target_of(site.machine).places:
            yield _divides(place, count, [_column(place, dim) for dim in site.summary.outer])

    def said(self, schedule: Schedule) -> Iterator[Read]:
        for place, level in schedule.levels.items():
            for what in AT_LEVEL:
                for dim, value in getattr(level, what).items():
                    yield f"levels.{place}.{what}.{dim}", f"{place}.{what}.{dim}", value
            if level.order:
                yield f"levels.{place}.order", f"{place}.order", ", ".join(level.order)

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        place, what, *rest = dim.split(".", 2)
        if site is None:
            return ""
        if why := _hardware(site) or (self.unread(site) if what == "split" else ""):
            return why
        if what == "order":
            names = str(value).split(", ")
            return next((why for name in names if (why := staging.wrong(place, "tile", name, value, site))), "")
        if what != "split":
            return staging.wrong(place, what, rest[0], value, site)
        places = dict(target_of(site.machine).places)
        if place not in places:
            near = difflib.get_close_matches(place, places, n=1)
            return f"{site.machine.name} has no such level{f'; nearest: {near[0]}' if near else ''}; levels: {', '.join(places)}"
        if rest[0] not in site.summary.outer:
            outer = ", ".join(site.summary.outer)
            if rest[0] in site.extents:
                return f"{rest[0]} is no outer dim of the kernel; outer dims: {outer}"
            return no_such_dim(rest[0], site.summary.outer)
        if not isinstance(value, int) or places[place] % value:
            return f"needs a divisor of the {places[place]} instances, got {value}"
        return ""

    def together(self, schedule: Schedule, site: Site) -> str:
        if self.unread(site):
            return ""
        for place, count in target_of(site.machine).places:
            parts = prod(schedule.levels[place].split.values()) if place in schedule.levels else 1
            if count % parts:
                return f"levels.{place}: {parts} parts do not divide the {count} instances of {site.machine.name}"
        return ""


def _hardware(site: Site) -> str:
    return f"blocks of {site.machine.name} are laid out by its hardware" if site.gpu else ""


def _worth_splitting(site: Site) -> list[str]:
    """Outer dims that something which is loaded does not depend on, so that programs along them can read it together."""
    loads = [set(load.dims) for nest in site.summary.nests for load in nest.loads if not load.gather]
    outer = [dim for dim in site.summary.outer if site.extents[dim] > 1]
    return [dim for dim in outer if any(load and dim not in load for load in loads)]


def _even(site: Site, dims: Sequence[str]) -> dict[tuple[str, str], int]:
    """A split of all places in which each dim gets parts in proportion to its extent."""
    found = {(place, dim): 1 for place, _ in target_of(site.machine).places for dim in dims}
    left = {dim: float(site.extents[dim]) for dim in dims}
    for place, count in target_of(site.machine).places:
        for factor in _factors(count):
            dim = max(left, key=lambda name: left[name])
            if left[dim] > 1.0:
                found[place, dim] *= factor
                left[dim] /= factor
    return found


def _factors(count: int) -> list[int]:
    found, factor = [], 2
    while count > 1:
        while count % factor == 0:
            found.append(factor)
            count //= factor
        factor += 1
    return found


def _divides(place: str, count: int, names: Sequence[str]) -> Constraint:
    def parts(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        total = np.ones(1, dtype=np.int64)
        for name in names:
            if name in columns:
                total = total * columns[name]
        return total

    def holds(columns: Columns) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.equal(count % parts(columns), 0)

    def explain(row: Mapping[str, int]) -> str:
        total = prod(row.get(name, 1) for name in names)
        return f"{total} parts, which do not divide {count} instances"

    return Constraint(f"{place} instances", holds, explain)


def _column(place: str, dim: str) -> str:
    return f"levels.{place}.split.{dim}"
