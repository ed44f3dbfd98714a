"""Cores that a mask gives uneven work: the model follows the one with most of it, as the simulator does."""

from __future__ import annotations

import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups


@pytest.mark.parametrize("order", [("i", "h", "e"), ("h", "i", "e"), ("e", "h", "i")])
@pytest.mark.parametrize("split", [{}, {"h": 8}, {"i": 4}, {"h": 2, "i": 8}])
def test_a_triangle_takes_what_its_slowest_core_does(order: tuple[str, ...], split: dict[str, int]) -> None:
    """16 heads of 16 blocks of rows on 64 cores: with rows fastest and no split a core has the same rows of each head."""
    machine = load_machine("maia100")
    group = normalize(groups.attention(16, 1024, 1024, 64, groups.below()))
    levels = {"cluster": AtLevel(split=split)} if split else {}
    tiles = {"i": 64, "j": 64, "d": 64, "e": 64}
    schedule = Schedule(tiles, levels=levels, order=order, reduce={"d": "resident"}, pipeline=2)
    cost = cost_model_for(machine).predict(summarize(group.fusion), machine, ScheduleBatch.of([schedule]))
    program = lower(tile(group.fusion, schedule, outputs=group.outputs), machine)
    assert cost.seconds[0] == pytest.approx(simulate(program, None, machine, values=False).seconds, rel=0.07)
