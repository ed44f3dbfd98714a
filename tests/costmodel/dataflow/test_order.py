"""The order in which an accelerator's cores walk the grid: a choice of the search, lowered, simulated and priced alike."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch, ordered, rank_of
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups


def small() -> Machine:
    """tpu_v4 with little room between DRAM and its two cores, so that it matters which operand is read again."""
    return load_machine("tpu_v4").with_figures({"levels.cmem.capacity_bytes": 65536.0})


@pytest.mark.parametrize(("m", "n"), [(1024, 256), (256, 1024)])
def test_the_order_decides_what_is_read_again(m: int, n: int) -> None:
    machine, form = small(), normalize(groups.gemm(m, n, 128))
    kernel = summarize(form.fusion)
    schedules = [
        Schedule({"i": 64, "j": 64, "k": 64}, {"core": AtLevel({split: 2})}, order, {"k": "looped"}, pipeline=2)
        for order in (("i", "j"), ("j", "i"))
        for split in "ij"
    ]
    batch = ScheduleBatch.of(schedules)
    assert [batch.row(i) for i in range(4)] == schedules
    cost = DataflowModel().predict(kernel, machine, batch)
    alone = [DataflowModel().predict(kernel, machine, ScheduleBatch.of([one])) for one in schedules]
    np.testing.assert_allclose(cost.seconds, [one.seconds[0] for one in alone])
    runs = [
        simulate(lower(tile(form.fusion, one, outputs=form.outputs), machine), None, machine, values=False)
        for one in schedules
    ]
    np.testing.assert_allclose(cost.dram_bytes, [run.dram_bytes for run in runs], rtol=0.03)
    np.testing.assert_allclose(cost.seconds, [run.seconds for run in runs], rtol=0.15)
    assert len(set(cost.dram_bytes.tolist())) > 1


def test_the_search_may_choose_it() -> None:
    kernel = summarize(normalize(groups.gemm(1024, 256, 128)).fusion)
    found = space(kernel, small())
    knob = next(knob for knob in found.knobs if knob.name == "order")
    assert knob.values == (0, 1)
    codes = found.start()
    codes[0, [k.name for k in found.knobs].index("order")] = 1
    assert found.batch(codes).row(0).order == ("j", "i")
    assert not any(knob.name == "order" for knob in space(kernel, load_machine("h100_sxm")).knobs)


def test_permutations_are_numbered() -> None:
    dims = ("a", "b", "c", "d")
    found = [ordered(dims, rank) for rank in range(24)]
    assert len(set(found)) == 24
    assert found[0] == dims
    assert [rank_of(dims, each) for each in found] == list(range(24))
