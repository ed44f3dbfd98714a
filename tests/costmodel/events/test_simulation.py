"""The event simulation against closed forms, conservation laws and the roofline."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel import workloads
from codesign.costmodel.events import EventModel, Timeline, simulate, simulation
from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.gpu.parameters import Parameters
from codesign.costmodel.gpu.streaming import REQUEST_CLOCKS
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostModel
from codesign.costmodel.roofline import Roofline
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import MachineError, ScheduleError
from codesign.ir.schedule import Schedule, ScheduleBatch
from tests import readers

H100 = load_machine("h100_sxm")
SMS = 132
GEMM = workloads.gemm("bf16")
IDEAL = Parameters(
    tensor_efficiency=1.0,
    tile_overhead=0.0,
    l2_efficiency=1.0,
    dram_efficiency=1.0,
    write_gap=0.0,
    sharpness=12.0,
    vector_efficiency=1.0,
    warm=0.0,
)


def tiled(m: int, n: int, k: int, pipeline: int = 4, warps: int = 8, group: int = 8, **extras: int) -> Schedule:
    return Schedule(
        tiles={"m": m, "n": n, "k": k},
        order=("m", "n"),
        reduce={"k": "looped"},
        pipeline=pipeline,
        extras={"warps": warps, "group": group, **extras},
    )


def gemm(m: int, n: int, k: int) -> dict[str, int]:
    return {"M": m, "N": n, "K": k}


def rows(warps: int = 4) -> Schedule:
    return Schedule(tiles={"t": 1, "n": 1024}, extras={"warps": warps})


# -- closed forms ---------------------------------------------------------------------------------------------------
def test_one_block_takes_its_fill_and_its_multiply_adds() -> None:
    """A lone block is bound by its SM's tensor unit: launch, fill, then 2mnk over 1/132 of the peak."""
    seen = simulate(GEMM, H100, tiled(128, 256, 64, 3), gemm(128, 256, 65536), IDEAL)
    peak = H100.burst_rate("tensor", "bf16") or 0.0
    multiply = 2.0 * 128 * 256 * 65536 / (peak / SMS)
    assert seen.terms["tensor"] == pytest.approx(multiply, rel=0.02)
    assert seen.seconds == pytest.approx(multiply, rel=0.03)
    assert seen.idle == pytest.approx(1.0 - 1.0 / SMS)


def test_a_long_copy_runs_at_the_bandwidth_of_dram() -> None:
    seen = simulate(workloads.add(), H100, rows(), {"T": 65536, "N": 4096}, IDEAL)
    bytes_moved = 3 * 65536 * 4096 * 2
    bandwidth = H100.need(H100.level("dram").bandwidth, "dram")
    assert seen.dram_read_bytes + seen.dram_write_bytes == pytest.approx(bytes_moved)
    assert seen.seconds == pytest.approx(bytes_moved / bandwidth, rel=0.03)
    assert seen.busy["dram"] > 0.97
    assert seen.bound in ("dram", "store")


def test_one_block_too_many_costs_a_wave() -> None:
    full = simulate(GEMM, H100, tiled(128, 256, 64), gemm(128 * SMS, 256, 4096))
    over = simulate(GEMM, H100, tiled(128, 256, 64), gemm(128 * (SMS + 1), 256, 4096))
    work = full.seconds - full.terms["launch"]
    assert full.waves == 1.0
    assert full.idle == pytest.approx(0.0, abs=1e-9)
    # the last block has the chip to itself: no contention for L2, so somewhat less than another whole wave
    assert 1.4 * work < over.seconds - over.terms["launch"] <= 2.05 * work
    assert over.idle > 0.3


def test_half_the_sms_idle_when_the_grid_is_half_a_wave() -> None:
    seen = simulate(GEMM, H100, tiled(128, 256, 64), gemm(128 * SMS // 2, 256, 4096))
    assert seen.idle == pytest.approx(0.5, abs=0.01)


def test_resident_blocks_hide_each_others_latency() -> None:
    """Without prefetching, two blocks on an SM take turns: one waits for operands, the other computes."""
    wide = H100.with_figures({"levels.l2.bandwidth": 4.0 * H100.need(H100.level("l2").bandwidth, "l2")})
    one, two = gemm(128 * 12, 128 * 11, 8192), gemm(128 * 24, 128 * 11, 8192)
    lone, pair = (simulate(GEMM, wide, tiled(128, 128, 64, 1), sizes, IDEAL) for sizes in (one, two))
    assert pair.blocks_per_sm >= 2
    assert pair.seconds < 1.2 * lone.seconds


def test_a_pipeline_hides_latency_within_a_block() -> None:
    times = [simulate(GEMM, H100, tiled(128, 128, 64, stages), gemm(2048, 1024, 4096)).seconds for stages in (1, 2, 4)]
    assert times[0] > times[1] > times[2]


def test_splitting_the_reduction_fills_an_empty_chip() -> None:
    sizes = gemm(64, 256, 65536)
    plain, split = tiled(64, 128, 64), replace(tiled(64, 128, 64), split={"k": 32})
    one, many = simulate(GEMM, H100, plain, sizes), simulate(GEMM, H100, split, sizes)
    assert (one.grid, many.grid) == (2, 64)
    assert many.terms["reduction"] > 0.0 == one.terms["reduction"]
    assert many.seconds < 0.2 * one.seconds


def test_a_persistent_kernel_does_not_fill_its_pipeline_again() -> None:
    sizes = gemm(4096, 4096, 512)
    plain, persistent = (simulate(GEMM, H100, tiled(128, 256, 64, persistent=on), sizes, IDEAL) for on in (0, 1))
    assert persistent.seconds < plain.seconds
    assert sum(span.phase == "fill" and span.end > span.start for span in persistent.spans) == 1
    overlapped = simulate(GEMM, H100, tiled(128, 256, 64, persistent=1, warp_specialize=1), sizes, IDEAL)
    assert overlapped.seconds < persistent.seconds


def test_walking_tiles_in_groups_saves_traffic() -> None:
    sizes = gemm(16384, 16384, 4096)
    narrow, square = (simulate(GEMM, H100, tiled(128, 128, 64, group=n), sizes) for n in (1, 12))
    assert square.dram_read_bytes < 0.6 * narrow.dram_read_bytes
    least = 2 * 16384 * 4096 * 2
    assert square.dram_read_bytes >= least


def test_a_loop_that_waits_for_its_loads_overlaps_neither_requests_nor_dram() -> None:
    """One block a row that walks along it with loads of two bytes a thread: requests and DRAM add up."""
    walking = Schedule({"t": 1, "n": 1024}, pipeline=1, extras={"warps": 32, "access_bytes": 2, "loop.n": 1})
    quick = Schedule({"t": 1, "n": 1024}, pipeline=1, extras={"warps": 4, "access_bytes": 16})
    sizes = {"T": 16384, "N": 4096}
    slow, fast = (
        simulate(workloads.add(), H100, schedule, sizes, IDEAL, compiled=False) for schedule in (walking, quick)
    )
    vector = H100.unit("vector").clock_hz.value or 1.0
    requests = 3 * 16384 * 4096 * 2 / (2 * 32) * REQUEST_CLOCKS / vector / SMS
    stream = 3 * 16384 * 4096 * 2 / H100.need(H100.level("dram").bandwidth, "dram")
    assert fast.seconds == pytest.approx(stream, rel=0.1)
    assert slow.seconds >= requests + stream
    assert slow.seconds < 1.4 * (requests + stream)


def test_the_kernel_does_not_end_before_its_longest_block() -> None:
    sizes = gemm(128 * SMS // 2, 256, 8192)
    even = simulate(GEMM, H100, tiled(128, 256, 64), sizes)
    skewed = simulate(GEMM, H100, tiled(128, 256, 64), {**sizes, "skew": 2})
    launch = even.terms["launch"]
    assert skewed.seconds - launch == pytest.approx(2.0 * (even.seconds - launch), rel=1e-6)


# -- laws -----------------------------------------------------------------------------------------------------------
def test_each_block_runs_once_and_places_never_overlap() -> None:
    seen = simulate(GEMM, H100, tiled(128, 128, 64, 2), gemm(5000, 3000, 700))
    mains = [span for span in seen.spans if span.phase == "main"]
    blocks = [b for span in mains for b in range(span.block, span.block + span.sms * span.blocks)]
    assert sorted(blocks) == list(range(seen.grid))
    places = defaultdict(list)
    for span in seen.spans:
        for sm in range(span.sm, span.sm + span.sms):
            places[sm, span.slot].append((span.start, span.end))
    for spans in places.values():
        spans.sort()
        assert all(left[1] <= right[0] + 1e-15 for left, right in pairwise(spans))
    assert {sm for sm, _ in places} <= set(range(SMS))
    assert max(end for spans in places.values() for _, end in spans) == pytest.approx(seen.seconds)


def test_the_trace_shows_every_phase_of_every_block() -> None:
    seen = simulate(GEMM, H100, tiled(128, 128, 64), gemm(4096, 4096, 4096))
    trace = seen.to_perfetto()
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    mains = [event["args"]["blocks"] for event in slices if event["name"] == "main"]
    assert sorted(first for first, last in mains if first == last) == list(range(1024))
    assert all(event["dur"] >= 0.0 and 1 <= event["pid"] <= SMS for event in slices)
    assert readers.slices_of_perfetto(trace["traceEvents"]) == len(slices)
    assert readers.slices_of_trace_analysis(trace["traceEvents"]) == len(slices)
    few = seen.to_perfetto(sms=2)["traceEvents"]
    assert {event["pid"] for event in few if event["ph"] == "X"} == {1, 2}


def test_it_is_deterministic_and_fast() -> None:
    start = time.perf_counter()
    first = simulate(GEMM, H100, tiled(128, 128, 64), gemm(4096, 4096, 4096))
    assert time.perf_counter() - start < 0.5
    second = simulate(GEMM, H100, tiled(128, 128, 64), gemm(4096, 4096, 4096))
    assert first == second


def test_passing_over_the_middle_of_a_long_grid_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (GEMM, tiled(128, 128, 64), gemm(8192, 16384, 1024)),
        (workloads.add(), rows(), {"T": 30000, "N": 4096}),
        (workloads.gelu(), rows(), {"T": 30000, "N": 4096}),
    ]
    short = [simulate(kernel, H100, schedule, sizes) for kernel, schedule, sizes in cases]
    monkeypatch.setattr(simulation, "HEAD_WAVES", 10**9)
    for (kernel, schedule, sizes), seen in zip(cases, short, strict=True):
        whole = simulate(kernel, H100, schedule, sizes)
        assert seen.steady is not None
        assert seen.steady[2] > 0
        assert whole.steady is None
        assert seen.events < whole.events
        assert seen.seconds == pytest.approx(whole.seconds, rel=0.03)


FIGURES = {"levels.dram.bandwidth": 2.0, "levels.l2.bandwidth": 2.0, "units.tensor.clock_hz": 2.0}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("sizes", [gemm(4096, 4096, 4096), gemm(16, 8192, 8192), gemm(1000, 2000, 3000)], ids=str)
def test_a_better_chip_is_not_slower(figure: str, sizes: dict[str, int]) -> None:
    better = H100.with_figures({figure: FIGURES[figure] * (dict(_figures())[figure])})
    schedule = tiled(64, 128, 64)
    assert simulate(GEMM, better, schedule, sizes).seconds <= 1.005 * simulate(GEMM, H100, schedule, sizes).seconds


def _figures() -> list[tuple[str, float]]:
    from codesign.costmodel.machine import figures_of

    return [(path, figure.value) for path, figure in figures_of(H100) if figure.value is not None]


powers = st.sampled_from([16, 32, 64, 128, 256])
extents = st.integers(1, 3000)
machines = st.sampled_from(["h100_sxm", "a100_sxm", "l40s", "b200_sxm", "rtx_3090", "mi300x"])


@st.composite
def launches(draw: st.DrawFn) -> tuple[KernelSummary, Schedule, dict[str, int]]:
    """A kernel with a schedule and sizes, of any kind."""
    warps = draw(st.sampled_from([1, 2, 4, 8]))
    kind = draw(st.sampled_from(["gemm", "add", "gelu", "rms_norm", "softmax", "attention", "convolution"]))
    extras = {"warps": warps, "group": draw(st.integers(1, 8)), "persistent": draw(st.integers(0, 1))}
    pipeline = draw(st.integers(1, 5))
    if kind == "gemm":
        schedule = Schedule(
            tiles={"m": draw(powers), "n": draw(powers), "k": draw(powers)},
            split={"k": draw(st.sampled_from([1, 2, 7]))},
            pipeline=pipeline,
            extras=extras,
        )
        return GEMM, schedule, gemm(draw(extents), draw(extents), draw(extents))
    if kind == "convolution":
        tiles = {"o": draw(powers), "x": 16, "c": 32}
        sizes = {"N": draw(st.integers(1, 4)), "C": draw(extents), "O": draw(extents), "H": 14, "W": 20, "R": 3, "S": 3}
        return workloads.convolution(), Schedule(tiles=tiles, pipeline=pipeline, extras=extras), sizes
    if kind == "attention":
        tiles = {"i": draw(powers), "j": 64, "d": 64, "e": 64}
        reduce = {"j": "fold", "d": "resident"}
        sizes = {"B": draw(st.integers(1, 9)), "G": 4, "R": 2, "Q": draw(extents), "J": draw(extents), "D": 64, "E": 64}
        return workloads.attention(), Schedule(tiles=tiles, reduce=reduce, pipeline=pipeline, extras=extras), sizes
    sizes = {"T": draw(st.integers(1, 20000)), "N": draw(extents)}
    if kind in ("add", "gelu"):
        schedule = Schedule(tiles={"t": draw(st.sampled_from([1, 4])), "n": draw(powers)}, extras=extras)
        return getattr(workloads, kind)(), schedule, sizes
    schedule = Schedule(tiles={"t": draw(st.sampled_from([1, 4]))}, reduce={"n": "resident"}, extras=extras)
    return getattr(workloads, kind)(), schedule, sizes


@settings(max_examples=80)
@given(launches(), machines)
def test_never_faster_than_the_roofline_and_terms_sum(
    launch: tuple[KernelSummary, Schedule, dict[str, int]], name: str
) -> None:
    kernel, schedule, sizes = launch
    machine = load_machine(name)
    try:
        seen = simulate(kernel, machine, schedule, sizes)
    except ScheduleError:
        return
    floor = Roofline().predict(kernel, machine, ScheduleBatch.of([schedule]), sizes).seconds[0]
    assert seen.seconds >= floor
    assert sum(seen.terms.values()) == pytest.approx(seen.seconds, rel=1e-12)
    assert all(value >= 0.0 for value in seen.terms.values())
    assert all(value <= 1.0 + 1e-6 for value in seen.busy.values())
    assert 0.0 <= seen.idle <= 1.0


@settings(max_examples=30)
@given(extents, extents, extents, powers, powers)
def test_without_warm_operands_it_stays_above_the_roofline_by_itself(m: int, n: int, k: int, tm: int, tn: int) -> None:
    """What the chip's units and DRAM must do takes its time in the simulation; the closing rule only covers results left in L2."""
    seen = simulate(GEMM, H100, tiled(tm, tn, 32, 3), gemm(m, n, k), IDEAL)
    left_in_cache = m * n * 2 / H100.need(H100.level("dram").bandwidth, "dram")
    assert seen.drain <= left_in_cache


# -- as a cost model ------------------------------------------------------------------------------------------------
def test_the_model_answers_for_a_batch() -> None:
    model: CostModel = cost_model_for(H100, 2)
    assert model.fidelity == 2
    schedules = ScheduleBatch.of([tiled(128, 128, 64), tiled(256, 256, 128, 5), tiled(64, 64, 32)])
    found = model.predict(GEMM, H100, schedules, gemm(2048, 2048, 2048))
    assert found.reason[1].startswith("shared memory")
    assert found.seconds[1] == float("inf")
    for row in (0, 2):
        seen: Timeline = simulate(GEMM, H100, schedules.row(row), gemm(2048, 2048, 2048))
        assert found.seconds[row] == pytest.approx(seen.seconds)
        assert found.terms[row].sum() == pytest.approx(found.seconds[row])
        assert found.low[row] <= found.seconds[row] <= found.high[row]
        assert found.bound(row) == seen.bound
    assert found.dram_bytes[0] >= 3 * 2048 * 2048 * 2 * 0.3


def test_it_ranks_tiles_much_as_the_analytic_model_does() -> None:
    schedules = ScheduleBatch.of([tiled(m, n, 32, 3) for m in (32, 64, 128) for n in (32, 64, 128, 256)])
    sizes = gemm(4096, 4096, 4096)
    fine = EventModel().predict(GEMM, H100, schedules, sizes).seconds
    quick = GpuTileModel().predict(GEMM, H100, schedules, sizes).seconds
    assert quick[fine.argmin()] <= 1.15 * quick.min()
    assert fine.max() / fine.min() > 1.5


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ScheduleError, match="shared memory"):
        simulate(GEMM, H100, tiled(256, 256, 128, 5), gemm(64, 64, 64))
    with pytest.raises(MachineError, match="no value for size K"):
        simulate(GEMM, H100, tiled(64, 64, 32), {"M": 64, "N": 64})
    with pytest.raises(MachineError, match="not a GPU"):
        simulate(GEMM, load_machine("tpu_v4"), tiled(64, 64, 32), gemm(64, 64, 64))
