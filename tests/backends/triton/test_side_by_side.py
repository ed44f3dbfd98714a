"""Strands in one Triton kernel: every program goes one way, by its number."""

from __future__ import annotations

import pytest

from codesign.backends.triton import compile_aot
from codesign.backends.triton.emit import emit
from codesign.backends.triton.verify import verify_kernel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.passes.tiling.groups import products


def tiles(rows: int, columns: int, depth: int, further: int = 64) -> dict[str, int]:
    sides = {"i0": rows, "j0": columns, "k0": depth, "i1": rows, "j1": columns, "k1": depth}
    return {**sides, "m": further}


@pytest.mark.parametrize("extras", [{"group": 2}, pytest.param({"persistent": 1}, marks=pytest.mark.slow)])
def test_right_in_triton(extras: dict[str, int]) -> None:
    form = normalize(products(40, 40, [64, 33], "bf16", further=100))
    schedule = Schedule(tiles(32, 32, 16), pipeline=2, extras={"warps": 4, **extras})
    kernel = lower(form.fusion, schedule, outputs=form.outputs)
    text = emit(kernel)
    assert text.count("if number") == 3
    assert ("tl.num_programs" in text) == ("persistent" in extras)
    found = verify_kernel(form, kernel, seed=1)
    assert found.ok, found


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_target_takes_it(target: str) -> None:
    """On sm_90 with warp groups' products, no spills, and what the price says of registers and shared memory."""
    form = normalize(products(4096, 1024, [4096, 1024], "bf16"))
    wide = 256 if target == "sm_90" else 128
    schedule = Schedule(tiles(128, wide, 64), pipeline=3, extras={"warps": 8, "group": 8})
    schedule = Schedule({k: v for k, v in schedule.tiles.items() if k != "m"}, pipeline=3, extras=schedule.extras)
    made = compile_aot(lower(form.fusion, schedule, outputs=form.outputs), target)
    assert made.spills == 0
    if target == "sm_90":
        assert made.text("ptx").count("wgmma.mma_async") >= 2
        machine = load_machine("h100_sxm")
        cost = cost_model_for(machine).predict(summarize(form.fusion), machine, ScheduleBatch.of([schedule]))
        assert cost.details["shared_bytes"][0] == made.shared_bytes
        assert cost.details["registers"][0] == pytest.approx(made.registers, rel=0.25)
