"""Products of block-scaled operands in a model: on a machine whose unit takes them they reach it as they are."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.microscaling import FORMATS, dequantise, quantise
from codesign.ir.program import Matmul, Program, Vector
from codesign.ir.scaled import scaled_factors
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile

DECODED = "select(u32({s}) == 255:u32, nan, select(u32({s}) == 0:u32, 5.877471754111438e-39, bitcast_f32(u32({s}) << 23:u32)))"
HALVED = "bitcast_f32(u32({s}) << 22:u32)"
"""No power of two for most exponents."""


def group(element: str, scale: str = DECODED, side: str = "bf16(%w[j, k]) * bf16({scale})") -> Fusion:
    """x[64, 128] @ w[48, 128].T, both in blocks of 32 along k."""
    left, right = (scale.format(s=f"%s{name}[{i}, (k // 32)]") for name, i in (("x", "i"), ("w", "j")))
    text = f"""
func @f(%x: {element}[64, 128], %sx: f8e8m0[64, 4], %w: {element}[48, 128], %sw: f8e8m0[48, 4]) {{
  %o = fusion {{
    %p = compute f32[i: 64, j: 48] sum(k: 128) in f32 {{
      f32(bf16(%x[i, k]) * bf16({left})) * f32({side.format(scale=right)})
    }}
    yield %p
  }}
  return %o
}}
"""
    (op,) = parse(text).main.body.ops
    assert isinstance(op, Fusion)
    return op


def weights(activation: str, places: str = "(k // 32)", width: int = 4, k: int = 128) -> Fusion:
    """x[64, k] as it is, @ w[48, k].T in blocks along k whose exponents lie at some places."""
    scale = DECODED.format(s=f"%sw[j, {places}]")
    text = f"""
func @f(%x: {activation}[64, {k}], %w: f4e2m1[48, {k}], %sw: f8e8m0[48, {width}]) {{
  %o = fusion {{
    %p = compute f32[i: 64, j: 48] sum(k: {k}) in f32 {{ f32(%x[i, k]) * f32(bf16(%w[j, k]) * bf16({scale})) }}
    yield %p
  }}
  return %o
}}
"""
    (op,) = parse(text).main.body.ops
    assert isinstance(op, Fusion)
    return op


SCHEDULE = Schedule({"i": 32, "j": 16, "k": 64}, reduce={"k": "looped"}, pipeline=2)


def program(fusion: Fusion, machine: str) -> Program:
    form = normalize(fusion)
    return lower(tile(form.fusion, SCHEDULE, outputs=form.outputs), load_machine(machine))


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp4"])
def test_blocks_reach_the_tensor_unit_as_they_are(name: str) -> None:
    form = FORMATS[name]
    assert form.element is not None
    fusion, rng = group(form.element.name), np.random.default_rng(0)
    sides = [rng.standard_normal((n, 128)) * 2.0 ** rng.integers(-9, 9, (n, 1)) for n in (64, 48)]
    (sx, x), (sw, w) = (quantise(side, form) for side in sides)
    sx[5, 1] = 255  # a block that is not a number
    lowered = program(fusion, "maia200")
    (product,) = [op for op in lowered.instructions() if isinstance(op, Matmul)]
    assert product.a.dtype is form.element
    assert all(product.scales)
    assert not any(isinstance(op, Vector) and op.axes[-1].name == "k" for op in lowered.instructions())
    named = {"x": x, "sx": sx, "w": w, "sw": sw}
    found = simulate(lowered, [named[value.name] for value in lowered.inputs], load_machine("maia200")).outputs[0]
    wanted = dequantise(sx, x, form).astype(np.float64) @ dequantise(sw, w, form).T.astype(np.float64)
    scale = np.abs(sides[0]).max(1)[:, None] * np.abs(sides[1]).max(1) * 128
    assert np.isnan(found[5]).all()
    good = np.arange(64) != 5
    assert np.all(np.abs(found - wanted)[good] <= 1e-6 * scale[good])


@pytest.mark.parametrize(
    ("places", "width", "taken"),
    [
        ("(k // 32)", 4, True),
        ("(k // 64)", 2, True),
        ("(k // 128)", 1, True),
        ("(k // 16)", 8, False),
        ("k", 128, False),
        ("(k*2 // 32)", 8, False),
        ("((k + 16) // 32)", 5, False),
        ("((k + 32) // 32)", 5, True),
        ("((k // 8) // 4)", 4, True),
        ("(k % 4)", 4, False),
    ],
)
@pytest.mark.parametrize("step", [16, 64, 128])
def test_only_whole_blocks_are_blocks(places: str, width: int, taken: bool, step: int) -> None:
    """Scales that stand for fewer numbers than a block, or for blocks that begin inside of one, are computed with."""
    fusion, rng = weights("f4e2m1", places, width), np.random.default_rng(0)
    form = normalize(fusion)
    schedule = Schedule({"i": 32, "j": 16, "k": step}, reduce={"k": "looped"})
    lowered = lower(tile(form.fusion, schedule, outputs=form.outputs), load_machine("maia200"))
    products = [op for op in lowered.instructions() if isinstance(op, Matmul)]
    assert {op.b.dtype.name for op in products} == {"f4e2m1" if taken else "bf16"}
    (x, _), (w, _) = (quantise(rng.standard_normal((n, 128)), FORMATS["mxfp4"])[::-1] for n in (64, 48))
    scales = rng.integers(120, 134, (48, width)).astype(np.uint8)
    at = np.array([eval(places, {"k": k}) for k in range(128)])
    named = {"x": x, "w": w, "sw": scales}
    found = simulate(lowered, [named[value.name] for value in lowered.inputs], load_machine("maia200")).outputs[0]
    wanted = x.astype(np.float64) @ (w * 2.0 ** (scales.astype(np.float64)[:, at] - 127)).T
    assert np.all(
        np.abs(found - wanted) <= 1e-6 * (np.abs(x) @ np.abs(w * 2.0 ** (scales.astype(np.float64)[:, at] - 127)).T)
    )
    cost = DataflowModel().predict(summarize(form.fusion), load_machine("maia200"), ScheduleBatch.of([schedule]))
    run = simulate(lowered, None, load_machine("maia200"), values=False)
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.1)


@pytest.mark.parametrize(
    ("activation", "machine", "features", "taken"),
    [
        ("f8e4m3", "maia200", {}, True),
        ("bf16", "maia200", {}, False),
        ("bf16", "maia200", {"widened_products": True}, True),
        ("f8e4m3", "maia100", {}, False),
        ("bf16", "gaudi3", {"widened_products": True}, False),
    ],
    ids=["FP8 by FP4", "bf16", "bf16 where a unit widens", "one width", "no blocks"],
)
def test_weights_in_blocks_beside_wider_operands(
    activation: str, machine: str, features: dict[str, bool], taken: bool
) -> None:
    """Narrow weights reach the unit as they are where it takes them beside wider operands; nothing of them is computed on vectors then."""
    given = load_machine(machine)
    target = given.model_copy(update={"features": {**given.features, **features}})
    fusion, rng = weights(activation, k=160, width=5), np.random.default_rng(3)
    form = normalize(fusion)
    schedule = Schedule({"i": 64, "j": 16, "k": 64}, reduce={"k": "looped"}, pipeline=2)
    lowered = lower(tile(form.fusion, schedule, outputs=form.outputs), target)
    kinds = {(op.a.dtype.name, op.b.dtype.name) for op in lowered.instructions() if isinstance(op, Matmul)}
    assert kinds == ({(activation, "f4e2m1")} if taken else {("bf16", "bf16")})
    assert taken != any(isinstance(op, Vector) for op in lowered.instructions())
    sw, w = quantise(rng.standard_normal((48, 160)), FORMATS["mxfp4"])
    _, x = quantise(rng.standard_normal((64, 160)), FORMATS["mxfp8_e4m3"])
    named = {"x": x, "w": w, "sw": sw}
    run = simulate(lowered, [named[value.name] for value in lowered.inputs], target)
    wide = dequantise(sw, w, FORMATS["mxfp4"]).astype(np.float64)
    assert np.all(np.abs(run.outputs[0] - x @ wide.T) <= 1e-6 * (np.abs(x) @ np.abs(wide).T))
    cost = DataflowModel().predict(summarize(form.fusion), target, ScheduleBatch.of([schedule]))
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.05)
    assert cost.joules[0] == pytest.approx(run.joules, rel=0.1)


@pytest.mark.parametrize("machine", ["maia100", "maia200", "gaudi3", "tpu_v4"])
def test_it_is_priced_as_it_is_lowered(machine: str) -> None:
    """gaudi3 multiplies 8 bits without blocks' exponents, tpu_v4 only wider numbers: there the vector unit scales first."""
    target, fusion = load_machine(machine), group("f8e4m3")
    lowered = program(fusion, machine)
    (product,) = [op for op in lowered.instructions() if isinstance(op, Matmul)]
    assert product.a.dtype.name == ("f8e4m3" if machine.startswith("maia") else "bf16")
    cost = DataflowModel().predict(summarize(normalize(fusion).fusion), target, ScheduleBatch.of([SCHEDULE]))
    run = simulate(lowered, None, target, values=False)
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.1)
    assert cost.joules[0] == pytest.approx(run.joules, rel=0.1)


@pytest.mark.parametrize(
    "fusion",
    [
        group("f8e4m3", HALVED),
        group("f8e4m3", side="bf16(%w[j, k]) * bf16({scale}) * 2.0:bf16"),
        group("f8e4m3", side="bf16(%w[j, k]) + bf16({scale})"),
        group("f16"),
    ],
    ids=["no power of two", "times something else", "no product", "wide numbers"],
)
def test_what_only_looks_like_it_is_computed_first(fusion: Fusion) -> None:
    form = normalize(fusion)
    kernel = tile(form.fusion, SCHEDULE, outputs=form.outputs)
    assert scaled_factors(kernel, {"f8e4m3", "f16", "bf16"}) == {}
