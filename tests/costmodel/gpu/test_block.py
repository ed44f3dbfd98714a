"""Blocks of a batch whose schedules have several texts: how they are taken together does not change what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu import block
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.ir.schedule import Schedule, ScheduleBatch

SIZES = {"M": 1000, "N": 384, "K": 4096}


@pytest.mark.parametrize("name", ["h100_sxm", "mi300x"])
def test_schedules_of_several_texts_cost_the_same_together_apart_and_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = load_machine(name)
    schedules = [
        Schedule({"m": m, "n": n, "k": k}, extras={"warps": warps})
        for m, n, k, warps in ((128, 128, 64, 8), (1, 64, 32, 4), (64, 64, 1, 4), (16, 256, 8192, 4), (32, 8, 128, 2))
    ]
    kernel, model = workloads.gemm(), cost_model_for(machine)

    def seconds(batch: list[Schedule]) -> np.ndarray:
        return np.array(model.predict(kernel, machine, ScheduleBatch.of(batch), SIZES).terms.sum(axis=1))

    together = seconds(schedules)
    assert len(np.unique(together)) == len(schedules)
    alone = np.concatenate([seconds([schedule]) for schedule in schedules])
    monkeypatch.setattr(block, "TOGETHER", 0)
    assert together == pytest.approx(seconds(schedules), rel=1e-6)
    assert together == pytest.approx(alone, rel=1e-6)
