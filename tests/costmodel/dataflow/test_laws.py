"""What must hold of any program and any machine: nothing beats the roofline, and more of anything is never slower at the best schedule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.machine import figures_of, load_machine
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import summarize
from codesign.ir.errors import ScheduleError
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.schedule.tuner import Tuner
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

SIZES = st.sampled_from([1, 16, 60, 128, 200])


@st.composite
def groups_of_any_kind(draw: st.DrawFn) -> Fusion:
    a, b, c = draw(SIZES), draw(SIZES), draw(SIZES)
    kinds: list[Callable[[], Fusion]] = [
        lambda: groups.gemm(a, b, c),
        lambda: groups.softmax(a, b),
        lambda: groups.layer_norm(a, b),
        lambda: groups.reduction(a, b, "max"),
        lambda: groups.element_wise(a, b),
        lambda: groups.embedding(a, 64, b),
    ]
    return kinds[draw(st.integers(0, len(kinds) - 1))]()


@given(
    group=groups_of_any_kind(),
    name=st.sampled_from(["maia100", "tpu_v4", "gaudi3", "gemmini_16x16"]),
    seed=st.integers(0, 99),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_no_simulated_program_beats_the_roofline(group: Fusion, name: str, seed: int) -> None:
    machine, form = load_machine(name), normalize(group)
    kernel = summarize(form.fusion)
    drawn = space(kernel, machine)
    codes = drawn.sample(1, np.random.default_rng(seed))
    if not len(codes):
        return
    schedule = drawn.batch(codes).row(0)
    try:
        program = lower(tile(form.fusion, schedule, outputs=form.outputs), machine)
    except ScheduleError:
        return
    run = simulate(program, None, machine, values=False)
    tensor, vector, special, memory = roofline_bounds(kernel, machine, {})
    assert run.seconds >= max(tensor, vector, special, memory) * (1 - 1e-9)


GROUPS = {"product": groups.gemm(512, 384, 256), "softmax": groups.softmax(300, 500), "sum": groups.gemm(16, 32, 8192)}
FIGURES = (
    "levels.dram.bandwidth",
    "levels.cluster.bandwidth",
    "levels.core.bandwidth",
    "levels.cluster.capacity_bytes",
    "units.vector.rate.f32",
    "limits.dma_bytes_per_clock",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_more_of_anything_is_never_slower_at_the_best_schedule(name: str) -> None:
    machine = load_machine("maia100")
    before = Tuner(machine).price(GROUPS[name])
    figures = dict(figures_of(machine))
    for figure in FIGURES:
        more = machine.with_figures({figure: 1.5 * machine.need(figures[figure], figure)})
        assert Tuner(more).price(GROUPS[name]) <= before * 1.005, figure
    cores = machine.model_copy(
        update={
            "levels": [
                level.model_copy(update={"fanout": level.fanout * 2 if level.name == "cluster" else level.fanout})
                for level in machine.levels
            ]
        }
    )
    assert Tuner(cores).price(GROUPS[name]) <= before * 1.005
