"""Operands with two buffers in the memory above the cores: staged by its own DMA, ahead of the loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.backends.accelerator.check import check
from codesign.backends.accelerator.races import Race
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.errors import ScheduleError
from codesign.ir.program import Load, Program, Stage
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.ir.text.program import parse_program, print_program
from codesign.passes.knobs import Site, settled
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import Tuner
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

MAIA, MAIA_200, TPU = load_machine("maia100"), load_machine("maia200"), load_machine("tpu_v4")
SQUARE = ({"i": 4, "j": 4}, {"i": 2, "j": 2})


def schedule(
    machine: Machine,
    stage: dict[str, int],
    tiles: tuple[int, int, int] = (32, 32, 64),
    order: tuple[str, ...] = ("i", "j"),
    split: tuple[dict[str, int], dict[str, int]] = SQUARE,
    pipeline: int = 2,
) -> Schedule:
    clusters = {"cluster": AtLevel(split[0], stage=stage), "core": AtLevel(split[1])}
    chips = {"chip": AtLevel(stage=stage), "core": AtLevel({"j": 2})}
    sizes = dict(zip("ijk", tiles, strict=True))
    return Schedule(sizes, chips if machine.name == "tpu_v4" else clusters, order, {"k": "looped"}, pipeline=pipeline)


def staged_by(program: Program) -> set[str]:
    """The operands that the memory's own DMA brings."""
    return {op.source.name for op in program.instructions() if isinstance(op, Stage)}


@pytest.mark.parametrize("machine", [MAIA, MAIA_200, TPU], ids=lambda machine: machine.name)
@pytest.mark.parametrize("stage", [{"in0": 2}, {"in0": 2, "in1": 2}, {"in0": 1, "in1": 2}], ids=str)
@pytest.mark.parametrize(
    ("m", "n", "k", "order"), [(512, 768, 256, "ij"), (768, 512, 160, "ji"), (1280, 512, 64, "ij")]
)
def test_values_and_bytes_are_right(
    machine: Machine, stage: dict[str, int], m: int, n: int, k: int, order: str
) -> None:
    group = groups.gemm(m, n, k)
    form = normalize(group)
    chosen = schedule(machine, stage, order=tuple(order))
    assert Schedule.from_json(chosen.to_json()).hash == chosen.hash
    kernel = tile(form.fusion, chosen, outputs=form.outputs)
    program = lower(kernel, machine)
    named = {"in0": "x", "in1": "w"}
    assert staged_by(program) == {named[operand] for operand, buffers in stage.items() if buffers == 2}
    text = print_program(program)
    assert print_program(parse_program(text)) == text
    arrays = groups.random_inputs(group)
    run = simulate(program, arrays, machine)
    np.testing.assert_allclose(run.outputs[0], groups.run_tiles(kernel, arrays)[0], rtol=4e-3, atol=4e-2)
    cost = DataflowModel().predict(summarize(form.fusion), machine, ScheduleBatch.of([chosen]))
    assert cost.dram_bytes[0] == pytest.approx(run.dram_bytes, rel=0.01)
    assert cost.joules[0] == pytest.approx(run.joules, rel=0.01)
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.12)


def test_each_set_is_read_from_dram_once_and_has_a_buffer_of_its_own() -> None:
    one, two = (
        lower(tile(normalize(groups.gemm(512, 768, 256)).fusion, schedule(MAIA, {"in0": n, "in1": 1})), MAIA)
        for n in (1, 2)
    )
    moved = [simulate(program, None, MAIA, values=False).dram_bytes for program in (one, two)]
    assert moved[0] == moved[1]
    held = [next(s.end - s.address for s in p.scratches if s.name == "kept_x") for p in (one, two)]
    assert held[1] == 2 * held[0]
    last = next(op for op in reversed(two.instructions()) if isinstance(op, Stage))
    assert len(last.waits) == 1, "the buffer that comes next has been read"


@pytest.mark.parametrize("missing", ["read_x", "staged_x", "first_x"])
def test_the_checker_finds_what_a_semaphore_would_order(missing: str) -> None:
    """768 rows are three sets: the third one goes where the first one was."""
    program = lower(tile(normalize(groups.gemm(768, 768, 256)).fusion, schedule(MAIA, {"in0": 2, "in1": 2})), MAIA)
    check(program, MAIA)
    for op in program.instructions():
        op.waits = tuple(wait for wait in op.waits if wait.name != missing)
    with pytest.raises(Race, match="kept_x"):
        check(program, MAIA)


LARGE = [
    (MAIA, (4096, 1024, 4096), (128, 128, 512), ({"i": 8, "j": 2}, {"i": 2, "j": 2})),
    (MAIA, (4096, 4096, 14336), (256, 128, 1024), ({"i": 2, "j": 8}, {"i": 2, "j": 2})),
]


@pytest.mark.parametrize(("machine", "sizes", "tiles", "split"), LARGE, ids=["value", "down"])
def test_bursts_are_priced_and_a_second_buffer_takes_them_out(
    machine: Machine,
    sizes: tuple[int, int, int],
    tiles: tuple[int, int, int],
    split: tuple[dict[str, int], dict[str, int]],
) -> None:
    """Products of a Llama 3 8B layer: a sweep in three or more brings what the others read again."""
    form = normalize(groups.gemm(*sizes))
    choices = [schedule(machine, {"in0": n, "in1": n}, tiles, split=split) for n in (1, 2)]
    cost = DataflowModel().predict(summarize(form.fusion), machine, ScheduleBatch.of(choices))
    runs = [
        simulate(lower(tile(form.fusion, one, outputs=form.outputs), machine), None, machine, values=False).seconds
        for one in choices
    ]
    assert runs[1] < 0.995 * runs[0]
    assert cost.seconds[1] < cost.seconds[0]
    np.testing.assert_allclose(cost.seconds, runs, rtol=0.03)
    assert cost.details["burst_seconds"][0] > cost.details["burst_seconds"][1]


def test_what_does_not_fit_twice_is_refused_by_both(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    text = (MACHINE_FOLDER / "maia100.toml").read_text().replace("range = [8e6, 28e6]", "range = [1, 28e6]")
    path.write_text(text.replace("value = 23068672", "value = 12000").replace('name = "maia100"', 'name = "small"', 1))
    small, form = load_machine(str(path)), normalize(groups.gemm(512, 1024, 256))
    for buffers, fits in ((1, True), (2, False)):
        chosen = schedule(small, {"in0": buffers})
        cost = DataflowModel().predict(summarize(form.fusion), small, ScheduleBatch.of([chosen]))
        assert (cost.reason[0] == "") == fits
        if not fits:
            assert "needs 16,384 B" in cost.reason[0]
            with pytest.raises(ScheduleError, match="needs 16,384 B beside the others"):
                lower(tile(form.fusion, chosen, outputs=form.outputs), small)


def test_programs_that_do_not_divide_evenly_have_one_buffer() -> None:
    form = normalize(groups.gemm(544, 1024, 256))
    chosen = schedule(MAIA, {"in0": 2, "in1": 2})
    cost = DataflowModel().predict(summarize(form.fusion), MAIA, ScheduleBatch.of([chosen]))
    assert "divide evenly" in cost.reason[0]
    with pytest.raises(ScheduleError, match="divide evenly"):
        lower(tile(form.fusion, chosen, outputs=form.outputs), MAIA)


def test_a_schedule_says_one_or_two_buffers() -> None:
    site = Site.of(summarize(normalize(groups.gemm(512, 1024, 256)).fusion), MAIA, {})
    settled(schedule(MAIA, {"in0": 2}), site)
    with pytest.raises(ScheduleError, match="needs 1 or 2 buffers, got 3"):
        settled(schedule(MAIA, {"in0": 3}), site)
    with pytest.raises(ScheduleError, match="needs 1 buffers, got 2"):
        settled(schedule(MAIA, {"out0": 2}), site)


def test_a_load_that_takes_what_is_staged_comes_from_there() -> None:
    text = """
program @staged(%x: f32[2, 64]) -> (%y: f32[2, 64]) on 1 cores {
  scratch a: f32[2, 64] at 0
  scratch s: f32[2, 64] at 0 in cluster
  semaphore came, loaded
  for t in 0 to 2 step 1 {
    stage s[t, j] [j: 64] = %x[1 - t, j] signal came
    load a[t, j] [j: 64] = %x[t, j] kept s[t, j] again 1 wait came >= t + 1 signal loaded
    store %y[t, j] [j: 64] = a[t, j] wait loaded >= t + 1
  }
}
"""
    x = np.arange(128, dtype=np.float32).reshape(2, 64)
    program = parse_program(text)
    result = simulate(program, [x], MAIA)
    np.testing.assert_array_equal(result.outputs[0], x[::-1])
    assert result.dram_bytes == 2 * 64 * 4 + 2 * 64 * 4
    assert result.busy["stage"] > 0.0
    (load,) = (op for op in program.instructions() if isinstance(op, Load) and not isinstance(op, Stage))
    load.waits = ()
    with pytest.raises(Race, match=r"(reads|writes) s"):
        check(program, MAIA)


def test_a_search_takes_what_runs_faster_than_two_buffers_do() -> None:
    """With half of its DRAM's bandwidth: what the search takes, with one buffer, is faster in the simulator than a schedule with two."""
    group = groups.gemm(2048, 2048, 2048)
    slow = MAIA.with_figures({"levels.dram.bandwidth": 9e11})
    split = ({"i": 2, "j": 8}, {"i": 2, "j": 2})
    two = schedule(MAIA, {"in1": 2, "in2": 1}, tiles=(256, 128, 256), split=split, pipeline=3)
    fusion = normalize(group).fusion
    taken, ahead = (
        simulate(lower(tile(fusion, found), slow), None, slow, values=False).seconds
        for found in (Tuner(slow).tune(group).schedule, two)
    )
    assert taken < ahead
    assert not any(at.stage for at in Tuner(MAIA).tune(group).schedule.levels.values())


@pytest.mark.parametrize(("split", "place"), [(({"i": 3}, {"j": 2}), "cluster"), (({"i": 2}, {"j": 3}), "core")])
def test_parts_that_do_not_divide_the_instances_are_refused(
    split: tuple[dict[str, int], dict[str, int]], place: str
) -> None:
    """Two gangs would have one number, and wait for each other's members."""
    kernel = tile(normalize(groups.gemm(192, 384, 64)).fusion, schedule(MAIA, {}, split=split))
    with pytest.raises(ScheduleError, match=f"levels.{place}: 3 parts do not divide the"):
        lower(kernel, MAIA)
