"""Attention folded into one loop, as the compiler of each target has it."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.triton import compile_aot
from codesign.backends.triton.interpret import run_interpreted
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.costmodel.tested import ASSUMED
from codesign.ir.core import Module
from codesign.ir.errors import ScheduleError
from codesign.ir.scalar import Scalar
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse, print_module
from codesign.ir.tile import Dot, For, Load, Map, When
from codesign.ir.verify import verify_kernel
from codesign.passes.knobs import Site, check, predict
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.costmodel.groups import group
from tests.passes.tiling import groups
from tests.passes.tiling.test_bounds import window
from tests.passes.tiling.test_folding_attention import COLUMN, ROW, in_float64, inputs, variant

FOLDED = {"j": "fold", "d": "resident"}

MASKED = {
    "causal": ("select(j <= i + 48, %z[h, i, j], -inf)", lambda z, more: np.where(COLUMN <= ROW + 48, z, -np.inf), 1),
    "causal, grouped": (
        "%z[h, i, j] + select(j > i + 48, -inf, 0.0)",
        lambda z, more: np.where(COLUMN <= ROW + 48, z, -np.inf),
        2,
    ),
    "causal window": (
        "select((j <= i + 48) & (i + 1 <= j), %z[h, i, j], -inf)",
        lambda z, more: np.where((COLUMN <= ROW + 48) & (ROW + 1 <= COLUMN), z, -np.inf),
        1,
    ),
    "causal, by distance": (
        "select(j <= i + 48, %z[h, i, j] + %c[h] * f32(index(j - i)), -inf)",
        lambda z, more: np.where(COLUMN <= ROW + 48, z + more[1][:, None, None] * (COLUMN - ROW), -np.inf),
        1,
    ),
    "causal, capped": (
        "select(j <= i + 48, tanh(%z[h, i, j] / 3.0) * 3.0, -inf)",
        lambda z, more: np.where(COLUMN <= ROW + 48, np.tanh(z / 3.0) * 3.0, -np.inf),
        1,
    ),
    "ragged": ("%z[h, i, j]", lambda z, more: z, 1),
}
"""Scores by name, what they are of the product z of 32 queries and 80 keys, and query heads for each head of keys."""


@pytest.mark.parametrize("dtype", ["f16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bf16", "f32"))])
@pytest.mark.parametrize(
    "name", [n if n in ("causal window", "ragged") else pytest.param(n, marks=pytest.mark.slow) for n in MASKED]
)
def test_tiles_that_a_mask_fills_are_not_masked(name: str, dtype: str) -> None:
    """Loops over whole tiles hold no comparison of a lane and no choice, those over the border do; values are float64's."""
    text, score, group_size = MASKED[name]
    fusion = variant(text, dtype, group_size=group_size)
    schedule = Schedule({"i": 16, "j": 16 if name != "ragged" else 32, "d": 16, "e": 16}, reduce=FOLDED)
    kernel = lower(fusion, schedule)
    whole: list[For] = []
    border: list[For] = []
    for loop in (op for op in kernel.body.ops if isinstance(op, For)):
        masked = any(
            isinstance(op, Map) and "select(" in str(op.body) and "j" in op.body.variables() for op in loop.body.ops
        )
        (border if masked else whole).append(loop)
    assert len(whole) == 1
    assert border
    arrays = inputs(fusion, dtype, 1.0)
    wanted = in_float64(score, arrays, [value.name for value in fusion.uses()])
    (found,) = run_interpreted(kernel, arrays)
    allowed = {"f32": 1e-6, "bf16": 2e-2, "f16": 2e-3}[dtype] * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed)


def test_tiles_that_data_empty_are_left_out() -> None:
    """What no query's document holds is neither read nor multiplied: a NaN there reaches nothing."""
    fusion = variant("select(%p[i] == %k[j], %z[h, i, j], -inf)", "f16")
    kernel = lower(
        fusion, Schedule({"i": 16, "j": 16, "d": 16, "e": 16}, reduce=FOLDED, pipeline=2, extras={"skip": 1})
    )
    verify_kernel(kernel)
    text = print_module(Module(kernels={kernel.name: kernel}))
    assert print_module(parse(text)) == text
    (when,) = [op for op in kernel.body.walk() if isinstance(op, When)]
    assert len([op for op in when.body.ops if isinstance(op, Dot)]) == 2
    assert {op.buffer.name for op in when.body.ops if isinstance(op, Load)} == {"key", "v"}
    arrays = dict(zip([value.name for value in fusion.uses()], inputs(fusion, "f16", 1.0), strict=True))
    arrays["k"][16:48], arrays["p"][:] = 7, np.arange(32) // 11
    wanted = in_float64(
        lambda z, more: np.where(more[2][:, None] == more[3][None, :], z, -np.inf), [*arrays.values()], [*arrays]
    )
    arrays["key"][:, 16:48], arrays["v"][:, 16:48] = np.nan, np.nan
    for found in (groups.run_tiles(kernel, [*arrays.values()])[0], run_interpreted(kernel, [*arrays.values()])[0]):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


def test_what_data_empty_is_not_paid_as_far_as_is_said() -> None:
    machine = load_machine("h100_sxm")
    fusion = variant("select(%p[i] == %k[j], %z[h, i, j], -inf)", "f16")
    summary = summarize(fusion)
    assert summary.folded is not None
    assert [*summary.folded.tested] == ["j"]
    assert not summary.tested
    tiles = {"i": 16, "j": 16, "d": 16, "e": 16}
    schedules = [Schedule(tiles, reduce=FOLDED, extras={"warps": 1, "skip": skip}) for skip in (0, 1)]
    for schedule in schedules:
        check(schedule, Site.of(summary, machine))
    found = [predict(cost_model_for(machine), summary, machine, ScheduleBatch.of([one]), {}) for one in schedules]
    assert found[1].terms[0, 2:].sum() < found[0].terms[0, 2:].sum()
    assert ASSUMED in found[1].remarks
    assert ASSUMED not in found[0].remarks
    with pytest.raises(ScheduleError, match=r"extras\.skip: no mask of the kernel is data"):
        check(schedules[1], Site.of(summarize(variant("%z[h, i, j]", "f16")), machine))
    with pytest.raises(ScheduleError, match=r"extras\.skip: programs of maia100 take no way"):
        check(Schedule(tiles, extras={"skip": 1}), Site.of(summary, load_machine("maia100")))


@pytest.mark.parametrize(
    ("width", "rows", "keys", "warps"), [(64, 128, 64, 4), (128, 128, 64, 8), (128, 128, 128, 8), (256, 64, 64, 8)]
)
@pytest.mark.slow
def test_nothing_is_spilled_and_the_price_knows_what_is_held(width: int, rows: int, keys: int, warps: int) -> None:
    """Registers within a fifth of what ptxas takes for sm_90, shared memory to the byte."""
    form = normalize(groups.attention(8, 1024, 1024, width))
    schedule = Schedule(
        {"i": rows, "j": keys, "d": width, "e": width}, reduce=FOLDED, pipeline=2, extras={"warps": warps}
    )
    made = compile_aot(lower(form.fusion, schedule, outputs=form.outputs), "sm_90")
    assert made.spills == 0
    machine = load_machine("h100_sxm")
    cost = cost_model_for(machine).predict(summarize(form.fusion), machine, ScheduleBatch.of([schedule]))
    assert cost.details["registers"][0] == pytest.approx(made.registers, rel=0.2)
    assert cost.details["shared_bytes"][0] == made.shared_bytes


def biased(width: int, score: str = "%z[h, i, j] * 0.1 + f32(%b[h, i, j])") -> Fusion:
    """Attention whose scores meet a bias, or are another `score` of the products z."""
    return group(
        f"%q: f16[8, 1024, {width}], %k: f16[8, 1024, {width}], %v: f16[8, 1024, {width}], %b: f16[8, 1024, 1024]",
        f"%z = compute f32[h: 8, i: 1024, j: 1024] sum(d: {width}) {{ f32(%q[h, i, d]) * f32(%k[h, j, d]) }}",
        f"%s = compute f32[h: 8, i: 1024, j: 1024] {{ {score} }}",
        "%m = compute f32[h: 8, i: 1024] max(j: 1024) { %s[h, i, j] }",
        "%t = compute f32[h: 8, i: 1024] sum(j: 1024) { exp(%s[h, i, j] - %m[h, i]) }",
        "%w = compute f16[h: 8, i: 1024, j: 1024] { f16(exp(%s[h, i, j] - %m[h, i]) / %t[h, i]) }",
        f"%o = compute f16[h: 8, i: 1024, e: {width}] sum(j: 1024) in f32 {{ f32(%w[h, i, j]) * f32(%v[h, j, e]) }}",
    )


@pytest.mark.parametrize(
    ("width", "rows", "keys", "warps", "stages"),
    [(64, 128, 64, 4, 2), (64, 64, 128, 4, 1), (128, 128, 64, 8, 2), (128, 128, 128, 8, 1), (256, 128, 64, 8, 1)],
)
@pytest.mark.slow
def test_a_bias_that_meets_scores_takes_the_registers_of_its_way(
    width: int, rows: int, keys: int, warps: int, stages: int
) -> None:
    """By registers it makes results change places, and may spill; copied to shared memory it takes none, and nothing does."""
    form = normalize(biased(width))
    extras = {"warps": warps}
    schedule = Schedule({"i": rows, "j": keys, "d": width, "e": width}, reduce=FOLDED, pipeline=stages, extras=extras)
    made = compile_aot(lower(form.fusion, schedule, outputs=form.outputs), "sm_90")
    machine = load_machine("h100_sxm")
    cost = cost_model_for(machine).predict(summarize(form.fusion), machine, ScheduleBatch.of([schedule]))
    predicted = cost.details["registers"][0] + cost.details["spilled_bytes"][0] / 4.0
    assert predicted == pytest.approx(made.registers + made.spills / 8.0, rel=0.15)
    assert stages == 1 or made.spills == 0


def test_no_load_runs_ahead_where_tiles_are_left_out_and_the_price_knows_the_buffers() -> None:
    """Nor in a loop within what is left out, which hides from Triton that the loop around it has one."""
    form = normalize(biased(128, "select(%b[h, i, j] > 0.0:f16, %z[h, i, j], -inf)"))
    tiles = {"i": 64, "j": 128, "d": 64, "e": 128}
    schedule = Schedule(tiles, reduce={"j": "fold", "d": "looped"}, pipeline=4, extras={"warps": 4, "skip": 1})
    made = compile_aot(lower(form.fusion, schedule, outputs=form.outputs), "sm_90")
    assert "num_stages=4" not in made.text("source")
    machine = load_machine("h100_sxm")
    cost = predict(cost_model_for(machine), summarize(form.fusion), machine, ScheduleBatch.of([schedule]), {})
    assert made.shared_bytes == cost.details["shared_bytes"][0]


@pytest.mark.parametrize(("width", "rows", "keys", "warps"), [(64, 128, 64, 4), (128, 128, 64, 8), (256, 64, 64, 8)])
@pytest.mark.parametrize("mask", [groups.below("j"), window(256)], ids=["causal", "window"])
@pytest.mark.slow
def test_nothing_is_spilled_where_loops_are_parted(mask: Scalar, width: int, rows: int, keys: int, warps: int) -> None:
    """Nor where the last tile of keys sticks out of their number."""
    form = normalize(groups.attention(8, 1000, 1000, width, mask))
    tiles = {"i": rows, "j": keys, "d": width, "e": width}
    kernel = lower(
        form.fusion,
        Schedule(tiles, reduce=FOLDED, pipeline=2, extras={"warps": warps}),
        outputs=form.outputs,
    )
    assert len([op for op in kernel.body.ops if isinstance(op, For)]) > 1
    assert compile_aot(kernel, "sm_90").spills == 0


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
@pytest.mark.slow
def test_other_targets_take_it(target: str) -> None:
    form = normalize(groups.attention(8, 1024, 1024, 64))
    schedule = Schedule({"i": 64, "j": 64, "d": 64, "e": 64}, reduce=FOLDED, pipeline=2, extras={"warps": 4})
    assert compile_aot(lower(form.fusion, schedule, outputs=form.outputs), target).spills == 0
