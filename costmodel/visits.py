"""How many steps loops make along dims that masks cut: in the mean over the programs of a grid, of the longest one, and of the slowest core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from codesign.costmodel.distinct import distinct
from codesign.ir.index import Index, ceildiv, index, maximum
from codesign.ir.reach import EARLIER, Reach, Stretch

Array = Any
"""A NumPy array over schedules, or a Python number; they broadcast."""

Steps = npt.NDArray[Any]
"""Steps of a loop in programs of a grid."""

MOST_PROGRAMS = 1 << 14
"""Programs along one dim that are looked at one by one; of more, so many that lie evenly."""
MOST_DEALT = 1 << 16
"""Blocks that are dealt out one by one before the deal comes again; of a longer deal every gang gets the mean."""


class Visits(NamedTuple):
    """Steps, for each schedule: in the `mean` over all programs, of the one that makes `most`, and in the mean over the rounds of
    programs, of the core that makes most of all the loop's steps (`slowest`)."""

    mean: Array
    most: Array
    slowest: Array


@dataclass(frozen=True)
class Deal:
    """How a grid's programs are dealt to cores: blocks of them, `whole` along each dim, in `turns` (dim, count, blocks below one; the slowest first)
    to so many `gangs` one after the other; a core takes the same program of each block of its gang."""

    turns: Sequence[tuple[str, Array, Array]]
    whole: Mapping[str, Array]
    gangs: Array

    def given(self, along: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Array]]:
        """The turns from the slowest one of some dims on, by dim ("": of others, several in one), and their numbers by name."""
        order: list[str] = []
        known: dict[str, Array] = {}
        total: Array = 1
        for dim, count, below in self.turns:
            count = np.asarray(count, np.int64)
            total = total * count
            if dim in along:
                known[f"below {len(order)}"] = below
            elif not order:
                continue
            elif not order[-1]:
                known[f"count {len(order) - 1}"] = known[f"count {len(order) - 1}"] * count
                continue
            known[f"count {len(order)}"] = count
            order.append(dim if dim in along else "")
        whole = {f"{name} whole": self.whole[name] for name in along}
        gangs, period = np.asarray(self.gangs, np.int64), _product(known[f"count {n}"] for n in range(len(order)))
        if order and not order[-1]:  # cores whose turns differ in the fastest one alone have as much to do
            last = f"count {len(order) - 1}"
            alike = np.gcd(gangs, np.asarray(known[last], np.int64))
            known[last] = known[last] // alike
            total, gangs, period = total // alike, gangs // alike, period // alike
        again = period * (gangs // np.gcd(gangs, period))  # blocks after which the deal comes again
        return tuple(order), {
            **known,
            **whole,
            "dealt": np.where(total % again == 0, again, total),
            "gangs": gangs,
        }


@dataclass(frozen=True)
class Visited:
    """Steps of a loop, `all` together and in each of its stretches."""

    all: Visits
    parted: Mapping[Stretch, Visits] = field(default_factory=dict)

    @property
    def whole(self) -> Array:
        """Mean steps in which masks leave everything."""
        return self.parted["whole"].mean if "whole" in self.parted else 0.0


def visited(
    reach: Reach,
    dim: str,
    tile: Mapping[str, Array],
    blocks: Mapping[str, Array],
    extents: Mapping[str, Array],
    symbols: Mapping[str, Array],
    deal: Deal | None = None,
) -> Visited:
    """Steps of a loop along a dim, for schedules with these tiles and programs (`blocks`) along the dims of the grid.

    `deal`: how cores get them (none: one core takes all).
    """
    names = sorted((reach.variables & extents.keys()) - {dim})
    stretches, trips = _trips(reach, tuple(names))
    along = [name for name in names if name in blocks]
    given = {"step": tile[dim], "extent": extents[dim], **symbols}
    given |= {f"{name} tile": tile[name] for name in along} | {f"{name} blocks": blocks[name] for name in along}
    given |= {f"{name} extent": extents[name] for name in names}
    order, dealt = deal.given(along) if deal is not None else ((), {})
    shape = np.broadcast_shapes(*(np.shape(value) for value in (*given.values(), *dealt.values())))
    different, places = distinct([*given.values(), *dealt.values()])
    results = [
        _of_programs(
            trips,
            tuple(names),
            tuple(along),
            order,
            tuple(zip(given, values, strict=False)),
            tuple(zip(dealt, values[len(given) :], strict=True)),
        )
        for values in different.tolist()
    ]
    columns = [np.array(column, dtype=np.float64) for column in zip(*results, strict=True)]
    found = [column[places].reshape(shape) if shape else float(column[0]) for column in columns]
    every, *others = (Visits(*found[at : at + 3]) for at in range(0, len(found), 3))
    return Visited(every, dict(zip(stretches, others, strict=True)))


@lru_cache(maxsize=1 << 10)
def _trips(reach: Reach, names: tuple[str, ...]) -> tuple[tuple[Stretch, ...], tuple[Index, ...]]:
    """Steps of a loop, all of them and those of each stretch, over the first and last values of dims in a program."""
    ends = {name: (f"{name} first", f"{name} last") for name in names}
    stretches = reach.stretches(ends, "extent", "step")
    trips = {name: index(maximum(ceildiv(upper - lower, "step"), 0)) for name, (lower, upper) in stretches.items()}
    if reach.union:
        every = sum((trips[name] for name in EARLIER if name in trips), trips["rest"])
        return tuple(trips), (every, *trips.values())
    lower, upper = reach.over(ends, "extent", "step")
    return tuple(trips), (index(maximum(ceildiv(upper - lower, "step"), 0)), *trips.values())


@lru_cache(maxsize=1 << 16)
def _of_programs(
    trips: tuple[Index, ...],
    names: tuple[str, ...],
    along: tuple[str, ...],
    order: tuple[str, ...],
    given: tuple[tuple[str, int], ...],
    dealt: tuple[tuple[str, int], ...],
) -> tuple[float, ...]:
    """Of each expression of trips (the first: of all), its mean and most over the programs of a grid, and the mean of the slowest core; all else
    is numbers."""
    steps = _steps(trips, names, along, given)
    apart = steps.reshape(len(trips), -1)
    means = apart.mean(axis=1)
    numbers = dict(given)
    single = all(numbers[f"{name} blocks"] == size for name, size in zip(along, steps.shape[1:], strict=True))
    slowest = _slowest(steps, along, order, dict(dealt)) if order and single else means
    return tuple(np.stack([means, apart.max(axis=1), slowest], axis=1).ravel().tolist())


@lru_cache(maxsize=1 << 12)
def _steps(
    trips: tuple[Index, ...], names: tuple[str, ...], along: tuple[str, ...], given: tuple[tuple[str, int], ...]
) -> Steps:
    """Steps [expression, programs along each dim]."""
    known: dict[str, Any] = dict(given)
    counts = [known[f"{name} blocks"] for name in along]
    programs = np.meshgrid(*(_programs(count) for count in counts), indexing="ij", sparse=True)
    for name in names:
        known[f"{name} first"], known[f"{name} last"] = 0, known[f"{name} extent"] - 1
    for name, each, count in zip(along, programs, counts, strict=True):
        if count > 1:
            known[f"{name} first"] = each * known[f"{name} tile"]
            known[f"{name} last"] = known[f"{name} first"] + known[f"{name} tile"] - 1
    shape = [each.size for each in programs]
    return np.stack([np.broadcast_to(np.asarray(one.evaluate(known)), shape) for one in trips]).astype(np.float64)


def _slowest(steps: Steps, along: Sequence[str], order: Sequence[str], known: Mapping[str, int]) -> Steps:
    """Steps of each kind, in the mean over its rounds, of the core that makes most of the first kind. `steps`: [kind, programs along each dim]."""
    gangs, total = known["gangs"], known["dealt"]
    counts = [known[f"count {number}"] for number in range(len(order))]
    period, rounds = prod(counts), -(-total // gangs)
    again = period // gcd(gangs, period)  # rounds after which a gang's blocks come again
    whole = [known[f"{name} whole"] for name in along]
    if gangs * min(rounds, again) > MOST_DEALT:
        return _mean(steps)
    if gangs == 1 and all(many == 1 for many in whole) and total % period == 0:
        return _mean(steps)
    dealt = np.arange(min(rounds, again))[:, None] * gangs + np.arange(gangs)
    times = np.maximum(-(-(total - dealt) // (gangs * again)), 0)
    blocks = [-(-size // many) for size, many in zip(steps.shape[1:], whole, strict=True)]
    place = dict.fromkeys(along, np.zeros((), np.int64))
    left = dealt % period
    for number in reversed(range(len(order))):
        left, digit = np.divmod(left, counts[number])
        if order[number]:
            place[order[number]] = place[order[number]] + digit * known[f"below {number}"]
    block = np.arange(gangs)
    for name, many in zip(along, blocks, strict=True):
        block = block * many + place[name]
    met = np.bincount(block.ravel(), times.ravel(), gangs * prod(blocks)).reshape(gangs, -1)
    made = (met @ _by_block(steps, blocks, whole)).reshape(len(steps), -1)
    return made[:, int(np.argmax(made[0]))] / rounds


def _mean(steps: Steps) -> Steps:
    """Of each kind, over all programs."""
    found: Steps = steps.reshape(len(steps), -1).mean(axis=1)
    return found


def _by_block(steps: Steps, blocks: Sequence[int], whole: Sequence[int]) -> Steps:
    """Steps [kind, block, program in it]; none where a block has no program."""
    size = [many * each for many, each in zip(blocks, whole, strict=True)]
    if size != list(steps.shape[1:]):
        padded = np.zeros((len(steps), *size))
        padded[(slice(None), *(slice(0, many) for many in steps.shape[1:]))] = steps
        steps = padded
    sides = [side for pair in zip(blocks, whole, strict=True) for side in pair]
    turned = [0, *range(1, len(sides) + 1, 2), *range(2, len(sides) + 1, 2)]
    return steps.reshape(len(steps), *sides).transpose(turned).reshape(len(steps), prod(blocks), -1)


def _product(counts: Iterable[Array]) -> Array:
    total: Array = np.ones((), np.int64)
    for count in counts:
        total = total * count
    return total


def shares_left(
    reach: Mapping[str, Reach], extents: Mapping[str, Array], symbols: Mapping[str, Array]
) -> dict[str, float]:
    """Of each dim that masks cut, the share of its values that they leave, in the mean over the values of the other dims.

    `extents`, `symbols`: numbers.
    """
    ones = dict.fromkeys(extents, 1.0)
    found: dict[str, float] = {}
    for dim, left in reach.items():
        needed = {name: size for name, size in symbols.items() if name in left.variables}
        mean = visited(left, dim, ones, {n: e for n, e in extents.items() if n not in reach}, extents, needed).all.mean
        found[dim] = float(mean) / float(extents[dim])
    return found


def _programs(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if count <= MOST_PROGRAMS:
        return np.arange(count)
    return (np.arange(MOST_PROGRAMS) * count) // MOST_PROGRAMS
