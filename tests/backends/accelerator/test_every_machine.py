"""Any kernel under any schedule of a machine's own space, on every accelerator: the interpreter's values, and never faster than the roofline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.machine import load_machine, machine_names
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import summarize
from codesign.ir.errors import EvaluationError, ScheduleError, UnsupportedError
from codesign.ir.program import Program
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups
from tests.passes.tiling.test_tile import any_group

MACHINES = [name for name in machine_names() if load_machine(name).kind == "dataflow"]


def weakened(program: Program, which: int) -> bool:
    """Take a wait or a signal out of a program, the one of that number; False where there is none."""
    places = [
        (op, kind, i)
        for op in program.instructions()
        for kind in ("waits", "signals")
        for i in range(len(getattr(op, kind)))
    ]
    if not 0 <= which < len(places):
        return False
    op, kind, position = places[which]
    left = getattr(op, kind)
    setattr(op, kind, left[:position] + left[position + 1 :])
    return True


def hold_to_the_interpreter(fusion: Fusion, name: str, seed: int, which: int) -> None:
    """The values of the interpreter, in no less than the roofline's time; with a wait or signal less, the same or refused."""
    machine, form = load_machine(name), normalize(fusion)
    kernel = summarize(form.fusion)
    knobs = space(kernel, machine)
    codes = knobs.sample(1, np.random.default_rng(seed))
    if not len(codes):
        return
    tiles = tile(form.fusion, knobs.batch(codes).row(0), outputs=form.outputs)
    try:
        program = lower(tiles, machine)
    except (UnsupportedError, ScheduleError):
        return
    weaker = weakened(program, which)
    arrays = groups.random_inputs(fusion)
    wanted = groups.run_tiles(tiles, arrays)
    try:
        result = simulate(program, [*arrays, *(np.full_like(array, 77) for array in wanted)], machine)
    except EvaluationError:
        if weaker:
            return
        raise
    for got, expected, value in zip(result.outputs, wanted, tiles.results, strict=True):
        rounding = 4 * value.type.dtype.epsilon
        scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))) if rounding else 0.0
        np.testing.assert_allclose(got, expected, rtol=rounding, atol=rounding * scale, equal_nan=True)
    assert result.seconds >= max(roofline_bounds(kernel, machine, {})) * (1 - 1e-9)


@given(any_group(), st.sampled_from(MACHINES), st.integers(0, 1 << 20), st.integers(-8, 24))
@settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_any_kernel_on_any_machine(fusion: Fusion, name: str, seed: int, which: int) -> None:
    hold_to_the_interpreter(fusion, name, seed, which)


@pytest.mark.slow
@given(any_group(), st.sampled_from(MACHINES), st.integers(0, 1 << 20), st.integers(-8, 24))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_very_many_kernels(fusion: Fusion, name: str, seed: int, which: int) -> None:
    hold_to_the_interpreter(fusion, name, seed, which)
