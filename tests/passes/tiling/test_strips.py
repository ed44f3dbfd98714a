"""Results made in strips with their part of the sums along: the same values, in however many strips, and never slower than apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.backends.triton.interpret import run_interpreted
from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.dtypes import F16, F32, DType
from codesign.ir.interpreter import evaluate
from codesign.ir.numerics import round_to
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.text import parse, print_module
from codesign.ir.verify import verify
from codesign.passes.context import Context
from codesign.passes.fuse import Fuse
from codesign.passes.lowering import tile_module
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import Tuner
from codesign.passes.tile import lower
from codesign.passes.tiling.cutting import Cutting, memory
from codesign.passes.tiling.strips import strips_of
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")

SHARES = """func @f(%x: f32[26, 40], %u: f32[40]) {
%o, %p = fusion {
%t = compute f32[i: 26] max(j: 40) { %x[i, j] }
%e = compute f32[i: 26, j: 40] { exp(%x[i, j] - %t[i]) }
%s = compute f32[i: 26] sum(j: 40) { %e[i, j] }
%a = compute f32[i: 26, j: 40] { %e[i, j] / %s[i] }
%l = compute f32[j: 40] max(i: 26) { %a[i, j] }
%r = compute f32[j: 40] { %l[j] * %u[j] }
yield %a, %r
}
return %o, %p
}"""


def parsed(text: str) -> Fusion:
    (fusion,) = parse(text).main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


KINDS = {
    "rows": groups.norm_gradients(36, columns=40),
    "narrow": groups.norm_gradients(36, columns=40, dtype=F16),
    "batches of rows": groups.norm_gradients(3, 32, columns=24),
    "ragged": groups.norm_gradients(130, columns=17),
    "shares and their maxima": parsed(SHARES),
}


def cut(fusion: Fusion, parts: int) -> tuple[Module, Fusion, Fusion]:
    strips = max(strips_of(fusion), key=lambda found: found.extent)
    cutting = Cutting(parts, along=list(fusion.dims()).index(strips.dim))
    assert cutting.applies(fusion)
    first, second = cutting.halves(fusion)
    results = cutting.results(fusion, first.results, second.results)
    body = Block(list(fusion.uses()), [*memory(first), first, second], results)
    return Module(functions={"main": Function("main", body)}), first, second


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("name", KINDS)
def test_strips_compute_the_same(name: str, parts: int) -> None:
    fusion = KINDS[name]
    module, first, second = cut(fusion, parts)
    verify(module)
    text = print_module(module)
    assert print_module(parse(text)) == text
    arrays = groups.random_inputs(fusion)
    for found, wanted in zip(evaluate(module, arrays), groups.reference(fusion, arrays), strict=True):
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=5e-3, atol=5e-3)
    for half in (first, second):
        groups.check(half, whole_rows(half))


def whole_rows(fusion: Fusion) -> Schedule:
    """A schedule of strips: rows whole, some at a time."""
    dims = normalize(fusion).fusion.dims()
    tiles = {name: 64 if name == "j" else 4 if name in normalize(fusion).fusion.inner_dims() else 1 for name in dims}
    return Schedule(tiles, reduce={"j": "resident"} if "j" in normalize(fusion).fusion.inner_dims() else {})


def exact(x: Any, w: Any, g: Any) -> list[Any]:
    """The gradients in float64."""
    x, w, g = (array.astype(np.float64) for array in (x, w, g))
    scale = 1.0 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    normed = (x - x.mean(-1, keepdims=True)) * scale
    along = g * w
    grown = along - along.mean(-1, keepdims=True) - normed * (along * normed).mean(-1, keepdims=True)
    return [scale * grown, (g * normed).sum(0), g.sum(0)]


@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 1e4])
def test_gradients_of_a_norm_against_float64(magnitude: float, dtype: DType) -> None:
    """In Triton's interpreter, with inputs of many magnitudes and a mean far from zero."""
    fusion = groups.norm_gradients(72, columns=48, dtype=dtype)
    _, first, second = cut(fusion, 6)
    rng = np.random.default_rng(3)
    x = round_to(((rng.standard_normal((72, 48)) + 2.0) * magnitude).astype(dtype.numpy), dtype)
    w = rng.standard_normal(48).astype(np.float32)
    g = round_to(rng.standard_normal((72, 48)).astype(dtype.numpy), dtype)
    one, other = kernel_of(first), kernel_of(second)
    by_name = {"x": x, "w": w, "g": g, "o": np.zeros((72, 48), dtype.numpy)}
    made = run_interpreted(one, [by_name[value.name] for value in one.inputs])
    by_name = {value.name: array for value, array in zip(one.results, made, strict=True)}
    totals = run_interpreted(other, [by_name[value.name] for value in other.inputs])
    for found, wanted in zip([made[0], *totals], exact(x, w, g), strict=True):
        tolerance = 4e-3 if dtype is F16 else 1e-4
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


def kernel_of(fusion: Fusion) -> Any:
    form = normalize(fusion)
    return lower(form.fusion, whole_rows(fusion), outputs=form.outputs)


@pytest.fixture(scope="module")
def tuner() -> Tuner:
    return Tuner(H100)


def test_one_pass_over_rows_and_one_over_parts_of_sums(tuner: Tuner) -> None:
    """From ops apart: two launches, and no more bytes than inputs, results and some parts."""
    group = groups.norm_gradients(8192, columns=1024)
    ops = list(group.computes)
    main = Function("main", Block(list(group.uses()), ops, group.body.yields))
    module = Module(functions={"main": main})
    Fuse().run(module, Context(H100, tuner.price, below=tuner.price, least=tuner.least))
    (fused,) = module.main.body.ops
    assert isinstance(fused, Fusion)
    tuned = tuner.tune(fused)
    kernels = tile_module(module, tuner)
    verify(module)
    assert [info.count for info in kernels.values()] == [1, 1]
    least = 4 * (3 * 8192 * 1024 + 3 * 1024)
    assert tuned.dram_bytes <= 1.1 * least
    assert tuned.seconds < apart(tuner, group)
    assert tuner.price(fused) == pytest.approx(tuned.seconds)


def apart(tuner: Tuner, group: Fusion) -> float:
    """Seconds of the results of rows and of the sums as groups of their own."""
    rows, sums = group.body.yields[:1], group.body.yields[1:]
    return sum(tuner.tune(Fusion(Block([], needed(group, wanted), wanted))).seconds for wanted in (rows, sums))


def needed(group: Fusion, wanted: Any) -> list[Compute]:
    live, kept = set(wanted), []
    for op in reversed(group.computes):
        if op.result in live:
            live.update(op.operands())
            kept.append(op)
    return kept[::-1]


def test_the_choice_is_kept_between_runs(tmp_path: Path) -> None:
    fusion = groups.norm_gradients(8192, columns=1024)
    first = Tuner(H100, kept=tmp_path / "choices.sqlite")
    tuned = first.tune(fusion)
    first.keep()
    again = Tuner(H100, kept=tmp_path / "choices.sqlite").tune(fusion)
    assert tuned.cutting.along is not None
    assert again.cutting == tuned.cutting
    assert again.seconds == pytest.approx(tuned.seconds)


def test_below_a_limit_fusion_sees_what_the_tuner_does(tuner: Tuner) -> None:
    fusion = groups.norm_gradients(8192, columns=1024)
    seconds = tuner.tune(fusion).seconds
    assert Tuner(H100).price(fusion, 0.9 * seconds) >= 0.9 * seconds
    assert Tuner(H100).price(fusion, 1.01 * seconds) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("a result along the dim needs the sum", "%y = compute f32[i: 8, j: 9] { %x[i, j] - %s[j] }"),
        ("a result lies not along the dim", "%y = compute f32[j: 9] { %x[0, j] }"),
    ],
)
def test_what_has_no_strips(what: str, body: str) -> None:
    text = f"""func @f(%x: f32[8, 9]) {{
%o, %p = fusion {{
%s = compute f32[j: 9] sum(i: 8) {{ %x[i, j] }}
{body}
yield %s, %y
}}
return %o, %p
}}"""
    assert not list(strips_of(parsed(text))), what


def test_products_have_no_strips() -> None:
    assert not list(strips_of(groups.gemm(64, 64, 64)))
