"""The two groups that a split reduction becomes, and what every schedule of them says.

On a GPU they are two launches. The cores of an accelerator go on to the second group when all are done with the first, in one launch, and the
parts rest in a memory near them where there is room (`costmodel.dataflow.resting`): so a reduction that is split in space is merged among cores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from codesign.costmodel.dataflow.resting import room_for
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.summary import KernelSummary
from codesign.ir.core import Value
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import NOTHING, AtLevel, Schedule, operand_name, result_name
from codesign.ir.tensor import Fusion
from codesign.passes.knobs import Site
from codesign.passes.knobs.tile import longest_tiles
from codesign.passes.normalize import normalize
from codesign.passes.tiling.cutting import Cutting

if TYPE_CHECKING:
    from codesign.passes.schedule.tuner import Tuner


@dataclass(frozen=True)
class Half:
    """One of the two groups, and what its schedules have in common."""

    fusion: Fusion
    common: Schedule = NOTHING


def halves(tuner: Tuner, fusion: Fusion, cutting: Cutting) -> tuple[Half, Half]:
    """A group that is cut."""
    partial, combination = cutting.halves(fusion)
    if tuner.machine.kind == "gpu":
        return Half(partial), Half(combination)
    place = room_for(target_of(tuner.machine), _bytes(partial.results, tuner))
    results = [result_name(number) for number in range(len(partial.results))]
    uses = normalize(combination, tuner.bounds).fusion.uses()
    operands = [operand_name(uses.index(value)) for value in partial.results if value in uses]
    return Half(partial, _staging(place, results)), Half(combination, _staging(place, operands, joined=True))


@dataclass(frozen=True)
class InTwo:
    """Seconds of a group as two kernels one after the other, where these are `priced`; else what each takes at the least, as far as was needed to
    see that a limit is not met."""

    first: float
    second: float
    priced: bool = True

    @property
    def seconds(self) -> float:
        return self.first + self.second


def in_two(tuner: Tuner, groups: tuple[Half, Half], launch: float, limit: float, known: Iterable[InTwo] = ()) -> InTwo:
    """A group as two kernels, priced to the end where that is below a limit.

    `known`: other ways to cut the same group whose kernels none of this one's beat, the first by the first and the second by the second.
    """
    starts = (launch, seconds_between(tuner, launch))
    prices = [tuner.price_of_whole(group.fusion, group.common) for group in groups]
    shortest = [
        start + shortest_seconds(tuner) if price is None else price for start, price in zip(starts, prices, strict=True)
    ]
    if sum(shortest) >= limit:
        return InTwo(shortest[0], shortest[1], priced=False)
    forms = {
        group: tuner.form(group.fusion, common=group.common)
        for group, price in zip(groups, prices, strict=True)
        if price is None
    }
    seconds = [
        start + least_seconds(tuner, forms[group].summary) if price is None else price
        for start, group, price in zip(starts, groups, prices, strict=True)
    ]
    for other in known:
        seconds = [max(pair) for pair in zip(seconds, (other.first, other.second), strict=True)]
    for place, (group, price) in enumerate(zip(groups, prices, strict=True)):
        if sum(seconds) >= limit:
            break
        if price is None:
            price = tuner.price_whole(group.fusion, forms[group], limit - seconds[1 - place])
        seconds[place] = price
    first, second = seconds
    return InTwo(first, second, first + second < limit)


def seconds_between(tuner: Tuner, launch: float) -> float:
    """What the second group adds at the least: a launch, or that all cores meet."""
    return launch if tuner.machine.kind == "gpu" else target_of(tuner.machine).meeting_seconds


def least_seconds(tuner: Tuner, summary: KernelSummary, *, whole: bool = False) -> float:
    """What no schedule of a kernel beats, besides its start; of a group that stays one kernel (`whole`) with what its programs do again."""
    if isinstance(tuner.model, GpuTileModel):
        sizes = summary.sizes(tuner.sizes)
        tiles = longest_tiles(Site.of(summary, tuner.machine, sizes)) if whole and not summary.strands else None
        return tuner.model.least_seconds(summary, tuner.machine, sizes, tiles)
    return max(tuner.bound(summary), shortest_seconds(tuner))


def shortest_seconds(tuner: Tuner) -> float:
    """What a kernel takes at the least besides its start, whatever it does; 0 where no model says."""
    if isinstance(tuner.model, GpuTileModel):
        return tuner.model.first_data_seconds(tuner.machine)
    if tuner.machine.kind == "gpu" or tuner.model.fidelity == 0:
        return 0.0
    target = target_of(tuner.machine)
    return float(target.shortest_clocks / target.clock_hz)


def check_joins(schedule: Schedule, common: Schedule, name: str) -> None:
    """ScheduleError for a given schedule that joins a program to the one before, or leaves a result near the cores, where the other half of a
    split does not agree."""
    for path, given, wanted in (
        ("extras.joined", schedule.extra("joined", 0), common.extra("joined", 0)),
        ("levels.*.stage", _resting(schedule), _resting(common)),
    ):
        if given != wanted:
            raise ScheduleError(
                f"@{name}: {path}: says {given or 'nothing'} where the split of its reduction makes it {wanted or 'nothing'}",
                hint="only halves of a split reduction are joined, and leave results near the cores",
            )


def _resting(schedule: Schedule) -> str:
    """What a schedule leaves near the cores for the program after it, or takes from there."""
    joined = bool(schedule.extra("joined", 0))
    return ", ".join(
        f"{place}.{name}"
        for place, level in sorted(schedule.levels.items())
        for name in sorted(level.stage)
        if joined or name.startswith(result_name(""))
    )


def _staging(place: str, names: list[str], *, joined: bool = False) -> Schedule:
    levels = {place: AtLevel(stage=dict.fromkeys(names, 1))} if place else {}
    return Schedule(levels=levels, extras={"joined": 1} if joined else {})


def _bytes(values: tuple[Value, ...], tuner: Tuner) -> int:
    """Bytes of some results; more than any memory has where a size is not known."""
    try:
        return sum(
            int(prod(size.evaluate(tuner.sizes) for size in value.shape) * value.type.dtype.bytes) for value in values
        )
    except KeyError:
        return 1 << 62
