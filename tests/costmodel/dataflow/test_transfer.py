"""What a transfer costs when the address goes along the digits of a dim: by hand, and against the simulator's own account."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.dataflow.runs import Windows, share_inside, walk_of
from codesign.costmodel.machine import load_machine
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import summarize
from codesign.ir.index import index
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups


def group(text: str) -> Normalized:
    (function,) = parse(text).functions.values()
    return normalize(next(op for op in function.body.ops if isinstance(op, Fusion)))


def heads(count: int, width: int, rows: int, columns: int, dtype: str = "bf16") -> Normalized:
    """A product whose left operand is read as it lies before a transpose and a reshape."""
    k = count * width
    return group(f"""
func @heads(%x: {dtype}[{count}, {rows}, {width}], %w: {dtype}[{columns}, {k}]) {{
  %o = fusion {{
    %h = compute {dtype}[i: {rows}, j: {columns}] sum(k: {k}) in f32 {{
      f32(%x[k // {width}, i, k % {width}]) * f32(%w[j, k])
    }}
    yield %h
  }}
  return %o
}}
""")


def both(
    form: Normalized, machine: str, schedules: list[Schedule]
) -> tuple[CostBatch, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """The model's answer for some schedules, and the bytes that the simulator moves."""
    target = load_machine(machine)
    cost = DataflowModel().predict(summarize(form.fusion), target, ScheduleBatch.of(schedules))
    runs = [
        simulate(lower(tile(form.fusion, s, outputs=form.outputs), target), None, target, values=False)
        for s in schedules
    ]
    return cost, np.array([run.dram_bytes for run in runs])


def test_addresses_are_taken_apart_into_digits() -> None:
    k = np.arange(12)
    assert walk_of(k * 3) == ((3, 12.0),)
    assert walk_of(k // 4 * 100 + k % 4) == ((1, 4.0), (100, 3.0))
    assert walk_of(k // 6 * 100 + k // 2 % 3 * 7 + k % 2) == ((1, 2.0), (7, 3.0), (100, 2.0))
    assert walk_of((k + 2) // 4 * 100 + (k + 2) % 4) == ((1, 3.0), (97, 4.0)), "a piece that is cut counts as a piece"
    assert walk_of(k[:1]) == ()


def test_windows_that_lie_alike_count_together() -> None:
    places = np.arange(24) // 6 * 100 + np.arange(24) % 6
    assert Windows(places).of(6) == [(1.0, ((1, 6.0),))]
    assert Windows(places).of(12) == [(1.0, ((1, 6.0), (100, 2.0)))]
    ways = {way: share for share, way in Windows(places).of(4)}
    assert ways[(1, 4.0),] == pytest.approx(2 / 3), "of six windows of four, two lie across the end of a piece"
    assert sum(ways.values()) == pytest.approx(1.0)


def test_all_windows_are_counted_and_the_cut_one_by_itself() -> None:
    places = np.arange(49 * 3) // 49 * 1000 + np.arange(49 * 3) % 49
    *whole, (cut, way) = Windows(places).of(32)
    assert (cut, way) == (0.2, ((1, 19.0),))
    assert {way: share for share, way in whole} == {((1, 32.0),): 0.4, ((1, 16.0), (968, 2.0)): 0.4}


def test_windows_with_as_many_pieces_are_told_apart_by_how_long_these_are() -> None:
    """One that begins with a piece takes its digits as they are, others pieces of their mean length: a DMA engine walks them differently."""
    places = np.arange(196) // 49 * 10000 + np.arange(196) // 7 % 7 * 100 + np.arange(196) % 7
    first, second, third = (walk_of(places[start:][:64]) for start in (0, 64, 128))
    assert [len(first), len(second)] == [3, 2]
    assert second == third
    *whole, (cut, _) = Windows(places).of(64)
    assert whole == [(0.5, second), (0.25, first)]
    assert cut == 0.25


def test_share_of_a_padded_read_that_is_inside() -> None:
    y, r = index("y"), index("r")
    whole = share_inside((y + r - 1,), (index(8),), (("r", 3), ("y", 8)), ())
    assert whole == pytest.approx((3 * 8 - 2) / 24)
    digits = share_inside(((y // 4) + (r // 2) - 1, (y % 4)), (index(2), index(4)), (("r", 6), ("y", 8)), ())
    assert digits == pytest.approx(4 / 6)


@pytest.mark.parametrize("machine", ["maia100", "tpu_v4", "systolic_16x16"])
@pytest.mark.parametrize("width", [32, 64, 96])
def test_a_read_through_a_reshape_moves_whole_pieces(machine: str, width: int) -> None:
    form = heads(4, width, 128, 64)
    schedules = [
        Schedule({"i": i, "j": 64, "k": k}, reduce={"k": "looped"}, pipeline=2)
        for i in (32, 128)
        for k in (32, 64, 128)
    ]
    cost, moved = both(form, machine, schedules)
    np.testing.assert_allclose(cost.dram_bytes, moved, rtol=0.02)
    plain, _ = both(normalize(groups.gemm(128, 64, 4 * width)), machine, schedules)
    least = plain.dram_bytes - 64 * 2 * -(-128 // np.array([s.tiles["i"] for s in schedules]))
    assert (cost.dram_bytes <= 1.4 * least).all(), "no element is charged a line of memory"


@pytest.mark.parametrize("machine", ["maia100", "tpu_v4"])
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_move_what_the_simulator_moves(machine: str, stride: int) -> None:
    form = normalize(groups.max_pool(2, 8, 28, 3, stride))
    schedules = [
        Schedule({"nc": nc, "y": y, "x": 16, "r": 2, "s": s}, reduce={"r": "looped", "s": "looped"})
        for nc, y, s in ((8, 4, 1), (4, 8, 2), (16, 2, 4))
    ]
    cost, moved = both(form, machine, schedules)
    np.testing.assert_allclose(cost.dram_bytes, moved, rtol=0.01)


def test_cores_that_meet_no_cut_tile_set_the_pace() -> None:
    """520 rows of a sum over two cores, a tile of 512 and one of 8: as long as 1024 rows take, with half of the bytes."""
    schedule = Schedule({"i": 512, "j": 256}, {"core": AtLevel({"i": 2})}, reduce={"j": "looped"}, pipeline=2)

    def rows(count: int) -> CostBatch:
        form = group(f"""
func @total(%x: f32[{count}, 1024]) {{
  %o = fusion {{
    %s = compute f32[i: {count}] sum(j: 1024) {{ %x[i, j] }}
    yield %s
  }}
  return %o
}}
""")
        return both(form, "tpu_v4", [schedule])[0]

    few, many = rows(520), rows(1024)
    assert few.dram_bytes[0] == pytest.approx(many.dram_bytes[0] * 520 / 1024, rel=0.01)
    assert few.seconds[0] > 0.6 * many.seconds[0]
