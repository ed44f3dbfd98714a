"""What a mapping costs: bytes that pass at each memory by operand, seconds that each is busy, joules; vectorised over mappings.

A mapping comes as four numbers at each point where data arrives (`Factors`): how often its tile is loaded anew (`loops`: the loops in time around it
over dims that it does not depend on), into how many instances (`space`), how many of these each take one transfer (`sent`: less than
`space` where the network sends to many, or merges), and the values of a tile (`tile` along axes of one dim, `window` along the others). A result
is read back before it is added to, except the first time. What holds for any machine is here; what is a convention of counting is in `Counting`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.mapping.hierarchy import Axis, Store
from codesign.costmodel.mapping.nest import Loop, Nest, Point

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Bytes = dict[tuple[int, str], Floats]
"""By store and operand."""


@dataclass(frozen=True)
class Counting:
    """Conventions of counting.

    `partial_bytes`: width of sums that are not complete (None: as wide as the result). `buffers`: tiles of an operand that a memory holds at
    once so that the next arrives behind the present one, as far as it is not all of the operand. `start`: whether loading the first tiles and
    storing the last takes time of its own (else the busiest part alone decides). `fills`: whether a product may be filled up to sizes that have more
    parts.
    """

    name: str
    partial_bytes: float | None
    buffers: int
    start: bool
    fills: bool


OWN = Counting("own", 4.0, 2, True, True)
"""Sums in f32, double buffering, and a beginning and an end that nothing hides."""
ACCELFORGE = Counting("accelforge", None, 1, False, False)
"""As AccelForge 1.0.467 counts: sums as wide as the result, one tile of each operand, even a single tile overlaps with its own transfer, and
sizes are cut into equal parts only."""
COUNTINGS = {counting.name: counting for counting in (OWN, ACCELFORGE)}


@dataclass(frozen=True)
class Factors:
    """Mappings of a nest: for each point `loops`, `space`, `sent`, `tile` and `window`, for each axis in space how many are `used`.

    Arrays that broadcast with each other to the shape of the mappings: what only some dims decide is computed once for all the others'. Costs grow
    with all of them but `used`, which bounds of mappings that are not `complete` have too high.
    """

    loops: Sequence[Floats]
    space: Sequence[Floats]
    sent: Sequence[Floats]
    tile: Sequence[Floats]
    window: Sequence[Floats]
    used: Sequence[Floats]
    complete: bool = True
    alike: Sequence[Floats] = ()
    """By point and then axis, how many of the instances in use need the same data; nothing where no links cost energy."""


@dataclass(frozen=True)
class Costs:
    """Of mappings: `reads` and `writes` in bytes over all instances, `links` the seconds of the links at each axis' port by operand, `link_joules` of
    all links by operand, `busy` the
    seconds of each part (stores, then the multipliers, then axes that have links), `seconds`, `joules`, `held` in bytes by store, and which
    mappings `fit`. Arrays as in `Factors`."""

    reads: Bytes
    writes: Bytes
    links: Bytes
    link_joules: dict[str, Floats]
    busy: Sequence[Floats]
    seconds: Floats
    joules: Floats
    held: Sequence[Floats]
    fit: Bools


@dataclass(frozen=True)
class Pricing:
    """A nest under a convention of counting."""

    nest: Nest
    counting: Counting

    @cached_property
    def _whole(self) -> list[float]:
        """Values that arrive at each point when its tile is loaded once, windows aside."""
        extents = self.nest.problem.extents
        return [
            float(prod(extents[dim] for dim in point.operand.dims - point.operand.window_dims))
            for point in self.nest.points
        ]

    def _widths(self, point: Point, store: int) -> tuple[float, float]:
        """In a store, bytes of a value of a point's operand that is complete, and of one that is not."""
        stores, operand = self.nest.hierarchy.stores, point.operand
        width = operand.bytes * (stores[store].wide.get(operand.role, 1.0) if store < len(stores) else 1.0)
        part = self.counting.partial_bytes
        return width, width if part is None or operand.role != "output" else max(part, width)

    def costs(self, factors: Factors) -> Costs:
        """Costs of mappings."""
        problem, hierarchy = self.nest.problem, self.nest.hierarchy
        reads, writes = self._traffic(factors)
        instances = self._instances(factors)
        busy: list[Floats] = []
        for number, store in enumerate(hierarchy.stores):
            if store.read_bandwidth:
                read, write = (_sum(v for (at, _), v in bytes_.items() if at == number) for bytes_ in (reads, writes))
                busy.append(busy_seconds(store, read, write) / instances[number])
            else:
                busy.append(np.zeros(1))
        busy.append(problem.macs / hierarchy.rate / instances[-1])
        links = self._links(factors, instances)
        waits = [store.read_bandwidth > 0.0 for store in hierarchy.stores]
        for number, axis in enumerate(hierarchy.axes):
            if axis.link_bandwidth:
                busy.append(_sum(seconds for (at, _), seconds in links.items() if at == number))
        seconds = busy[len(waits)]
        for part, wait in zip(busy, [*waits, *[True] * (len(busy) - len(waits))], strict=True):
            seconds = np.maximum(seconds, part) if wait else seconds
        if self.counting.start:
            seconds = seconds + self._start(factors)
        by_operand = [self._joules(reads, writes, operand.name) for operand in problem.operands]
        link_joules = self._link_joules(factors)
        joules = _sum([*by_operand, *link_joules.values()]) + (problem.macs * hierarchy.joules)
        if hierarchy.static_watts:
            joules = joules + hierarchy.static_watts * seconds
        held = self._held(factors)
        return Costs(reads, writes, links, link_joules, busy, seconds, joules, held, self._fit(factors, held))

    def _traffic(self, factors: Factors) -> tuple[Bytes, Bytes]:
        reads: Bytes = {}
        writes: Bytes = {}
        for number, point in enumerate(self.nest.points):
            sent, space, loops = factors.sent[number], factors.space[number], factors.loops[number]
            outside, here = (point.parent, point.operand.name), (point.store, point.operand.name)
            inside = point.store < len(self.nest.hierarchy.stores)
            (full, part), (full_here, part_here) = self._widths(point, point.parent), self._widths(point, point.store)
            whole = self._whole[number]
            if point.operand.role != "output":
                times = whole * loops * factors.window[number]
                _add(reads, outside, (times * full) * sent)
                if inside:
                    _add(writes, here, (times * full_here) * space)
                continue
            again = whole * (loops - 1.0)
            _add(writes, outside, (again * part + whole * (full if inside else part)) * sent)
            _add(reads, outside, (again * part) * sent)
            if inside:
                _add(reads, here, (again * part_here + whole * full_here) * space)
                _add(writes, here, (again * part_here) * space)
        return reads, writes

    def _links(self, factors: Factors, instances: Sequence[Floats]) -> dict[tuple[int, str], Floats]:
        """By axis and operand, seconds of the links at the port, which all bytes pass; what all instances need passes once and goes on from each to
        the next. The two of a ring share the bytes."""
        found: dict[tuple[int, str], Floats] = {}
        for number, axis, place, outside, total in self._over_links(factors):
            point = self.nest.points[place]
            if axis.link_bandwidth:
                groups = instances[point.parent]
                for other in outside:
                    if point.operand.role not in self.nest.hierarchy.axes[other].carries:
                        groups = groups * factors.used[other]
                seconds = total / groups * (1.0 / (axis.link_bandwidth * axis.ports))
                _add(found, (number, point.operand.name), seconds)
        return found

    def _link_joules(self, factors: Factors) -> dict[str, Floats]:
        """By operand, joules of all links: what is sent to all along an axis passes each link of it once, else those on its way; one at the least
        where it is not known yet how many instances there are."""
        found: dict[str, Floats] = {}
        for number, axis, place, outside, total in self._over_links(factors):
            if axis.link_joules:
                operand, passed = self.nest.points[place].operand, total * axis.link_joules
                name, role = operand.name, operand.role
                if factors.complete:
                    axes = self.nest.hierarchy.axes
                    alike = factors.alike[place * len(axes) :]
                    sent_to = alike[number] if role in axis.carries else np.ones(1)
                    passed = passed * axis.passed(factors.used[number], sent_to)
                    for other in outside:
                        if role in axes[other].carries:
                            passed = passed * alike[other]
                found[name] = found[name] + passed if name in found else passed
        return found

    def _over_links(self, factors: Factors) -> Iterator[tuple[int, Axis, int, list[int], Floats]]:
        """Of each axis with links and each point whose data passes it, the axes that it passes before, and its bytes when a transfer counts
        once."""
        entries, axes = self.nest.entries, self.nest.hierarchy.axes
        at = {
            entry.axis: place
            for place, entry in enumerate(entries)
            if isinstance(entry, Loop) and entry.axis is not None
        }
        for (number, axis), (place, point) in product(enumerate(axes), enumerate(self.nest.points)):
            if not (axis.link_bandwidth or axis.link_joules) or not point.above_parent < at[number] < point.above:
                continue
            width = max(self._widths(point, point.parent))
            times = factors.loops[place] if point.operand.role != "output" else factors.loops[place] * 2.0 - 1.0
            total = (self._whole[place] * width) * times * factors.window[place] * factors.sent[place]
            yield number, axis, place, [other for other in range(number) if at[other] > point.above_parent], total

    def _joules(self, reads: Bytes, writes: Bytes, name: str) -> Floats:
        stores = self.nest.hierarchy.stores
        return _sum(
            [v * stores[at].read_joules for (at, operand), v in reads.items() if operand == name]
            + [v * stores[at].write_joules for (at, operand), v in writes.items() if operand == name]
        )

    def _instances(self, factors: Factors) -> list[Floats]:
        """Of each store, and of the multipliers."""
        total, axes = np.ones(1), list(zip(self.nest.hierarchy.axes, factors.used, strict=True))
        found = []
        for number in range(len(self.nest.hierarchy.stores) + 1):
            while axes and axes[0][0].before <= number:
                total = total * axes.pop(0)[1]
            found.append(total)
        return found

    def _held(self, factors: Factors) -> list[Floats]:
        """Bytes held in each store."""
        stores = self.nest.hierarchy.stores
        held: list[list[Floats]] = [[] for _ in stores]
        for number, point in enumerate(self.nest.points):
            if point.store >= len(stores):
                continue
            tile, width = factors.tile[number] * factors.window[number], max(self._widths(point, point.store))
            if stores[point.store].values is None and self.counting.buffers > 1:
                whole = float(point.operand.values(self.nest.problem.extents))
                tile = np.minimum(tile * self.counting.buffers, whole)
            held[point.store].append(tile * width)
        return [_sum(each) for each in held]

    def _fit(self, factors: Factors, held: Sequence[Floats]) -> Bools:
        stores, fit = self.nest.hierarchy.stores, np.ones(1, dtype=np.bool_)
        for number, point in enumerate(self.nest.points):
            values = stores[point.store].values if point.store < len(stores) else None
            if values is not None:
                fit = fit & (factors.tile[number] * factors.window[number] <= values)
        for number, store in enumerate(stores):
            if store.values is None and store.capacity < inf:
                fit = fit & (held[number] <= store.capacity)
        return fit

    def _start(self, factors: Factors) -> Floats:
        """Seconds of the first loads from the outermost memory, and of the last store to it."""
        outer = self.nest.hierarchy.stores[0]
        found = []
        for number, point in enumerate(self.nest.points):
            rate = outer.write_bandwidth if point.operand.role == "output" else outer.read_bandwidth
            if point.parent == 0 and rate:
                tile = factors.tile[number] * factors.window[number]
                found.append(tile * factors.sent[number] * (point.operand.bytes / rate))
        return _sum(found)


def busy_seconds(store: Store, read: Floats, write: Floats) -> Floats:
    """Seconds that one instance of a store is busy with these bytes."""
    if store.one_port and store.read_bandwidth == store.write_bandwidth:
        return (read + write) * (1.0 / store.read_bandwidth)
    reading, writing = read * (1.0 / store.read_bandwidth), write * (1.0 / store.write_bandwidth)
    return reading + writing if store.one_port else np.maximum(reading, writing)


def _add(into: Bytes, key: tuple[int, str], value: Floats) -> None:
    into[key] = into[key] + value if key in into else value


def _sum(values: Any) -> Floats:
    """Of arrays that broadcast, the smallest first."""
    total = np.zeros(1)
    for value in sorted(values, key=lambda array: int(array.size)):
        total = total + value
    return total
