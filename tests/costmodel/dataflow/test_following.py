"""Schedules that can't be among the best are not put on a timeline."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.protocol import Limit
from codesign.costmodel.summary import summarize
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from tests.passes.tiling import groups

MAIA = load_machine("maia100")
FEW = 4


@pytest.mark.parametrize("fusion", [groups.gemm(1024, 1024, 512), groups.softmax(2048, 500)], ids=["matmul", "softmax"])
def test_the_best_of_a_batch_are_priced_and_others_no_higher_than_they_are(fusion: Fusion) -> None:
    summary = summarize(normalize(fusion).fusion)
    knobs = space(summary, MAIA)
    batch = knobs.batch(knobs.sample(80, np.random.default_rng(3)))
    every, limited = (DataflowModel().within(Limit(best)).predict(summary, MAIA, batch) for best in (0, FEW))
    fits = np.isfinite(every.seconds)
    assert every.followed.all()
    assert not limited.followed.all(), "some are too slow to be worth a timeline"
    assert np.array_equal(np.isfinite(limited.seconds), fits)
    assert np.array_equal(limited.reason, every.reason)
    assert limited.seconds[limited.followed] == pytest.approx(every.seconds[limited.followed], rel=1e-3)
    assert (limited.seconds[fits] <= every.seconds[fits] * (1.0 + 1e-3)).all()
    assert np.sort(limited.seconds)[:FEW] == pytest.approx(np.sort(every.seconds)[:FEW], rel=1e-3)
    assert limited.seconds[~limited.followed].min() > np.sort(every.seconds)[FEW - 1]


def test_a_batch_goes_on_from_the_best_of_those_before() -> None:
    limit = Limit(2).after(np.array([5.0, 3.0, np.inf]))
    assert limit.beyond == 5.0
    assert limit.after(np.array([4.0])).beyond == 4.0
    assert Limit(3).after(np.array([5.0, 3.0])).beyond == np.inf, "fewer are known than are wanted"
    assert Limit(2).after(np.array([3.0, 3.0])).beyond > 3.0, "those that are as good are wanted too"
