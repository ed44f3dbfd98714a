"""Which points of a group to do apart, in parts of their sums, where its programs are some more than whole rounds of the machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codesign.ir.tensor import Dim, Fusion
from codesign.passes.schedule.found import Found
from codesign.passes.schedule.phases import halves, in_two, seconds_between
from codesign.passes.tiling.cutting import WHOLE, Cutting
from codesign.passes.tiling.split import splittable
from codesign.passes.tiling.tail import Tail, has_tail

if TYPE_CHECKING:
    from codesign.passes.schedule.tuner import Tuner

GAIN = 0.99
"""A tail is looked into, and cut off, where no more than this share of the time is left: less is not worth another launch."""

PARTS = (2, 3, 4, 6)
"""Numbers of parts of the tail's sums that are looked into."""

LEAST = 256
"""Elements of a sum that a part has at the least: some steps of a loop."""

WORD = 8.0
"""Bytes that a partial result moves: a word of single precision, out and in."""


@dataclass(frozen=True)
class Rounds:
    """Programs of a grid and how many the machine holds at once."""

    programs: int
    slots: int

    @property
    def least(self) -> float:
        """Time of as many programs that kept all slots until the end, beside what they take."""
        return self.programs / self.slots / math.ceil(self.programs / self.slots)

    @property
    def whole(self) -> int:
        """Programs of the rounds that keep the whole machine busy."""
        return self.programs // self.slots * self.slots

    def share(self, apart: int, parts: int) -> float:
        """Time with so many of the programs done in parts, beside that of all of them as they are."""
        free = self.whole - (self.programs - apart)
        further = math.ceil(max(apart - free, 0) * parts / self.slots) / parts
        return (self.whole / self.slots + further) / math.ceil(self.programs / self.slots)


def best_tail(tuner: Tuner, fusion: Fusion, found: Found, below: float) -> tuple[Cutting, float, bool]:
    """How to cut off a group's tail (or not), the seconds that it then takes, and whether that is sure; see `best_parts`.

    `found`: the group as one kernel. What one number of parts takes beyond what was expected of it, the others are expected to take too, by
    their number: it is the merging of parts that takes more.
    """
    best, least, limited, further = WHOLE, GAIN * found.seconds, False, 0.0
    for expected, cutting in sorted(_offers(tuner, fusion, found), key=lambda offer: offer[0]):
        if expected + further * cutting.parts >= least:
            continue
        pair = in_two(tuner, halves(tuner, fusion, cutting), found.launch, min(least, below))
        further = max(further, (pair.seconds - expected) / cutting.parts)
        limited = limited or (not pair.priced and pair.seconds < least)
        if pair.priced:
            best, least = cutting, pair.seconds
    seconds = found.seconds if best == WHOLE else least
    return best, seconds, seconds < below or not limited


def least_with_tail(tuner: Tuner, found: Found) -> float:
    """Seconds that a group takes at the least with a tail apart; infinite where its programs have none."""
    rounds = _rounds(tuner, found)
    if tuner.machine.kind != "gpu" or rounds.whole in (0, rounds.programs):
        return math.inf
    return found.launch + seconds_between(tuner, found.launch) + rounds.least * (found.seconds - found.launch)


def _rounds(tuner: Tuner, found: Found) -> Rounds:
    return Rounds(found.programs(), found.slots(tuner.machine))


def _offers(tuner: Tuner, fusion: Fusion, found: Found) -> list[tuple[float, Cutting]]:
    """A tail of as few tiles as leave whole rounds, in several numbers of parts, where that could gain something; with the seconds expected."""
    machine, rounds = tuner.machine, _rounds(tuner, found)
    launches = found.launch + seconds_between(tuner, found.launch)
    body, limit = found.seconds - found.launch, GAIN * found.seconds
    tails = _tails(fusion, found, rounds) if least_with_tail(tuner, found) < limit else []
    if not tails:
        return []
    apart, tail = min(tails, key=lambda pair: pair[0])
    where = splittable(fusion)
    assert where is not None
    sums = 1 if where.fold is None else len(where.fold.parts)
    elements = apart * math.prod(found.schedule.tiles.get(dim, 1) for dim in found.context.summary.outer)
    moving = WORD * sums * elements / machine.need(machine.levels[0].bandwidth, "bandwidth")
    expected = {
        parts: launches + rounds.share(apart, parts) * body + parts * moving
        for parts in PARTS
        if parts * LEAST <= where.extent
    }
    return [(seconds, Cutting(parts, tail)) for parts, seconds in expected.items() if seconds < limit]


def _tails(fusion: Fusion, found: Found, rounds: Rounds) -> list[tuple[int, Tail]]:
    """The tail along each dim of the grid that leaves whole rounds, with its number of programs."""
    summary, extents = found.context.summary, fusion.dims()
    tails: list[tuple[int, Tail]] = []
    for name in summary.outer:
        tile, source = found.schedule.tiles.get(name, 1), found.normalized.merged.get(name, ())
        tiles = -(-int(summary.extents[name].evaluate(found.context.sizes)) // tile)
        each = rounds.programs // tiles
        count = -(-(rounds.programs - rounds.whole) // each)
        whole = len(source) == 1 and extents[source[0]] == summary.extents[name]
        if whole and count < tiles and has_tail(fusion, Dim(source[0], extents[source[0]])):
            tails.append((count * each, Tail(list(extents).index(source[0]), (tiles - count) * tile)))
    return tails
