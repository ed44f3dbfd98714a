"""Every accelerator that ships: a product is scheduled on it, runs to the right values, no faster than its roofline, as the model says."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import target_of
from codesign.costmodel.dataflow.library import staged_terms, staged_whole
from codesign.costmodel.machine import MACHINE_FOLDER, load_machine
from codesign.costmodel.roofline import Roofline
from codesign.ir.dtypes import BF16, F16
from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.tuner import Tuner
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

MACHINES = [
    machine.name
    for path in sorted(MACHINE_FOLDER.glob("*.toml"))
    if (machine := load_machine(path.stem)).kind == "dataflow"
]


@pytest.mark.parametrize("name", MACHINES)
def test_a_product_on_it(name: str) -> None:
    machine = load_machine(name)
    group = groups.gemm(192, 160, 256, BF16 if "bf16" in target_of(machine).array.slowdown else F16)
    tuned = Tuner(machine).tune(group, split=False)
    kernel = tile(tuned.normalized.fusion, tuned.schedule, outputs=tuned.normalized.outputs)
    arrays = groups.random_inputs(group)
    run = simulate(lower(kernel, machine), arrays, machine)
    np.testing.assert_allclose(run.outputs[0], groups.run_tiles(kernel, arrays)[0], rtol=2e-2, atol=2e-2)
    floor = Roofline().predict(tuned.summary, machine, ScheduleBatch.of([tuned.schedule]))
    assert run.seconds >= floor.seconds[0]
    assert tuned.seconds == pytest.approx(run.seconds, rel=0.12)


def test_all_of_them_are_here() -> None:
    wanted = "maia100 maia200 tpu_v3 tpu_v4 tpu_v5e tpu_v6e gaudi3 trainium2 gemmini_16x16 eyeriss systolic_16x16"
    assert set(wanted.split()) <= set(MACHINES)


def test_memory_never_gives_all_of_its_bandwidth() -> None:
    machine = load_machine("tpu_v6e")
    clock = target_of(machine).clock_hz
    assert target_of(machine).dram.bytes_per_clock * clock == pytest.approx(0.9 * 1.64e12)
    whole = machine.with_figures({"levels.dram.efficiency": 1.0})
    assert target_of(whole).dram.bytes_per_clock * clock == pytest.approx(1.64e12)


def test_operands_that_fit_are_brought_in_before_the_product_starts() -> None:
    machine = load_machine("tpu_v6e")
    assert staged_whole(machine, F16, 1024, 4096, 4096)
    assert not staged_whole(machine, F16, 1024, 57344, 8192), "does not fit"
    assert not staged_whole(machine, F16, 1, 4096, 4096), "a sum, not a product of the arrays"
    assert not staged_whole(load_machine("maia100"), F16, 64, 64, 64)
    terms = staged_terms(machine, F16, 1024, 4096, 4096)
    moved, work = (1024 * 4096 * 2 + 4096**2) * 2, 2 * 1024 * 4096**2
    assert terms["dram"] == pytest.approx(moved / (0.9 * 1.64e12))
    assert terms["tensor"] == pytest.approx(work / 918e12, rel=0.02)
