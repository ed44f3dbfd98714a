"""A tail in parts of its sums, through Triton: two launches that write one tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.backends.triton import compile_aot
from codesign.backends.triton.runner import write_runner
from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.schedule import Schedule
from codesign.ir.text import parse
from codesign.passes.lowering import tile_module
from codesign.passes.normalize import normalize
from codesign.passes.schedule import tuner
from codesign.passes.tile import lower
from codesign.passes.tiling.cutting import WHOLE, Cutting
from codesign.passes.tiling.tail import Tail
from tests.passes.tiling import groups
from tests.passes.tiling.test_tail import gated


def test_a_runner_gives_both_launches_one_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tensor between groups, in the arena, of which nothing that was there before may stay."""
    cutting = Cutting(2, Tail(1, 16))
    forced = lambda _, fusion, found: (cutting if cutting.applies(fusion) else WHOLE, 0.0, True)  # noqa: E731
    monkeypatch.setattr(tuner, "best_cutting", forced)
    first = gated()
    text = "func @f(%o: f16[20, 40]) {\n%t = fusion {\n%d = compute f16[i: 20, j: 40] { %o[i, j] + %o[i, j] }\nyield %d }\nreturn %t\n}"
    last = parse(text).main.body.ops[0]
    last.replace(dict.fromkeys(last.uses(), first.results[0]))
    main = Function("main", Block(list(first.uses()), [first, last], last.results))
    module = Module(functions={"main": main})
    tile_module(module, tuner.Tuner(load_machine("h100_sxm")))
    assert [op.opcode for op in module.main.body.ops] == ["empty", "launch", "launch", "launch"]
    arrays = groups.random_inputs(first)
    runner = write_runner(module, None, tmp_path, target="h100_sxm", input_names=["x", "g", "u"])
    (found,) = runner.run_interpreted(module, arrays)
    x, g, u = (array.astype(np.float64) for array in arrays)
    wanted = 2 * (x @ g / (1 + np.exp(-(x @ g))) * (x @ u))
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=4e-3, atol=8e-2)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_target_takes_it(target: str) -> None:
    for half in Cutting(2, Tail(0, 1664)).halves(groups.gemm(2048, 5120, 5120)):
        form = normalize(half)
        sides = {name: 64 if name.startswith("k") else 128 for name in form.fusion.dims() if "part" not in name}
        schedule = Schedule(sides, pipeline=3, extras={"warps": 8})
        made = compile_aot(lower(form.fusion, schedule, outputs=form.outputs), target)
        assert made.spills == 0
