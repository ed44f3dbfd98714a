"""What the memories between DRAM and the cores keep from one block of programs to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.program import Load, Program
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.text.program import parse_program, print_program
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import Tuner
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

MAIA = load_machine("maia100")
SQUARE = {"cluster": AtLevel({"i": 4, "j": 4}), "core": AtLevel({"i": 2, "j": 2})}
STEPS = Schedule({"i": 32, "j": 32, "k": 64}, SQUARE, reduce={"k": "looped"}, pipeline=2)
"""8 x 8 programs at a time."""


def program(group: Fusion, schedule: Schedule = STEPS, machine: Machine = MAIA) -> Program:
    form = normalize(group)
    return lower(tile(form.fusion, schedule, outputs=form.outputs), machine)


def read(lowered: Program, machine: Machine = MAIA) -> float:
    (result,) = lowered.results
    stored = np.prod([size.constant for size in result.shape]) * result.type.dtype.bytes
    return float(simulate(lowered, None, machine, values=False).dram_bytes - stored)


def kept_in(lowered: Program) -> dict[str, str]:
    """Of the loads that are kept: by buffer, the memory."""
    places = {op.source.name: op.keep for op in lowered.instructions() if isinstance(op, Load) and op.keep is not None}
    return {name: lowered.scratch_of(keep.place.source).level for name, keep in places.items()}


def test_operands_are_read_from_dram_once_where_a_cluster_holds_what_its_cores_read_again() -> None:
    lowered = program(groups.gemm(512, 1024, 256))
    assert kept_in(lowered) == {"x": "cluster", "w": "cluster", "bias": "cluster"}
    assert read(lowered) == (512 + 1024) * 256 * 2 + 1024 * 2
    text = print_program(lowered)
    assert "again" in text
    assert print_program(parse_program(text)) == text


def with_clusters_of(folder: Path, capacity: int) -> Machine:
    path = folder / "small.toml"
    text = (MACHINE_FOLDER / "maia100.toml").read_text().replace("range = [8e6, 28e6]", "range = [1, 28e6]")
    path.write_text(
        text.replace("value = 23068672", f"value = {capacity}").replace('name = "maia100"', 'name = "small"', 1)
    )
    return load_machine(str(path))


@pytest.mark.parametrize(("capacity", "kept"), [(1 << 20, "bias w x"), (20_000, "bias x"), (8_000, "bias")])
def test_what_is_read_again_most_often_goes_first(tmp_path: Path, capacity: int, kept: str) -> None:
    """512 x 1024 x 256: the left operand is read for four blocks, the right one for two; a cluster's part of what waits is 8 and 32 KiB."""
    small = with_clusters_of(tmp_path, capacity)
    lowered = program(groups.gemm(512, 1024, 256), machine=small)
    assert set(kept_in(lowered)) == set(kept.split())
    assert lowered.scratch_bytes("cluster") <= capacity
    x_times, w_times = (1 if "x" in kept else 4), (1 if "w" in kept else 2)
    assert read(lowered, small) == (x_times * 512 + w_times * 1024) * 256 * 2 + 1024 * 2


def test_a_part_is_kept_of_what_does_not_fit_whole(tmp_path: Path) -> None:
    """The right operand waits four blocks of 8 KiB a cluster: two of them, and one that the others pass through, fit beside the left one."""
    small = with_clusters_of(tmp_path, 8192 + 128 + 3 * 8192)
    group = groups.gemm(512, 1024, 256)
    lowered = program(group, machine=small)
    assert read(lowered, small) == 512 * 256 * 2 + 1024 * 256 * 2 * (0.5 + 0.5 * 2) + 1024 * 2
    assert lowered.scratch_bytes("cluster") == 8192 + 128 + 3 * 8192
    form = normalize(group)
    cost = DataflowModel().predict(summarize(form.fusion), small, ScheduleBatch.of([STEPS]))
    assert cost.dram_bytes[0] == pytest.approx(simulate(lowered, None, small, values=False).dram_bytes)
    arrays = groups.random_inputs(group)
    kernel = tile(form.fusion, STEPS, outputs=form.outputs)
    result = simulate(lowered, arrays, small)
    np.testing.assert_allclose(result.outputs[0], groups.run_tiles(kernel, arrays)[0], rtol=4e-3, atol=4e-2)


def test_where_no_network_sends_to_many_each_cluster_holds_what_its_own_cores_need(tmp_path: Path) -> None:
    path = tmp_path / "alone.toml"
    text = (MACHINE_FOLDER / "maia100.toml").read_text().replace("multicast = true", "multicast = false")
    path.write_text(text.replace('name = "maia100"', 'name = "alone"', 1))
    alone = load_machine(str(path))
    group = groups.gemm(512, 1024, 256)
    together, apart = program(group), program(group, machine=alone)
    assert kept_in(together).keys() == kept_in(apart).keys()
    held = {
        name: {s.name: s.end - s.address for s in lowered.scratches if s.level == "cluster"}
        for name, lowered in (("together", together), ("apart", apart))
    }
    assert held["apart"]["kept_x"] == 4 * held["together"]["kept_x"], "four clusters need the same rows"
    assert {s.over for s in together.scratches if s.level == "cluster"} == {16}
    assert {s.over for s in apart.scratches} == {1}


def test_gangs_that_take_turns_at_blocks_keep_nothing() -> None:
    gangs = Schedule(STEPS.tiles, {"core": AtLevel({"j": 4})}, reduce=STEPS.reduce, pipeline=2)
    assert kept_in(program(groups.gemm(512, 1024, 256), gangs)) == {}


@pytest.mark.parametrize(("m", "n", "k"), [(512, 512, 128), (300, 700, 96), (70, 600, 130)])
def test_values_are_right(m: int, n: int, k: int) -> None:
    group = groups.gemm(m, n, k)
    form = normalize(group)
    kernel = tile(form.fusion, STEPS, outputs=form.outputs)
    arrays = groups.random_inputs(group)
    lowered = lower(kernel, MAIA)
    result = simulate(lowered, arrays, MAIA)
    np.testing.assert_allclose(result.outputs[0], groups.run_tiles(kernel, arrays)[0], rtol=4e-3, atol=4e-2)
    assert kept_in(lowered)


def test_what_is_kept_is_what_was_there_when_it_passed() -> None:
    """The second load takes the tile from the cluster's memory, whatever its own address says."""
    text = """
program @kept(%x: f32[2, 64]) -> (%y: f32[2, 64]) on 1 cores {
  scratch a: f32[64] at 0
  scratch s: f32[64] at 0 in cluster
  semaphore loaded, stored
  for t in 0 to 2 step 1 count i {
    load a[j] [j: 64] = %x[t, j] kept s[j] again t wait stored >= i signal loaded
    store %y[t, j] [j: 64] = a[j] wait loaded >= i + 1 signal stored
  }
}
"""
    x = np.arange(128, dtype=np.float32).reshape(2, 64)
    result = simulate(parse_program(text), [x], MAIA)
    np.testing.assert_array_equal(result.outputs[0], [x[0], x[0]])
    assert result.dram_bytes == 64 * 4 + 2 * 64 * 4


@pytest.mark.parametrize("machine", ["maia100", "tpu_v4", "maia200"])
def test_the_model_agrees_with_the_simulator(machine: str) -> None:
    target = load_machine(machine)
    form = normalize(groups.gemm(1024, 1000, 512))
    summary = summarize(form.fusion)
    levels = SQUARE if machine != "tpu_v4" else {"core": AtLevel({"j": 2})}
    for tiles in ({"i": 64, "j": 64, "k": 64}, {"i": 32, "j": 128, "k": 128}):
        schedule = Schedule(tiles, levels, reduce={"k": "looped"}, pipeline=2)
        run = simulate(lower(tile(form.fusion, schedule, outputs=form.outputs), target), None, target, values=False)
        cost = DataflowModel().predict(summary, target, ScheduleBatch.of([schedule]))
        assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.08), tiles
        assert cost.dram_bytes[0] == pytest.approx(run.dram_bytes, rel=0.06), tiles
        assert cost.joules[0] == pytest.approx(run.joules, rel=0.06), tiles


@pytest.mark.parametrize(
    ("machine", "m", "n", "k"),
    [("maia100", 4096, 4096, 4096), ("maia200", 8192, 8192, 4096), ("tpu_v4", 2048, 8192, 1024)],
)
def test_a_large_product_reads_its_operands_hardly_more_than_once(machine: str, m: int, n: int, k: int) -> None:
    tuned = Tuner(load_machine(machine)).tune(groups.gemm(m, n, k))
    operands = (m * k + k * n) * 2
    assert tuned.dram_bytes - m * n * 2 <= 1.5 * operands
