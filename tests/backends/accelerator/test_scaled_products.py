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
    assert all(scale is not None for scale in product.scales)
    assert not any(isinstance(op, Vector) and op.axes[-1].name == "k" for op in lowered.instructions())
    named = {"x": x, "sx": sx, "w": w, "sw": sw}
    found = simulate(lowered, [named[value.name] for value in lowered.inputs], load_machine("maia200")).outputs[0]
    wanted = dequantise(sx, x, form).astype(np.float64) @ dequantise(sw, w, form).T.astype(np.float64)
    scale = np.abs(sides[0]).max(1)[:, None] * np.abs(sides[1]).max(1) * 128
    assert np.isnan(found[5]).all()
    good = np.arange(64) != 5
    assert np.all(np.abs(found - wanted)[good] <= 1e-6 * scale[good])


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
