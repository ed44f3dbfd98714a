"""Products of dtypes that a machine's tensor unit has no rate for: its vector unit multiplies and sums, in programs and in prices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.dtypes import F32
from codesign.ir.program import Matmul
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

GROUPS: dict[str, tuple[str, Callable[[], Fusion]]] = {
    "product": ("eyeriss", lambda: groups.gemm(48, 40, 100, F32)),
    "whole numbers": ("maia100", lambda: groups.integer_product(48, 40, 100)),
}


@pytest.mark.parametrize("mode", ["looped", "resident"])
@pytest.mark.parametrize("name", GROUPS)
def test_the_vector_unit_does_what_the_tensor_unit_cannot(name: str, mode: str) -> None:
    machine_name, make = GROUPS[name]
    machine, fusion = load_machine(machine_name), make()
    form = normalize(fusion)
    schedule = Schedule({"i": 16, "j": 32, "k": 32}, reduce={"k": mode}, pipeline=2)
    tiles = tile(form.fusion, schedule, outputs=form.outputs)
    program = lower(tiles, machine)
    assert not any(isinstance(op, Matmul) for op in program.instructions())
    inputs = groups.random_inputs(fusion)
    wanted = groups.run_tiles(tiles, inputs)
    result = simulate(program, inputs, machine)
    for got, expected in zip(result.outputs, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    cost = DataflowModel().predict(summarize(form.fusion), machine, ScheduleBatch.of([schedule]))
    assert cost.seconds[0] == pytest.approx(result.seconds, rel=0.1)
    assert cost.terms[0][list(cost.term_names).index("tensor")] == 0.0
