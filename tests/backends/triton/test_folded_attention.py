"""Attention folded into one loop, as the compiler of each target has it."""

from __future__ import annotations

import pytest

from codesign.backends.triton import compile_aot
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.passes.tiling import groups

FOLDED = {"j": "fold", "d": "resident"}


@pytest.mark.parametrize(
    ("width", "rows", "keys", "warps"), [(64, 128, 64, 4), (128, 128, 64, 8), (128, 128, 128, 8), (256, 64, 64, 8)]
)
@pytest.mark.slow
def test_nothing_is_spilled_and_the_price_knows_what_is_held(width: int, rows: int, keys: int, warps: int) -> None:
    """Registers within a fifth of what ptxas takes for sm_90, shared memory to the byte."""
    form = normalize(groups.attention(8, 1024, 1024, width))
    schedule = Schedule(
        {"i": rows, "j": keys, "d": width, "e": width}, reduce=FOLDED, pipeline=2, extras={"warps": warps}
    )
    made = compile_aot(lower(form.fusion, schedule, outputs=form.outputs), "sm_90")
    assert made.spills == 0
    machine = load_machine("h100_sxm")
    cost = cost_model_for(machine).predict(summarize(form.fusion), machine, ScheduleBatch.of([schedule]))
    assert cost.details["registers"][0] == pytest.approx(made.registers, rel=0.2)
    assert cost.details["shared_bytes"][0] == made.shared_bytes


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
@pytest.mark.slow
def test_other_targets_take_it(target: str) -> None:
    form = normalize(groups.attention(8, 1024, 1024, 64))
    schedule = Schedule({"i": 64, "j": 64, "d": 64, "e": 64}, reduce=FOLDED, pipeline=2, extras={"warps": 4})
    assert compile_aot(lower(form.fusion, schedule, outputs=form.outputs), target).spills == 0
