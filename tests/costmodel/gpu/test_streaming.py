"""Kernels without contractions against what their threads do: trips that wait, gathers, grid strides, collapsed dims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.fitting import Prepared
from codesign.costmodel.gpu.block import block_work
from codesign.costmodel.gpu.formulas import formulas
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.library import library
from codesign.costmodel.gpu.library_work import DIVISION_INTEGER, DIVISION_SPECIAL
from codesign.costmodel.gpu.model import BANDS, TERM_NAMES, cells, family_of, spread_of
from codesign.costmodel.gpu.parameters import BOUNDS, Calibration, Parameters, load_calibration
from codesign.costmodel.gpu.streaming import ARRIVAL, REQUEST_CLOCKS, request_clocks, sustained_clock
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.gpu.traffic import FRESH, cold_share, traffic
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import load_machine
from codesign.costmodel.rows import Rows
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import REDUCE_MODES, Schedule

A100 = load_machine("a100_sxm")
SMS = 108
L2_BYTES = 41943040
ROW = {"tile.t": 1.0, "tile.n": 1024.0, "warps": 32.0, "pipeline": 1.0, "access_bytes": 2.0, "loop.n": 1.0}
FLAT = {"tile.t": 1.0, "tile.n": 128.0, "warps": 4.0, "pipeline": 1.0, "access_bytes": 2.0}
P = load_calibration(A100).parameters


def seconds(kernel: KernelSummary, knobs: dict[str, float], sizes: dict[str, float], p: Parameters = P) -> float:
    columns = {name: np.array([value]) for name, value in knobs.items()}
    return float(np.max(estimate(kernel, A100, columns, sizes, p, compiled=False).total))


def work(kernel: KernelSummary, knobs: dict[str, float], sizes: dict[str, float]) -> Work:
    """Of one block of a library's kernel."""
    columns = {name: np.float64(value) for name, value in knobs.items()}
    return block_work(kernel, geometry(kernel, columns, sizes, SMS), A100, columns, compiled=False)[0]


def latency(level: str) -> float:
    return A100.need(A100.level(level).latency_seconds, level)


def test_each_trip_of_a_walking_block_waits_for_its_loads() -> None:
    kernel = workloads.silu_and_multiply("f16", fresh=True)
    few, many = (seconds(kernel, ROW, {"T": 8.0, "N": 1024.0 * trips}) for trips in (7, 28))
    trip = (many - few) / 21
    assert trip > ARRIVAL * latency("l2")
    assert 0.5e-6 < trip < 1.1e-6  # 0.8 us were measured


def test_blocks_on_one_sm_wait_together_and_issue_in_turn() -> None:
    kernel, sizes = workloads.silu_and_multiply("f16", fresh=True), {"N": 28672.0}
    one, two, three = (seconds(kernel, ROW, {"T": float(SMS * blocks), **sizes}) for blocks in (1, 2, 3))
    assert one < two < 1.6 * one  # two are resident at a time
    assert three == pytest.approx(one + two, rel=0.1)


def test_an_operand_from_dram_lengthens_every_trip() -> None:
    sizes = {"T": 8.0, "N": 28672.0}
    warm, cold = (seconds(workloads.silu_and_multiply("f16", fresh=fresh), ROW, sizes) for fresh in (True, False))
    expected = 28 * ARRIVAL * (latency("dram") - latency("l2"))
    assert cold - warm == pytest.approx(expected, rel=0.1)


def test_a_gathered_load_waits_for_its_index_first() -> None:
    kernel = workloads.embedding("f16")
    walking = {**FLAT, "loop.t": 1.0}
    one, more = (seconds(kernel, walking, {"T": tokens, "N": 4096.0, "V": 32000.0}) for tokens in (8.0, 16.0))
    assert (more - one) / 8 > latency("l2") + ARRIVAL * latency("dram")
    assert work(kernel, walking, {"T": 16.0, "N": 4096.0, "V": 32000.0}).gathered_trips == 16
    by_token = workloads.rope("f16")  # its positions are those of the block's token: found once
    sizes = {"T": 16.0, "H": 64.0, "D": 64.0}
    assert work(by_token, {"tile.t": 1.0, "tile.h": 8.0, "tile.d": 64.0, "loop.h": 1.0}, sizes).gathered_trips == 0


@pytest.mark.parametrize("tokens", [1.0, 20.0, 300.0, 4097.0])
def test_a_grid_stride_bounds_the_grid_and_keeps_the_work(tokens: float) -> None:
    kernel, sizes = workloads.embedding("f16"), {"T": tokens, "N": 4096.0, "V": 32000.0}
    striding = {**FLAT, "stride.t": 8.0}
    whole, bounded = (geometry(kernel, knobs, sizes, SMS) for knobs in (FLAT, striding))
    assert bounded.grid == min(whole.grid, 8 * SMS)
    for g, knobs in ((whole, FLAT), (bounded, striding)):
        done = work(kernel, knobs, sizes)
        assert g.grid * done.store_bytes == pytest.approx(tokens * 4096 * 2)
    assert bounded.trips["t"] == np.ceil(whole.grid / bounded.grid)


def test_threads_of_a_flat_loop_divide_for_every_element() -> None:
    kernel, sizes = workloads.embedding("f16"), {"T": 64.0, "N": 4096.0, "V": 32000.0}
    plain, flat = (work(kernel, {**FLAT, **more}, sizes) for more in ({}, {"unflatten": 1.0}))
    assert flat.integer - plain.integer == 128 * DIVISION_INTEGER
    assert flat.special - plain.special == 128 * DIVISION_SPECIAL


def test_threads_past_the_end_of_a_row_do_nothing() -> None:
    kernel = workloads.silu_and_multiply("f16")
    part, whole = (work(kernel, ROW, {"T": 1.0, "N": n}) for n in (1376.0, 2048.0))
    assert part.trips == whole.trips == 2
    assert part.vector / whole.vector == pytest.approx(1376 / 2048)


def test_a_loop_asks_once_for_what_two_results_need() -> None:
    kernel, sizes = workloads.rope("f16"), {"T": 1.0, "H": 8.0, "D": 64.0}
    done = work(kernel, {"tile.t": 1.0, "tile.h": 8.0, "tile.d": 64.0}, sizes)
    halves, tables, results, position = 2 * 8 * 64 * 2, 2 * 64 * 2, 2 * 8 * 64 * 2, 32
    assert done.request_bytes == halves + tables + results + position
    assert done.load_bytes + done.store_bytes == done.request_bytes


def test_a_narrow_request_takes_the_path_as_long_as_a_wider_one() -> None:
    kernel = workloads.add("f16")
    done = work(kernel, {"tile.t": 1.0, "tile.n": 4096.0}, {"T": 1.0, "N": 4096.0})
    narrow, wide = (float(request_clocks(done, 1024.0, bytes_each, 32.0)) for bytes_each in (2.0, 16.0))
    assert narrow == 3 * 4096 / 32 * REQUEST_CLOCKS
    assert wide == 3 * 4096 * 2 / 128


@pytest.mark.parametrize(("share", "cold"), [(FRESH[0], 0.0), (FRESH[1], 1.0), (sum(FRESH) / 2, 0.5)])
def test_what_was_just_written_is_in_l2_as_far_as_it_fits(share: float, cold: float) -> None:
    kernel = workloads.rms_norm("f16", fresh=True)
    x, w = kernel.nests[0].loads[0], kernel.nests[1].loads[1]
    size = share * L2_BYTES
    assert cold_share(kernel, x, size, size, L2_BYTES, 0.6) == pytest.approx(cold)
    assert cold_share(kernel, w, 8192.0, size, L2_BYTES, 0.6) == 1.0


def test_small_results_stay_in_l2_in_the_midst_of_a_model_only() -> None:
    sizes = {"T": 128.0, "N": 4096.0}
    lone, among = (workloads.add("f16", fresh=fresh) for fresh in (False, True))
    efforts = [
        traffic(kernel, geometry(kernel, FLAT, sizes), SMS * 16, 1.0, (), L2_BYTES, 0.6, 0.0).write_effort
        for kernel in (lone, among)
    ]
    assert efforts[0] == 128 * 4096 * 2
    assert efforts[1] < 0.1 * efforts[0]


def test_neighbours_of_a_wave_write_one_long_run() -> None:
    kernel, sizes = workloads.add("f16"), {"T": 4096.0, "N": 4096.0}
    found = traffic(kernel, geometry(kernel, FLAT, sizes), SMS * 16, 1.0, (), L2_BYTES, 0.6, 64.0)
    assert found.write_effort == pytest.approx(found.write, rel=0.01)


def test_a_layer_norm_reads_its_row_in_two_loops() -> None:
    kernel, sizes = workloads.layer_norm("f16"), {"T": 1.0, "N": 2560.0}
    launch = {"tile.t": 1.0, "tile.n": 512.0, "loop.n": 1.0}
    done = work(kernel, launch, sizes)
    assert (done.first_trips, done.again_trips) == (5, 5)  # both moments go along in the first
    assert done.request_bytes == 2560 * 2 * (2 + 2 + 1)


def test_the_clock_drops_after_a_while_of_tensor_work() -> None:
    rate = A100.rate("tensor", "f16") or 0.0
    clocks = [float(sustained_clock(A100, rate * busy, 0.8)) for busy in (0.0, 4e-3, 10e-3, 20e-3, 1.0)]
    assert clocks[:2] == [1.0, 1.0]
    assert clocks == sorted(clocks, reverse=True)
    assert clocks[-1] == pytest.approx(0.8)


def test_a_lower_clock_slows_what_computes_and_not_what_streams() -> None:
    """At the lowest clock that power management leaves. At half of the clock L2, which takes a write in both of its halves,
    would be as slow as DRAM."""
    lowest, _ = BOUNDS["profiled_clock"]
    p = replace(P, profiled_clock=lowest)
    busy = {"run_operations": 1e15}
    norm, plain = workloads.rms_norm("f16", fresh=True), workloads.add("f16")
    small, large = {"T": 432.0, "N": 4096.0}, {"T": 16384.0, "N": 8192.0}
    assert seconds(norm, ROW, {**small, **busy}, p) > 0.75 / lowest * seconds(norm, ROW, small, p)
    vectors = {"tile.t": 1.0, "tile.n": 512.0, "warps": 4.0, "access_bytes": 8.0}
    assert seconds(plain, vectors, {**large, **busy}, p) < 1.1 * seconds(plain, vectors, large, p)


def test_an_op_of_two_launches_takes_twice_as_long() -> None:
    kernel, sizes = workloads.add("f16"), {"T": np.array([64.0, 4096.0]), "N": np.array([4096.0, 4096.0])}
    columns = {name: np.array([value], dtype=np.float32) for name, value in FLAT.items()}
    rows = Rows("add", kernel, sizes, np.ones(2), np.arange(2), np.arange(2), columns, launches=2)
    once = library(kernel, A100, sizes, P, columns).seconds
    assert Prepared(rows, columns).predict(A100, P) == pytest.approx(2.0 * once)


def test_families() -> None:
    kernels = [workloads.gemm(), workloads.attention(), workloads.rms_norm(), workloads.embedding(), workloads.add()]
    assert [family_of(k) for k in kernels] == ["contraction", "chain", "reduction", "gather", "elementwise"]


def test_intervals_are_looked_up_from_fine_to_coarse() -> None:
    terms = np.zeros((4, len(TERM_NAMES)))
    terms[:, TERM_NAMES.index("dram")] = [5e-6, 50e-6, 2e-3, 50e-6]
    terms[3, TERM_NAMES.index("tensor")] = 100e-6
    assert list(cells("add", terms)) == ["add:memory:0", "add:memory:2", f"add:memory:{len(BANDS)}", "add:compute:3"]
    spread = {"add:memory:0": (0.5, 2.0), "add:memory": (0.8, 1.2), "add": (0.7, 1.4)}
    low, high = spread_of(Calibration("a100_sxm", P, spread, {}), terms, "add")
    assert low.tolist() == [0.5, 0.8, 0.8, 0.7]
    assert high.tolist() == [2.0, 1.2, 1.2, 1.4]
    profiled = {f"profiled {name}": pair for name, pair in spread.items()}
    assert spread_of(Calibration("a100_sxm", P, profiled, {}), terms, "add")[0].tolist() == low.tolist()


def test_the_ledger_says_what_a_waiting_loop_waits_for() -> None:
    kernel, sizes = workloads.embedding("f16"), {"T": 16, "N": 4096, "V": 32000}
    schedule = Schedule({"t": 1, "n": 128}, pipeline=1, extras={"warps": 4, "access_bytes": 2, "loop.t": 1})
    found, _ = formulas(kernel, A100, schedule, sizes, P, compiled=False)
    assert found["latency"].values == {"rounds": 1, "first_trips": 16, "again_trips": 0, "gathered_trips": 16}


def test_schedules_of_several_texts_are_priced_for_all_rows_at_once() -> None:
    """Rows that are held whole, and rows that are gone over in steps."""
    kernel = workloads.softmax("f16")
    modes = [float(REDUCE_MODES.index(mode)) for mode in ("looped", "resident", "looped")]
    columns = {
        "tile.t": np.array([1.0, 1.0, 4.0]),
        "tile.n": np.array([512.0, 512.0, 1024.0]),
        "reduce.n": np.array(modes),
    }
    tokens, lengths = np.array([[64.0], [640.0]]), np.array([[4096.0], [8192.0]])
    found = estimate(kernel, A100, columns, {"T": tokens, "N": lengths}, P, compiled=False)
    for row in range(2):
        for k in range(3):
            knobs = {name: float(column[k]) for name, column in columns.items()}
            alone = seconds(kernel, knobs, {"T": float(tokens[row, 0]), "N": float(lengths[row, 0])})
            assert found.total[row, k] == pytest.approx(alone)


def test_a_block_goes_over_again_what_its_loops_load_again() -> None:
    kernel, sizes = workloads.softmax("f16"), {"T": 1.0, "N": 8192.0}
    (again,) = work(kernel, {"tile.t": 1.0, "tile.n": 512.0}, sizes).sweeps.values()
    assert again == 2.0  # the largest, the sum, the result
    held = {"tile.t": 1.0, "tile.n": 512.0, "reduce.n": float(REDUCE_MODES.index("resident"))}
    assert not work(kernel, held, sizes).sweeps
    norm = work(workloads.rms_norm("f16"), {"tile.t": 1.0, "tile.n": 512.0}, sizes).sweeps
    assert {name.split("#")[0]: times for (name, _), times in norm.items()} == {"x": 1.0}  # and not the weight
