"""What a schedule may say, of which kernel and on which machine; what it may not is named in one line, with what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import AtLevel, Schedule
from codesign.ir.tensor import Fusion
from codesign.passes.knobs import Site, check, rooms
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from tests.passes.tiling import groups

PRODUCT, SUM, COPY = groups.gemm(512, 256, 384), groups.reduction(64, 3000, "sum"), groups.element_wise(4096)


def site(group: Fusion, machine: str) -> Site:
    return Site.of(summarize(normalize(group).fusion), load_machine(machine))


@pytest.mark.parametrize(
    ("group", "machine", "schedule", "message"),
    [
        (
            PRODUCT,
            "h100_sxm",
            Schedule(extras={"wraps": 4}),
            r"extras\.wraps: no backend reads this knob; nearest: warps",
        ),
        (PRODUCT, "h100_sxm", Schedule(extras={"pipelne": 2}), "extras.pipelne: .*nearest: pipeline"),
        (PRODUCT, "h100_sxm", Schedule(extras={"pipeline": 2}), "extras.pipeline: no backend reads this knob"),
        (PRODUCT, "h100_sxm", Schedule(levels={"sm": AtLevel({"i": 2})}), "levels.sm.split.i: blocks of h100_sxm"),
        (PRODUCT, "maia100", Schedule(levels={"clster": AtLevel({"i": 2})}), "no such level; nearest: cluster"),
        (PRODUCT, "maia100", Schedule(levels={"core": AtLevel({"k": 2})}), "k is no outer dim of the kernel"),
        (PRODUCT, "maia100", Schedule(levels={"core": AtLevel({"i": 3})}), "needs a divisor of the 4 instances, got 3"),
        (
            PRODUCT,
            "maia100",
            Schedule(levels={"core": AtLevel({"i": 4, "j": 2})}),
            "levels.core: 8 parts do not divide",
        ),
        (PRODUCT, "maia100", Schedule(levels={"core": AtLevel(tile={"i": 4})}), "memories at: cluster"),
        (PRODUCT, "maia100", Schedule(levels={"cluster": AtLevel(tile={"k": 4})}), "k is a reduction dim"),
        (PRODUCT, "maia100", Schedule(levels={"core": AtLevel(order=("i", "j"))}), "memories at: cluster"),
        (PRODUCT, "maia100", Schedule(levels={"cluster": AtLevel(order=("i", "k"))}), "k is a reduction dim"),
        (PRODUCT, "maia100", Schedule(levels={"cluster": AtLevel(stage={"in7": 1})}), "operands: in0"),
        (PRODUCT, "maia100", Schedule(levels={"cluster": AtLevel(stage={"in0": 3})}), "needs 1 or 2 buffers"),
        (
            PRODUCT,
            "tpu_v6e",
            Schedule(levels={"chip": AtLevel(stage={"in0": 1})}),
            "no memory between DRAM and its cores",
        ),
        (PRODUCT, "h100_sxm", Schedule({"ii": 16}), "tiles.ii: the kernel has no such dim; nearest: i; dims: i, j, k"),
        (PRODUCT, "h100_sxm", Schedule({"i": 48}), "tiles.i: needs a power of two up to 1048576, got 48"),
        (PRODUCT, "h100_sxm", Schedule(reduce={"i": "looped"}), "reduce.i: i is no reduction dim.*reduction dims: k"),
        (PRODUCT, "h100_sxm", Schedule(split={"z": 2}), "split.z: the kernel has no such dim"),
        (PRODUCT, "h100_sxm", Schedule(order=("k",)), "order: 'k' is not an outer dim of the kernel; outer dims: i, j"),
        (PRODUCT, "h100_sxm", Schedule(extras={"warps": 64}), "extras.warps: needs 1, 2, 4, 8, 16, 32, got 64"),
        (PRODUCT, "h100_sxm", Schedule(extras={"warps": "4"}), 'extras.warps: needs 1, 2, .*, got "4"'),
        (
            PRODUCT,
            "h100_sxm",
            Schedule(extras={"group": "8"}),
            'extras.group: needs a whole number, 1 or more, got "8"',
        ),
        (PRODUCT, "h100_sxm", Schedule(extras={"persistent": 1}), "extras.persistent: needs 0, got 1; no cost model"),
        (
            PRODUCT,
            "h100_sxm",
            Schedule(extras={"dataflow": "weight_stationary"}),
            "h100_sxm has no choice of dataflows",
        ),
        (
            COPY,
            "h100_sxm",
            Schedule(pipeline=3),
            "pipeline: the kernel has no loop .*leave it out; read here: tile, warps",
        ),
        (COPY, "h100_sxm", Schedule(extras={"group": 4}), "extras.group: a grid of one dim"),
        (SUM, "h100_sxm", Schedule(extras={"partial": 0}), "extras.partial: lanes of h100_sxm always keep"),
        (PRODUCT, "maia100", Schedule(extras={"partial": 0}), "no reduction but in matrix products"),
        (
            PRODUCT,
            "maia100",
            Schedule(extras={"warps": 4}),
            "programs of maia100 have no warps; leave it out; read here: ",
        ),
        (PRODUCT, "maia100", Schedule(extras={"group": 4}), "programs of maia100 walk the grid in its own order"),
        (PRODUCT, "maia100", Schedule(order=("j", "k")), "'k' is not an outer dim of the kernel; outer dims: i, j"),
        (SUM, "systolic_16x16", Schedule(extras={"dataflow": "weight_stationary"}), "the kernel has no matrix product"),
    ],
)
def test_what_nothing_reads_or_what_cannot_be_is_an_error(
    group: Fusion, machine: str, schedule: Schedule, message: str
) -> None:
    with pytest.raises(ScheduleError, match=message) as caught:
        check(schedule, site(group, machine))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("machine", ["h100_sxm", "mi300x", "maia100", "systolic_16x16"])
@pytest.mark.parametrize("group", [PRODUCT, SUM, COPY, groups.softmax(64, 512)])
def test_whatever_a_search_tries_may_be_said(group: Fusion, machine: str) -> None:
    here = site(group, machine)
    offered = space(here.summary, here.machine)
    batch = offered.batch(offered.sample(8, np.random.default_rng(0)))
    for row in range(len(batch)):
        check(batch.row(row), here)
        check(replace(batch.row(row), order=()))


def test_a_file_is_checked_before_there_is_a_kernel() -> None:
    check(Schedule({"anything": 16}, pipeline=9, extras={"warps": 64, "dataflow": "input_stationary", "partial": 0}))
    for extras in ({"wraps": 4}, {"warps": 3}, {"persistent": 1}, {"dataflow": "stationary"}):
        with pytest.raises(ScheduleError, match=rf"extras\.{next(iter(extras))}: "):
            check(Schedule(extras=extras))


def test_every_knob_says_what_it_does() -> None:
    for room in rooms():
        assert room.__doc__
        assert re.fullmatch(r"[a-z_]+", room.name)
