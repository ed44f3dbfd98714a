"""Into how many parts to split a group's reduction: each number of parts is priced as two kernels, at tiles of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from codesign.ir.analysis import contraction
from codesign.ir.tensor import Fusion
from codesign.ir.tiling.domain import SMALLEST_DOT
from codesign.passes.schedule.found import Found
from codesign.passes.schedule.phases import InTwo, halves, in_two, least_seconds, seconds_between, shortest_seconds
from codesign.passes.schedule.tails import best_tail, least_with_tail
from codesign.passes.tiling.cut import whole_parts
from codesign.passes.tiling.cutting import WHOLE, Cutting
from codesign.passes.tiling.split import splittable
from codesign.passes.tiling.strips import strips_of

if TYPE_CHECKING:
    from codesign.passes.schedule.tuner import Tuner

WORTHWHILE = 0.9
"""A split is looked into when the idle cores it fills could bring the time below this share."""

GAIN = 0.99
"""Another number of parts is looked into where the last step brought the time below this share."""


TILES = (256, 128)
"""Columns of a large tile of a matrix product."""


def best_cutting(tuner: Tuner, fusion: Fusion, found: Found, below: float = math.inf) -> tuple[Cutting, float, bool]:
    """How to cut a group in two (or not), the seconds that it then takes, and whether that is sure.

    `found`: the group as one kernel. Nothing is priced to its end that is not `below` a limit; it is not sure, then, that no other way is faster.
    """
    if found.context.summary.strands:
        return WHOLE, found.seconds, True
    priced = Split(tuner, fusion, found)
    parts, seconds, sure = best_parts(tuner, fusion, found, below, priced)
    best, limited = Cutting(parts), not sure
    for number in _of_one_tile(fusion):
        pair = priced.into(number, min(seconds, below))
        limited = limited or (not pair.priced and pair.seconds < seconds)
        if pair.priced and pair.seconds < seconds:  # it may have been priced before what is best was known
            best, seconds = Cutting(number), pair.seconds
    strips, taken, whole = best_strips(tuner, fusion, found, seconds, below)
    if strips != WHOLE:
        best, seconds = strips, taken
    limited = limited or not whole
    if best != WHOLE or limited:
        return best, seconds, seconds < below or not limited
    return best_tail(tuner, fusion, found, below)


class Split:
    """A group's reduction split into several numbers of parts, each priced once.

    `found`: the group as one kernel.
    """

    def __init__(self, tuner: Tuner, fusion: Fusion, found: Found) -> None:
        self.tuner, self.fusion, self.launch = tuner, fusion, found.launch
        self.known: dict[int, InTwo] = {}

    def into(self, parts: int, limit: float) -> InTwo:
        """What it takes in so many parts, priced to the end where that is below a limit."""
        if parts not in self.known:
            pair = halves(self.tuner, self.fusion, Cutting(parts))
            fewer = [self._at_least(fewer, parts) for fewer in self.known if 2 * fewer <= parts]
            self.known[parts] = in_two(self.tuner, pair, self.launch, limit, fewer)
        return self.known[parts]

    def _at_least(self, fewer: int, parts: int) -> InTwo:
        """What so many parts take at the least, by what fewer do: as many times as many programs make the partial results no sooner than in that
        share of the time, and there are more of them to put together."""
        known = self.known[fewer]
        first = self.launch + (known.first - self.launch) * fewer / parts
        return InTwo(first, known.second, priced=False)


def _of_one_tile(fusion: Fusion) -> list[int]:
    """Numbers of parts of as many elements as a large tile, of a fold over what products give: so the rows of a product are read once for all of
    its columns in a program, where a loop over the fold's elements reads them again in each of its steps."""
    if not any(contraction(compute) is not None for compute in fusion.computes):
        return []
    where = splittable(fusion)
    if where is None or where.fold is None or not any(where.dim in {d.name for d in op.dims} for op in where.feeders):
        return []
    parts = dict.fromkeys(whole_parts(where.extent, -(-where.extent // length)) for length in TILES)
    return [number for number in parts if number > 1]


def best_strips(
    tuner: Tuner, fusion: Fusion, found: Found, seconds: float, below: float
) -> tuple[Cutting, float, bool]:
    """How to do a group strip by strip with parts of its sums (or not), the seconds that it then takes, and whether that is sure; see `best_parts`.

    `seconds`: what it takes otherwise.
    """
    best, least, limited = WHOLE, seconds, False
    shortest = found.launch + seconds_between(tuner, found.launch) + tuner.bound(found.context.summary)
    if tuner.machine.kind != "gpu" or shortest >= seconds:
        return best, least, True
    strips = max(strips_of(fusion), key=lambda one: one.extent, default=None)
    if strips is None:
        return best, least, True
    cores = int(tuner.machine.instances(tuner.machine.core_level().name))
    for wanted in (cores, 2 * cores, 4 * cores):
        cutting = Cutting(_number_of_strips(strips.extent, wanted), along=list(fusion.dims()).index(strips.dim))
        if cutting.parts < 2 or cutting == best:
            break
        pair = in_two(tuner, halves(tuner, fusion, cutting), found.launch, min(least, below))
        limited = limited or (not pair.priced and pair.seconds < least)
        if not pair.priced or pair.seconds >= GAIN * least:
            break
        best, least = cutting, pair.seconds
    return best, least, least < below or not limited


def _number_of_strips(extent: int, wanted: int) -> int:
    """Strips of one length that are about as many as wanted, else as many as leave the last one ragged."""
    even = max(parts for parts in range(1, min(wanted, extent) + 1) if extent % parts == 0)
    return even if 4 * even >= 3 * min(wanted, extent) else whole_parts(extent, min(wanted, extent))


def best_parts(
    tuner: Tuner, fusion: Fusion, found: Found, below: float = math.inf, priced: Split | None = None
) -> tuple[int, float, bool]:
    """Into how many parts to split the group's reduction (1: not at all), the seconds that it then takes, and whether that is sure.

    `found`: the group as one kernel. Only looked into when there is room for more programs, and using it could save more than another
    launch costs. Nothing is priced to its end that is not `below` a limit; it is not sure, then, that no other split is faster.
    """
    room = found.room(tuner.machine)
    where = splittable(fusion) if room > 1.0 else None
    if where is None:
        return 1, found.seconds, True
    least = _least(tuner, found, room)
    if least >= WORTHWHILE * found.seconds:
        return 1, found.seconds, True
    if least >= below:
        return 1, found.seconds, found.seconds < below
    seconds: dict[int, float] = {1: found.seconds}
    limited, split = False, priced or Split(tuner, fusion, found)

    def price(wanted: int) -> float:
        """Seconds in so many parts, or what they take at the least where that is enough to know that they are not the best."""
        nonlocal limited
        parts, best = whole_parts(where.extent, wanted), min(seconds.values())
        if parts in seconds:
            return seconds[parts]
        pair = split.into(parts, min(best, below))
        limited = limited or (not pair.priced and pair.seconds < best)
        if pair.priced:
            seconds[parts] = pair.seconds
        return pair.seconds

    _climb(price, found.seconds, room, where.extent // SMALLEST_DOT)
    taken, parts = min((taken, parts) for parts, taken in seconds.items())
    return parts, taken, taken < below or not limited


def may_come_below(tuner: Tuner, fusion: Fusion, found: Found, below: float) -> bool:
    """Whether a group that as one kernel takes as long as was found might come below a limit as two."""
    if splittable(fusion) is None:
        return False
    room = found.room(tuner.machine)
    if room > 1.0 and _least(tuner, found, room) < min(WORTHWHILE * found.seconds, below):
        return True
    return bool(_of_one_tile(fusion)) or least_with_tail(tuner, found) < below


def _climb(price: Callable[[int], float], whole: float, room: float, most: int) -> None:
    """Price numbers of parts from the one that fills the machine on, up and down while that is faster; `whole`: seconds in one part."""
    filled = max(min(int(room), most), 1)
    start = parts = 1 << filled.bit_length() - 1
    while 2 * parts <= most and price(2 * parts) < GAIN * price(parts):
        parts *= 2
    while parts == start and start >= 4 and price(start // 2) < GAIN * price(start):
        parts = start = start // 2
    if price(parts) < GAIN * whole:
        price(filled)


def _least(tuner: Tuner, found: Found, room: float) -> float:
    """Seconds of two kernels' starts and the same work spread over the whole machine."""
    work = max(least_seconds(tuner, found.context.summary), (found.seconds - found.launch) / room)
    return found.launch + seconds_between(tuner, found.launch) + work + shortest_seconds(tuner)
