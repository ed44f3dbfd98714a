"""Strands: parts of a group without a loop in common, whose programs lie side by side on one grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel.features import features
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import summarize
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError, ScheduleError, VerificationError
from codesign.ir.interpreter import run_kernel
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.text import parse, print_module
from codesign.ir.tiling.strands import restricted, strands
from codesign.ir.verify import verify
from codesign.passes.schedule.tuner import tune
from codesign.passes.tile import lower
from tests.passes.tiling.groups import products


def tiles(rows: int, columns: list[int], depth: int, further: int = 0) -> dict[str, int]:
    found = {"m": further} if further else {}
    for n, width in enumerate(columns):
        found |= {f"i{n}": rows, f"j{n}": width, f"k{n}": depth}
    return found


def test_parts_that_share_a_loop_or_a_value_are_one_strand() -> None:
    fusion = products(40, 32, [64, 16], further=100)
    found = strands(fusion)
    assert [[op.result.name for op in strand.fusion.computes] for strand in found] == [["a0"], ["a1", "e"], ["c"]]
    assert [strand.results for strand in found] == [(0,), (1,), (2,)]
    whole = Schedule(tiles(16, [32, 16], 16, 64), order=("j1", "i1", "m"), pipeline=3, extras={"warps": 4})
    own = restricted(whole, found[1].fusion)
    assert (own.tiles, own.order, own.pipeline, own.extras) == (
        {"i1": 16, "j1": 16, "k1": 16},
        ("j1", "i1"),
        3,
        {"warps": 4},
    )
    assert len(strands(found[1].fusion)) == 1


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_values_and_text(data: st.DataObject) -> None:
    def draw(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    rows, depth, widths, further = draw(1, 24), draw(1, 30), [draw(1, 30) for _ in range(draw(2, 3))], draw(0, 50)
    sizes = {dim: 1 << draw(2, 5) for dim in tiles(1, widths, 1, 1) if further or dim != "m"}
    depths = {f"k{n}": data.draw(st.sampled_from(["looped", "resident"])) for n in range(len(widths))}
    schedule = Schedule(sizes, reduce=depths, pipeline=draw(1, 3), extras={"group": draw(1, 4)})
    kernel = lower(products(rows, depth, widths, further=further), schedule, name="side_by_side")
    text = print_module(Module(kernels={"side_by_side": kernel}))
    again = parse(text)
    verify(again)
    assert print_module(again) == text
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal([s.constant for s in value.shape]).astype(np.float32) for value in kernel.inputs]
    outputs = [np.full([s.constant for s in value.shape], np.nan, np.float32) for value in kernel.results]
    run_kernel(again.kernels["side_by_side"], [*inputs, *outputs])
    x = inputs[0].astype(np.float64)
    wanted = [x @ inputs[1 + n].T.astype(np.float64) + (n == len(widths) - 1) for n in range(len(widths))]
    wanted += [np.exp(inputs[-1].astype(np.float64))] if further else []
    for found, right in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


def test_the_whole_does_what_its_strands_do() -> None:
    fusion = products(100, 64, [64, 48], further=500)
    schedule = Schedule(tiles(32, [32, 16], 16, 128), pipeline=2)
    whole = features(lower(fusion, schedule)).at({})
    parts = [features(lower(s.fusion, restricted(schedule, s.fusion))).at({}) for s in strands(fusion)]
    assert whole.programs == sum(part.programs for part in parts) == 8 + 12 + 4
    for name in ("load_bytes", "store_bytes", "masks"):
        assert getattr(whole, name) * whole.programs == pytest.approx(sum(getattr(p, name) * p.programs for p in parts))
    assert whole.products["f32"] * whole.programs == pytest.approx(
        sum(p.products.get("f32", 0) * p.programs for p in parts)
    )
    assert whole.trips["kk0"] * whole.programs == 4 * 8
    assert whole.live_bytes == max(part.live_bytes for part in parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("from 8", "from 9"), "begins at program 9, must be 8"),
        (("grid(number: 24)", "grid(number: 25)"), "its bands end at program 24 of 25"),
        (("grid(number: 24)", "grid(number: 12, other: 2)"), "on a grid of 2 dims"),
        (("band number from 8", "band other from 8"), "counts programs by 'other'"),
        (("(pi1: 4,", "(number: 4,"), "in use outside"),
    ],
)
def test_bands_share_out_all_programs(change: tuple[str, str], message: str) -> None:
    schedule = Schedule(tiles(32, [32, 16], 16, 128))
    text = print_module(Module(kernels={"k": lower(products(100, 64, [64, 48], further=500), schedule)}))
    assert change[0] in text
    with pytest.raises(VerificationError, match=message):
        verify(parse(text.replace(*change)))


def test_a_schedule_names_no_other_dims() -> None:
    with pytest.raises(ScheduleError, match="order: 'k0' is not an outer dim"):
        lower(products(16, 16, [16, 16]), Schedule(order=("k0",)))
    with pytest.raises(ScheduleError, match=r"tiles\.z: the kernel has no such dim"):
        lower(products(16, 16, [16, 16]), Schedule({"z": 4}))


def price(rows: int, columns: list[int], warps: int = 8, **more: int) -> CostBatch:
    machine = load_machine("h100_sxm")
    fusion = products(rows, 4096, columns, "bf16", **more)
    schedule = Schedule(
        tiles(min(rows, 128), [256 if rows > 64 else 64] * len(columns), 64, 512 if more else 0),
        pipeline=4,
        extras={"warps": warps, "group": 8},
    )
    return cost_model_for(machine).predict(summarize(fusion), machine, ScheduleBatch.of([schedule]))


@pytest.mark.parametrize(("rows", "within"), [(4096, 0.02), (512, 0.03), (64, 0.1)])
def test_equal_strands_take_what_one_product_of_all_their_columns_takes(rows: int, within: float) -> None:
    warps = 8 if rows > 64 else 4
    beside, one = price(rows, [4096, 1024, 1024], warps), price(rows, [6144], warps)
    assert beside.seconds[0] == pytest.approx(one.seconds[0], rel=within)
    assert beside.terms.sum() == pytest.approx(beside.seconds[0])
    assert beside.low[0] < beside.seconds[0] < beside.high[0]
    assert beside.details["grid"][0] == one.details["grid"][0]
    assert beside.details["registers"][0] == pytest.approx(one.details["registers"][0], abs=16)


def test_no_less_than_the_longest_and_no_more_than_one_after_the_other() -> None:
    alone = [price(4096, [4096]), price(4096, [1024])]
    both = price(4096, [4096, 1024])
    assert max(cost.seconds[0] for cost in alone) < both.seconds[0] < sum(cost.seconds[0] for cost in alone)
    small = price(4096, [4096], further=100_000)  # so little beside it costs no launch of its own
    assert small.seconds[0] == pytest.approx(alone[0].seconds[0], rel=0.02)


def test_a_strand_that_does_not_fit_leaves_no_room_for_the_others() -> None:
    machine = load_machine("h100_sxm")
    schedule = Schedule(tiles(128, [128, 256], 256), pipeline=4, extras={"warps": 8})
    cost = cost_model_for(machine).predict(
        summarize(products(4096, 4096, [1024, 1024], "bf16")), machine, ScheduleBatch.of([schedule])
    )
    assert np.isinf(cost.seconds[0])
    assert "shared memory" in cost.reason[0]


def test_tuned_together_as_each_alone() -> None:
    machine = load_machine("h100_sxm")
    both = tune(products(2048, 2048, [2048, 512], "bf16"), machine)
    alone = tune(products(2048, 2048, [2048], "bf16"), machine)
    assert both.schedule.tiles["i0"] == alone.schedule.tiles["i0"]
    assert both.schedule.extras["warps"] == alone.schedule.extras["warps"]
    assert both.seconds < 1.5 * alone.seconds


def test_an_accelerator_declines() -> None:
    with pytest.raises(CodesignError, match="side by side: every core of an accelerator walks one loop nest"):
        tune(products(128, 64, [64, 32]), load_machine("maia100"))
