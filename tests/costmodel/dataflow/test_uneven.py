"""Cores and loops that a mask gives uneven work: the model follows the core with most of it, and the steps that there are in the mean."""

from __future__ import annotations

import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups
from tests.passes.tiling.test_bounds import window


def priced_and_run(machine: str, group: Fusion, schedule: Schedule) -> tuple[float, float]:
    target, form = load_machine(machine), normalize(group)
    cost = cost_model_for(target).predict(summarize(form.fusion), target, ScheduleBatch.of([schedule]))
    program = lower(tile(form.fusion, schedule, outputs=form.outputs), target)
    return float(cost.seconds[0]), simulate(program, None, target, values=False).seconds


@pytest.mark.parametrize("order", [("i", "h", "e"), ("h", "i", "e"), ("e", "h", "i")])
@pytest.mark.parametrize("split", [{}, {"h": 8}, {"i": 4}, {"h": 2, "i": 8}])
def test_a_triangle_takes_what_its_slowest_core_does(order: tuple[str, ...], split: dict[str, int]) -> None:
    """16 heads of 16 blocks of rows on 64 cores: with rows fastest and no split a core has the same rows of each head."""
    group = groups.attention(16, 1024, 1024, 64, groups.below())
    levels = {"cluster": AtLevel(split=split)} if split else {}
    tiles = {"i": 64, "j": 64, "d": 64, "e": 64}
    schedule = Schedule(tiles, levels=levels, order=order, reduce={"d": "resident"}, pipeline=2)
    predicted, simulated = priced_and_run("maia100", group, schedule)
    assert predicted == pytest.approx(simulated, rel=0.07)


@pytest.mark.parametrize("machine", ["trainium2", "gemmini_16x16", "tpu_v4"])
@pytest.mark.parametrize(("rows", "steps"), [(32, 512), (32, 256), (64, 256)])
def test_a_loop_that_few_programs_go_through_twice(machine: str, rows: int, steps: int) -> None:
    """Most rows of a window lie in one step of such a loop, some in two: it takes what it does in the mean, not two steps in all of them."""
    tiles = {"i": rows, "j": steps, "d": 32, "e": 64}
    schedule = Schedule(tiles, reduce={"j": "looped", "d": "looped"}, pipeline=1)
    predicted, simulated = priced_and_run(machine, groups.attention(4, 1024, 1024, 64, window(128)), schedule)
    assert predicted == pytest.approx(simulated, rel=0.25)
