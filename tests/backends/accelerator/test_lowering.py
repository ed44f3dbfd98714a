"""Every kernel that tiling makes runs on the simulator to the very values of the tile interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.errors import ScheduleError, UnsupportedError
from codesign.ir.program import Program
from codesign.ir.schedule import AtLevel, Schedule
from codesign.ir.text.program import parse_program, print_program
from codesign.ir.tile import Kernel
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups
from tests.passes.tiling.test_tile import any_group, any_schedule


def lowered(kernel: Kernel, machine: Machine, cores: int) -> tuple[Program | None, str]:
    """The program, or why the machine refuses the kernel."""
    try:
        return lower(kernel, machine, cores=cores), ""
    except (UnsupportedError, ScheduleError) as error:
        return None, str(error)


@st.composite
def any_split(draw: st.DrawFn, dims: Sequence[str]) -> dict[str, AtLevel]:
    """Parts of up to two dims at each of maia100's places."""
    found: dict[str, AtLevel] = {}
    for place, count in (("cluster", 16), ("core", 4)):
        parts: dict[str, int] = {}
        for dim in draw(st.permutations(dims))[:2]:
            parts[dim] = 2 ** draw(st.integers(0, count.bit_length() - 1))
            count //= parts[dim]
        found[place] = AtLevel(parts)
    return found


@given(st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_any_kernel_runs_to_the_values_of_the_interpreter(data: st.DataObject) -> None:
    fusion = data.draw(any_group())
    form = normalize(fusion)
    drawn = data.draw(any_schedule(form.fusion))
    depth = data.draw(st.integers(1, 3))
    levels = data.draw(any_split(form.fusion.outer_dims()))
    schedule = Schedule(drawn.tiles, levels, drawn.order, drawn.reduce, pipeline=depth, extras=drawn.extras)
    kernel = tile(form.fusion, schedule, outputs=form.outputs)
    machine = load_machine(data.draw(st.sampled_from(["systolic_16x16", "maia100"])))
    program, refusal = lowered(kernel, machine, data.draw(st.sampled_from([1, 3, 64])))
    if program is None:
        assert "limit" in refusal
        return
    arrays = groups.random_inputs(fusion)
    wanted = groups.run_tiles(kernel, arrays)
    start = [np.full_like(array, 77) for array in wanted]
    result = simulate(program, [*arrays, *start], machine)
    for got, expected, value in zip(result.outputs, wanted, kernel.results, strict=True):
        # sums of the same terms; NumPy's order of adding them follows the layout of its operands
        rounding = 4 * value.type.dtype.epsilon
        scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))) if rounding else 0.0
        np.testing.assert_allclose(got, expected, rtol=rounding, atol=rounding * scale, equal_nan=True)
    text = print_program(program)
    again = parse_program(text)
    assert print_program(again) == text
    assert simulate(again, None, machine, values=False).cycles == result.cycles, "time does not depend on the values"
