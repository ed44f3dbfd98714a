"""Steps in which loads come from far away, among steps in which they come from a memory nearby: what that adds to an even pace.

A memory that keeps what is read again asks DRAM for it in the first of several sweeps, and in none of the others. The timeline goes by means. Where
the engines keep up with the mean but not with the first sweep, the loops are slower by what is worked out here: for each set of loads that are
first in a step, the pace of its slowest engine, by how often that set comes. With two buffers only the first of all sets comes in such
a burst, by the memory's own DMA, which no load waits behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from codesign.costmodel.dataflow.shape import Array, Some, cut

MOST = 4
"""Loads of a step that are told apart, the first ones in its program."""


@dataclass(frozen=True)
class Pull:
    """A load of a step of a loop. Clocks: `engine` of a core's DMA, `near` of the memories inside of the one that keeps its data and `far` of those
    outside, for all cores; `ahead` of the DMA engines that stage it. `times` that it is read, each time it comes from far away. `two`: it has two
    buffers. `first`: of each turn of the blocks, whether it is at its beginning when the load is first."""

    engine: Array
    near: Array
    far: Array
    ahead: Array = 0.0
    times: Array = 1.0
    two: Array = False
    first: tuple[Array, ...] = ()

    def of(self, rows: Some) -> Pull:
        """The load under some of the schedules."""
        figures = (self.engine, self.near, self.far, self.ahead, self.times, self.two)
        engine, near, far, ahead, times, two = (cut(each, rows) for each in figures)
        return Pull(engine, near, far, ahead, times, two, tuple(cut(each, rows) for each in self.first))

    def clocks(self, share: Array) -> tuple[Array, Array, Array]:
        """Of the load engine, of the engine that stages, and of the memories far away, when such a share of it comes from there."""
        load = np.maximum(self.engine, np.maximum(self.near, np.where(self.two, 0.0, self.far * np.ceil(share))))
        staged = np.where(self.two, np.maximum(self.ahead, self.far) * share, 0.0)
        return load, staged, self.far * share

    def mean(self) -> Array:
        """Clocks of the load engine as the timeline has them."""
        far = np.where(self.two, 0.0, self.far / self.times)
        return np.maximum(self.engine, np.maximum(self.near, far))


@dataclass(frozen=True)
class Loop:
    """A loop whose steps compute for so many clocks (`busy`), of which `depth` are in flight; `latency`: until what is loaded has come."""

    busy: Array
    depth: Array
    latency: Array

    def pace(self, load: Array) -> Array:
        """Clocks of a step whose loads take so many: no load begins before the step that used its slot before is done."""
        round_trip = (load + self.latency + self.busy) / np.maximum(self.depth, 1.0)
        return np.maximum(np.maximum(self.busy, load), round_trip)


def bursts(pulls: Sequence[Pull], counts: Sequence[Array], loop: Loop) -> Array:
    """Clocks that a step of a loop takes longer, in the mean, than at an even pace. `counts`: of the turns of blocks."""
    again = [n for n, pull in enumerate(pulls) if np.any((pull.times > 1.0) & (pull.far > pull.near))][:MOST]
    if not again:
        return np.zeros(1)
    load, far = np.zeros(1), np.zeros(1)
    for pull in pulls:
        load, far = load + pull.mean(), far + pull.far / pull.times
    even = np.maximum(loop.pace(load), far)
    total: Array = np.zeros(1)
    begins = _Begins(pulls, counts)
    shares = {n: [_share(pulls[n], begins.of(frozenset([n])), first) for first in (False, True)] for n in again}
    for which in _subsets(again):
        often = begins.often(which, [n for n in again if n not in which])
        if not np.any(often):
            continue
        load, staged, far = np.zeros(1), np.zeros(1), np.zeros(1)
        for number, pull in enumerate(pulls):
            took, waits, comes = pull.clocks(shares[number][number in which] if number in shares else 1.0 / pull.times)
            load, staged, far = load + took, staged + waits, far + comes
        total = total + often * np.maximum(loop.pace(load), np.maximum(staged, far))
    return np.maximum(total - even, 0.0)


def start(pulls: Sequence[Pull], latency: Array) -> Array:
    """Clocks until what has two buffers is where the first loads take it from: all of their tiles come whole, one after the other."""
    comes: Array = np.zeros(1)
    for pull in pulls:
        comes = comes + np.where(pull.two, np.maximum(pull.ahead, pull.far), 0.0)
    return np.where(comes > 0.0, comes + latency, 0.0)


def _subsets(numbers: Sequence[int]) -> list[frozenset[int]]:
    return [frozenset(some) for size in range(len(numbers) + 1) for some in combinations(numbers, size)]


def _share(pull: Pull, begins: Array, first: bool) -> Array:
    """How much of a load comes from far away in a step where it is first, or isn't: with two buffers what is ahead comes evenly.
    `begins`: the share of steps in which it is first."""
    if first:
        return np.ones(1)
    even = np.maximum(1.0 / pull.times - begins, 0.0) / np.maximum(1.0 - begins, 1e-9)
    return np.where(pull.two, even, 0.0)


class _Begins:
    """How often loads are first (`counts`: of the turns of blocks)."""

    def __init__(self, pulls: Sequence[Pull], counts: Sequence[Array]) -> None:
        self.pulls, self.counts = pulls, counts
        self._known: dict[frozenset[int], Array] = {}

    def often(self, first: frozenset[int], others: Sequence[int]) -> Array:
        """The share of steps in which some loads are first and others are not."""
        total: Array = np.zeros(1)
        for size in range(len(others) + 1):
            for more in combinations(others, size):
                total = total + (-1.0) ** size * self.of(first.union(more))
        return np.maximum(total, 0.0)

    def of(self, which: frozenset[int]) -> Array:
        """The share of steps in which all of some loads are first."""
        if which not in self._known:
            share: Array = np.ones(1)
            for turn, count in enumerate(self.counts):
                some: Array = np.zeros(1, np.bool_)
                for number in which:
                    some = some | self.pulls[number].first[turn]
                share = share / np.where(some, count, 1.0)
            self._known[which] = share
        return self._known[which]
