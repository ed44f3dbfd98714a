"""What the simulator says of programs: values, time by hand, contention, and the faults that it finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from codesign.backends.accelerator import Deadlock, Race, lower, simulate
from codesign.backends.accelerator.trace import write_trace
from codesign.costmodel.dataflow import target_of
from codesign.costmodel.machine import load_machine
from codesign.ir.core import Value
from codesign.ir.dtypes import BF16, F32
from codesign.ir.errors import EvaluationError, ScheduleError
from codesign.ir.numerics import round_to
from codesign.ir.program import Program, Vector
from codesign.ir.scalar import IndexValue, Read, apply
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute
from codesign.ir.text.program import parse_program
from codesign.ir.types import tensor
from codesign.passes.tile import lower as tile
from tests import readers
from tests.passes.tiling import groups

MATMUL = (Path(__file__).parent / "matmul.casm").read_text()
MAIA = load_machine("maia100")


def matmul_inputs(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [round_to(rng.standard_normal(shape), BF16) for shape in ((256, 512), (512, 256))]


def test_values_and_time_of_a_matmul_written_by_hand() -> None:
    x, w = matmul_inputs()
    result = simulate(parse_program(MATMUL), [x, w], MAIA)
    np.testing.assert_allclose(result.outputs[0], x @ w, rtol=1e-5, atol=1e-4)
    assert result.instructions == 16 * (8 * 3 + 2)
    # each 64^3 product takes 4 * 4 * 4 clocks and the start-up of the unit
    assert result.busy["tensor"] == 16 * 8 * (64 + target_of(MAIA).array.startup_clocks)
    again = simulate(parse_program(MATMUL), [x, w], MAIA)
    assert again.cycles == result.cycles
    timed = simulate(parse_program(MATMUL), None, MAIA, values=False)
    assert (timed.cycles, timed.joules) == (result.cycles, result.joules)


def test_one_transfer_takes_the_clocks_that_its_figures_say() -> None:
    program = parse_program("""
program @copy(%x: f32[64]) -> (%y: f32[64]) on 1 cores {
  scratch a: f32[64] at 0
  semaphore there
  load a[m] [m: 64] = %x[m] signal there
  store %y[m] [m: 64] = a[m] wait there >= 1
}""")
    target = target_of(MAIA)
    x = np.arange(64, dtype=np.float32)
    result = simulate(program, [x], MAIA)
    np.testing.assert_array_equal(result.outputs[0], x)
    one_way = target.dma_setup_clocks + 256 / target.dma_bytes_per_clock + target.latency_clocks
    assert result.cycles == pytest.approx(target.issue_clocks + 2 * one_way)
    assert result.dram_bytes == 512


def test_double_buffering_hides_loads() -> None:
    def cycles(depth: int) -> float:
        schedule = Schedule({"i": 64, "j": 64, "k": 64}, reduce={"k": "looped"}, pipeline=depth)
        program = lower(tile(groups.gemm(256, 256, 1024), schedule), MAIA)
        return simulate(program, None, MAIA, values=False).cycles

    assert cycles(2) < 0.7 * cycles(1)
    assert cycles(4) < cycles(2)


def test_more_of_anything_is_never_slower_for_the_same_program() -> None:
    program = parse_program(MATMUL)
    base = simulate(program, None, MAIA, values=False).cycles
    for figure, factor in [
        ("levels.dram.bandwidth", 4.0),
        ("levels.cluster.bandwidth", 4.0),
        ("limits.dma_bytes_per_clock", 4.0),
        ("levels.core.bandwidth", 4.0),
    ]:
        value = dict(figures())[figure] * factor
        assert simulate(program, None, MAIA.with_figures({figure: value}), values=False).cycles <= base, figure
    slower = MAIA.with_figures({"levels.dram.bandwidth": 2e10})
    assert simulate(program, None, slower, values=False).cycles > 2 * base


def figures() -> list[tuple[str, float]]:
    from codesign.costmodel.machine import figures_of

    return [(path, figure.value) for path, figure in figures_of(MAIA) if figure.value is not None]


def test_cores_share_the_memory() -> None:
    schedule = Schedule({"d0": 16, "d1": 256}, pipeline=2)
    kernel = tile(groups.element_wise(512, 1024), schedule)
    times = [simulate(lower(kernel, MAIA, cores=n), None, MAIA, values=False) for n in (1, 8, 64)]
    assert times[0].cycles > 4 * times[1].cycles
    assert times[1].cycles > times[2].cycles
    least = times[2].dram_bytes / target_of(MAIA).dram.bytes_per_clock
    assert least <= times[2].cycles < 2.0 * least, "64 cores are bound by DRAM, and cannot beat it"


def broken(old: str, new: str) -> Program:
    assert old in MATMUL
    return parse_program(MATMUL.replace(old, new))


def test_a_missing_wait_is_a_race() -> None:
    with pytest.raises(Race) as caught:
        simulate(broken("wait loaded >= #loaded, ready >= #ready", "wait ready >= #ready"), matmul_inputs(), MAIA)
    assert "tensor instruction 2 reads a while load instruction 0 writes a" in str(caught.value)
    with pytest.raises(Race):
        simulate(
            broken("= %x[row*64 + m, k0 + k] wait multiplied >= i - 1", "= %x[row*64 + m, k0 + k]"),
            matmul_inputs(),
            MAIA,
        )


def test_a_deadlock_says_who_waits_for_whom() -> None:
    with pytest.raises(Deadlock) as caught:
        simulate(broken("signal multiplied", ""), None, MAIA, values=False)
    text = str(caught.value)
    assert "core 0 load (instruction 0) waits for multiplied >= 1, which is 0" in text
    assert "core 3" in text or "more)" in text


def test_what_does_not_fit_or_is_out_of_range_is_refused() -> None:
    with pytest.raises(ScheduleError, match="core memory: needs 4,016,384 B, limit 2,097,152 B of maia100"):
        simulate(broken("at 32768", "at 4000000"), matmul_inputs(), MAIA)
    with pytest.raises(
        EvaluationError, match=r"address out of range: index 256..319 along dim 0 of %x, whose size is 256"
    ):
        simulate(broken("%x[row*64 + m, k0 + k]", "%x[row*64 + m + 64, k0 + k]"), matmul_inputs(), MAIA)
    with pytest.raises(ScheduleError, match="wants 65 cores"):
        simulate(broken("on 4 cores", "on 65 cores"), matmul_inputs(), MAIA)
    big = Schedule({"i": 1024, "j": 1024, "k": 16}, reduce={"k": "looped"})
    with pytest.raises(ScheduleError, match=r"scratchpad: needs .* B, limit 262,144 B"):
        lower(tile(groups.gemm(1024, 1024, 16, F32), big), load_machine("systolic_16x16"))


def test_reading_what_another_scratch_has_overwritten_is_an_error() -> None:
    program = parse_program("""
program @clash(%x: f32[64]) -> (%y: f32[64]) on 1 cores {
  scratch a: f32[64] at 0
  scratch b: f32[64] at 128
  semaphore there, done
  load a[m] [m: 64] = %x[m] signal there
  vector b[m] [m: 64] = 0.0 wait there >= 1 signal done
  store %y[m] [m: 64] = a[m] wait done >= 1
}""")
    with pytest.raises(EvaluationError, match="reads scratch a, which core 0 has not written, or has overwritten"):
        simulate(program, [np.zeros(64, np.float32)], MAIA)


def test_cores_hand_over_through_the_chip() -> None:
    program = parse_program("""
program @relay(%x: f32[64]) -> (%y: f32[64]) on 2 cores {
  scratch a: f32[64] at 0
  semaphore here
  semaphore passed in chip
  for turn in core to 1 step 1 {
    load a[m] [m: 64] = %x[m] signal here
    store %y[m] [m: 64] = a[m] wait here >= 1 signal passed
  }
  for turn in 0 to core step 1 {
    load a[m] [m: 64] = %y[m] wait passed >= 1 signal here
    store %y[m] [m: 64] = a[m] wait here >= 1
  }
}""")
    x = np.arange(64, dtype=np.float32)
    result = simulate(program, [x], MAIA)
    np.testing.assert_array_equal(result.outputs[0], x)
    target = target_of(MAIA)
    assert result.cycles > 4 * target.latency_clocks, "the second core starts when the first is done"


def test_a_trace_has_a_track_per_engine(tmp_path: Path) -> None:
    result = simulate(parse_program(MATMUL), None, MAIA, values=False, trace=True)
    write_trace(result, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == result.instructions
    assert {(e["pid"], e["cat"]) for e in spans} == {
        (c, e) for c in range(1, 5) for e in ("load", "store", "tensor", "vector")
    }
    clocks = [e["args"]["clocks"] for e in spans if e["cat"] == "tensor"]
    assert sum(end - start for start, end in clocks) == pytest.approx(result.busy["tensor"])
    assert readers.slices_of_perfetto(events) == len(spans)
    assert readers.slices_of_trace_analysis(events) == len(spans)
    names = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {"load", "store", "tensor", "vector", "stage"}
    assert {event["name"] for event in events if event["ph"] == "C"} >= {"busy tensor"}


def test_what_depends_on_few_points_is_computed_apart() -> None:
    x = Value(tensor(F32, 128, 128), "x")
    angle = apply("sin", apply("exp2", IndexValue("j", F32)))
    body = apply("mul", Read(x, ["i", "j"]), angle)
    fusion = groups.group([out := Compute(groups.dims(i=128, j=128), body, name="out")], [out])
    program = lower(tile(fusion, Schedule({"i": 128, "j": 128})), MAIA)
    vectors = [op for op in program.instructions() if isinstance(op, Vector)]
    assert [[axis.name for axis in op.axes] for op in vectors] == [["j"], ["i", "j"]]
    arrays = groups.random_inputs(fusion)
    result = simulate(program, arrays, MAIA)
    np.testing.assert_array_equal(result.outputs[0], groups.reference(fusion, arrays)[0])
    assert result.busy["vector"] < 128 * 128 * 2 / target_of(MAIA).pipes["special"].rate(F32), "not a sine per point"


def test_lanes_that_data_switches_off_are_not_moved() -> None:
    """A guard on what was loaded before: the transfer brings, and takes the time of, the lanes that it leaves."""
    program = parse_program("""
program @pick(%x: f32[64], %many: i32[1]) -> (%y: f32[64]) on 2 cores {
  scratch a: f32[64] at 0
  scratch n: i32[1] at 256
  semaphore here
  load n[m] [m: 1] = %many[m] signal here
  load a[m] [m: 64] = %x[m] where m < data(n[0]) else 7.0 wait here >= 1 signal here
  store %y[m] [m: 64] = a[m] wait here >= 2
}""")
    x = np.arange(64, dtype=np.float32)
    moved = {}
    for many in (0, 32, 64):
        result = simulate(program, [x, np.array([many], np.int32)], MAIA)
        np.testing.assert_array_equal(result.outputs[0], np.where(np.arange(64) < many, x, 7.0))
        moved[many] = result.dram_bytes
    assert moved[64] - moved[32] == moved[32] - moved[0] == 2 * 32 * 4
