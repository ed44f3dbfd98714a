"""A tail in parts of its sums, through Triton: two launches that write one tensor."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.triton import compile_aot
from codesign.backends.triton.interpret import run_interpreted
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from codesign.passes.tiling.cutting import Cutting
from codesign.passes.tiling.tail import Tail
from tests.passes.tiling import groups
from tests.passes.tiling.test_tail import gated


def test_right_in_triton() -> None:
    """Memory that nothing has written holds NaN, of which nothing may stay."""
    fusion = gated()
    arrays = groups.random_inputs(fusion)
    x, g, u = (array.astype(np.float64) for array in arrays)
    made: list[np.ndarray] = [np.full((20, 40), np.nan, np.float16)]
    for half in Cutting(2, Tail(1, 16)).halves(fusion):
        form = normalize(half)
        kernel = lower(form.fusion, Schedule(dict.fromkeys(form.fusion.dims(), 16)), outputs=form.outputs)
        known = dict(zip([value.name for value in fusion.uses()], arrays, strict=True))
        given = [known.get(value.name) for value in form.fusion.uses()]
        waiting = iter(made)
        made = run_interpreted(kernel, [next(waiting) if array is None else array for array in given])
    np.testing.assert_allclose(made[0], x @ g / (1 + np.exp(-(x @ g))) * (x @ u), rtol=4e-3, atol=4e-2)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_target_takes_it(target: str) -> None:
    fusion: Fusion = groups.gemm(2048, 5120, 5120)
    for half in Cutting(2, Tail(0, 1664)).halves(fusion):
        form = normalize(half)
        sides = {name: 64 if name.startswith("k") else 128 for name in form.fusion.dims() if "part" not in name}
        schedule = Schedule(sides, pipeline=3, extras={"warps": 8})
        made = compile_aot(lower(form.fusion, schedule, outputs=form.outputs), target)
        assert made.spills == 0
