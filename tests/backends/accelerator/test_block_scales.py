"""Products of block-scaled operands on the tensor unit: their values, bytes, clocks and text."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.accelerator import simulate
from codesign.costmodel.machine import load_machine
from codesign.ir.errors import ParseError, UnsupportedError
from codesign.ir.microscaling import FORMATS, dequantise, quantise
from codesign.ir.text.program import parse_program, print_program

MAIA = load_machine("maia200")


def product(element: str, scale: str = "f8e8m0") -> str:
    return f"""
program @product(%x: {element}[64, 128], %sx: {scale}[64, 4], %w: {element}[64, 128], %sw: {scale}[64, 4]) -> (%y: f32[64, 64]) on 2 cores {{
  scratch a: {element}[32, 128] at 0
  scratch b: {element}[64, 128] at 8192
  scratch c: {scale}[32, 4] at 32768
  scratch d: {scale}[64, 4] at 36864
  scratch y: f32[32, 64] at 40960
  semaphore there, done
  load a[m, k] [m: 32, k: 128] = %x[core*32 + m, k]
  load c[m, k] [m: 32, k: 4] = %sx[core*32 + m, k]
  load b[n, k] [n: 64, k: 128] = %w[n, k]
  load d[n, k] [n: 64, k: 4] = %sw[n, k] signal there
  matmul y[m, n] = a[m, k] scaled c[m, (k // 32)] @ b[n, k] scaled d[n, (k // 32)] [m: 32, n: 64, k: 128] wait there >= 1 signal done
  store %y[core*32 + m, n] [m: 32, n: 64] = y[m, n] wait done >= 1
}}"""


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4"])
def test_a_product_of_blocks(name: str) -> None:
    form = FORMATS[name]
    assert form.element is not None
    rng = np.random.default_rng(0)
    sides = [rng.standard_normal((64, 128)) * 2.0 ** rng.integers(-20, 20, (64, 1)) for _ in range(2)]
    (sx, x), (sw, w) = (quantise(side, form) for side in sides)
    program = parse_program(product(form.element.name))
    result = simulate(program, [x, sx, w, sw], MAIA)
    wanted = dequantise(sx, x, form).astype(np.float64) @ dequantise(sw, w, form).T.astype(np.float64)
    scale = np.abs(sides[0]).max(1)[:, None] * np.abs(sides[1]).max(1) * 128
    assert np.all(np.abs(result.outputs[0] - wanted) <= 1e-6 * scale)
    lines = 2 * (form.bytes(32 * 128) + form.bytes(64 * 128)) + 64 * 64 * 4
    assert result.dram_bytes == pytest.approx(lines, rel=0.01)
    text = print_program(program)
    assert "a[m, k] scaled c[m, (k // 32)] @ b[n, k] scaled d[n, (k // 32)]" in text
    assert print_program(parse_program(text)) == text


def test_fewer_bits_are_never_slower() -> None:
    cycles = [
        simulate(parse_program(product(element)), None, MAIA, values=False).cycles
        for element in ("f8e4m3", "f6e2m3", "f4e2m1")
    ]
    assert cycles[0] >= cycles[1] > cycles[2]


@pytest.mark.parametrize(
    ("machine", "element", "right", "message"),
    [
        ("gaudi3", "f8e4m3", "f8e4m3", "the tensor unit of gaudi3 takes no f8e4m3 in blocks with scales of f8e8m0"),
        ("maia200", "f8e4m3", "bf16", "the tensor unit of maia200 does not multiply f8e4m3 by bf16"),
        ("maia200", "f8e4m3", "f4e2m1", ""),
    ],
)
def test_a_program_asks_no_more_of_a_unit_than_it_does(machine: str, element: str, right: str, message: str) -> None:
    text = product(element).replace(f"b: {element}", f"b: {right}").replace(f"%w: {element}", f"%w: {right}")
    program, target = parse_program(text), load_machine(machine)
    if not message:
        assert simulate(program, None, target, values=False).cycles > 0
        return
    with pytest.raises(UnsupportedError, match=message):
        simulate(program, None, target, values=False)


def test_what_a_product_does_not_take_is_said() -> None:
    with pytest.raises(ParseError, match="a scale is of type f8e8m0 or f8e4m3, c is f32"):
        parse_program(product("f6e2m3", "f32"))
    with pytest.raises(UnsupportedError, match="the tensor unit of tpu_v4 has no rate for f6e2m3 operands"):
        simulate(parse_program(product("f6e2m3")), None, load_machine("tpu_v4"), values=False)
