"""Loops and programs that wait for memory: the model follows as many of their steps as come round to where they were, to a few percent."""

from __future__ import annotations

import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups


def off(machine: str, group: Fusion, tiles: dict[str, int], depth: int) -> float:
    """Predicted over simulated seconds, less one."""
    target, form = load_machine(machine), normalize(group)
    schedule = Schedule(tiles, reduce={"j": "looped"}, pipeline=depth)
    cost = DataflowModel().predict(summarize(form.fusion), target, ScheduleBatch.of([schedule]))
    program = lower(tile(form.fusion, schedule, outputs=form.outputs), target)
    return float(cost.seconds[0]) / simulate(program, None, target, values=False).seconds - 1.0


@pytest.mark.parametrize("machine", ["tpu_v3", "tpu_v4", "trainium2", "gaudi3"])
@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("width", [448, 500, 1024])
def test_steps_in_flight_come_together(machine: str, depth: int, width: int) -> None:
    """Three loops after each other, of 7, 8 or 16 steps: the last of those in flight together take nothing of their own."""
    assert off(machine, groups.softmax(1024, width), {"i": 16, "j": 64}, depth) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("rows", [2, 8])
def test_programs_of_few_steps_go_through_full_queues(rows: int, depth: int) -> None:
    """Two steps do not fill the slots, and queues are full now in one program and now in another."""
    assert off("tpu_v4", groups.softmax(256, 200), {"i": rows, "j": 128}, depth) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("rows", [16, 128])
def test_row_norms_of_long_rows(rows: int) -> None:
    assert off("tpu_v3", groups.layer_norm(1024, 1024), {"i": rows, "j": 128}, 4) == pytest.approx(0.0, abs=0.03)
