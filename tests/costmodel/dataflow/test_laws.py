"""What must hold of any program and any machine: nothing beats the roofline, and more of anything is never slower at the best schedule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.machine import Machine, figures_of, load_machine
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import summarize
from codesign.ir.errors import ScheduleError
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
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


DIGITS = """
func @digits(%x: bf16[4, 256, 64], %w: bf16[256, 256]) {
  %o = fusion {
    %h = compute bf16[i: 256, j: 256] sum(k: 256) in f32 { f32(%x[k // 64, i, k % 64]) * f32(%w[j, k]) }
    yield %h
  }
  return %o
}
"""
GROUPS: dict[str, Callable[[], Fusion]] = {
    "product": lambda: groups.gemm(512, 384, 256),
    "softmax": lambda: groups.softmax(300, 500),
    "sum": lambda: groups.gemm(16, 32, 8192),
    "convolution": lambda: groups.convolution(2, 16, 14, 32, 3, 1, 1),
    "attention": lambda: groups.attention(4, 200, 256, 64),
    "digits": lambda: next(op for op in parse(DIGITS).main.body.ops if isinstance(op, Fusion)),
}


def with_more(machine: Machine) -> dict[str, Machine]:
    """The machine with half as much again of each bandwidth, capacity and rate, with a faster clock, and with twice the cores."""
    figures = dict(figures_of(machine))
    levels = [name for name in figures if name.startswith("levels.")]
    sets = {name: [name] for name in figures if ".rate." in name or name.endswith("dma_bytes_per_clock")}
    sets |= {name: [name] for name in levels if name.endswith(("bandwidth", "capacity_bytes"))}
    sets["clock"] = [name for name in figures if name.endswith("clock_hz")]
    found: dict[str, Machine] = {}
    for what, names in sets.items():
        known = {name: figures[name].value for name in names}
        more = {name: type(value)(1.5 * value) for name, value in known.items() if value is not None}
        found |= {what: machine.with_figures(more)} if more else {}
    outer, inner, *rest = machine.levels
    found["cores"] = machine.model_copy(
        update={"levels": [outer, inner.model_copy(update={"fanout": 2 * inner.fanout}), *rest]}
    )
    return found


def hold_to_the_law(name: str, group: Fusion, *some: str) -> None:
    """No better machine is slower (of `some`: those)."""
    machine = load_machine(name)
    before = Tuner(machine).price(group)
    for what, more in with_more(machine).items():
        if not some or what in some:
            assert Tuner(more).price(group) <= before * 1.005, what


def test_a_better_machine_is_never_slower_at_the_best_schedule() -> None:
    hold_to_the_law("trainium2", groups.reduction(200, 64, "max"), "clock", "cores", "levels.dram.bandwidth")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maia100", "tpu_v4", "gaudi3", "trainium2", "gemmini_16x16"])
@pytest.mark.parametrize("kind", GROUPS)
def test_more_of_anything_is_never_slower_at_the_best_schedule(name: str, kind: str) -> None:
    hold_to_the_law(name, GROUPS[kind]())
