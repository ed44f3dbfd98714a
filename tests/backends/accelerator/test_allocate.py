"""Addresses of sums in the array's own memory."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.program import Matmul
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

EYERISS = load_machine("eyeriss")


def test_sums_that_do_not_live_at_once_share_the_arrays_memory() -> None:
    """Three sets of scores with two slots each and the results, 32 KiB each, in the 84 KiB of Eyeriss' array: so that loads keep their slots."""
    group = groups.attention(2, 256, 128, 128)
    schedule = Schedule(
        {"i": 128, "j": 32, "d": 64, "e": 64}, reduce={"j": "looped", "d": "looped"}, order=("h", "i", "e"), pipeline=2
    )
    form = normalize(group)
    kernel = tile(form.fusion, schedule, outputs=form.outputs)
    program = lower(kernel, EYERISS)
    sums = [
        program.scratch_of(value)
        for value in dict.fromkeys(op.target.source for op in program.instructions() if isinstance(op, Matmul))
    ]
    assert len(sums) == 4
    assert {item.level for item in sums} == {"array"}
    assert sum(item.bytes for item in sums) > 86016 >= program.scratch_bytes("array")
    inputs = groups.random_inputs(group)
    run = simulate(program, inputs, EYERISS)
    np.testing.assert_allclose(run.outputs[0], groups.run_tiles(kernel, inputs)[0], rtol=4e-3, atol=4e-3)
    cost = DataflowModel().predict(summarize(form.fusion), EYERISS, ScheduleBatch.of([schedule]))
    assert cost.details["scratch_bytes"][0] == program.scratch_bytes("core")
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.05)
