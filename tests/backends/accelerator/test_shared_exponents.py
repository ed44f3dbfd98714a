"""Products of MX9 and MX6: blocks of 16 with an exponent, and one of a bit for each pair; their values, bytes, clocks and text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.errors import UnsupportedError
from codesign.ir.microscaling import FORMATS, BlockFormat, dequantise, quantise, split_pairs
from codesign.ir.program import Matmul, Program, Vector
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.ir.text.program import parse_program, print_program
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile

MACHINES = ["maia100", "maia200"]


def product(element: str) -> Program:
    sides = ((64, "x", "core*32 + m", "m: 32"), (64, "w", "n", "n: 64"))
    loads = "\n".join(
        f"load {name}{i}[{row[0]}, k] [{row}, k: {width}] = %{name}{i}[{place}, k] signal there"
        for (_, name, place, row) in sides
        for i, width in enumerate((128, 8, 64))
    )
    x, w = (
        f"{name}0[{row}, k] scaled {name}1[{row}, (k // 16)] scaled {name}2[{row}, (k // 2)]"
        for name, row in ("xm", "wn")
    )
    multiply = f"matmul y[m, n] = {x} @ {w} [m: 32, n: 64, k: 128]"
    return parse_program(f"""
program @product(
  %x0: {element}[64, 128], %x1: f8e8m0[64, 8], %x2: f1e1m0[64, 64], %w0: {element}[64, 128], %w1: f8e8m0[64, 8], %w2: f1e1m0[64, 64]
) -> (%y: f32[64, 64]) on 2 cores {{
  scratch x0: {element}[32, 128] at 0
  scratch x1: f8e8m0[32, 8] at 4096
  scratch x2: f1e1m0[32, 64] at 8192
  scratch w0: {element}[64, 128] at 16384
  scratch w1: f8e8m0[64, 8] at 32768
  scratch w2: f1e1m0[64, 64] at 36864
  scratch y: f32[32, 64] at 40960
  semaphore there, done
  {loads}
  {multiply} wait there >= 6 signal done
  store %y[core*32 + m, n] [m: 32, n: 64] = y[m, n] wait done >= 1
}}""")


def parts(values: npt.ArrayLike, form: BlockFormat) -> tuple[list[npt.NDArray[np.generic]], npt.NDArray[np.float64]]:
    """Numbers of a format as elements, exponents of blocks and of pairs; and as numbers."""
    scales, elements = quantise(values, form)
    halved, own = split_pairs(elements, form)
    return [own, scales, halved], dequantise(scales, elements, form).astype(np.float64)


def wide(rows: int, width: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(rows)
    return rng.standard_normal((rows, width)) * 2.0 ** rng.integers(-4, 4, (rows, width))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["mx9", "mx6"])
def test_a_program_multiplies_them(name: str, machine: str) -> None:
    form = FORMATS[name]
    assert form.element is not None
    (x, left), (w, right) = (parts(wide(n, 128) * (n + i), form) for i, n in enumerate((64, 64)))
    program = product(form.element.name)
    result = simulate(program, [*x, *w], load_machine(machine))
    np.testing.assert_allclose(result.outputs[0], left @ right.T, atol=1e-6 * float((abs(left) @ abs(right.T)).max()))
    lines = 2 * (form.bytes(32 * 128) + form.bytes(64 * 128)) + 64 * 64 * 4
    assert result.dram_bytes == pytest.approx(lines, rel=0.01), "nine and six bits a number"
    text = print_program(program)
    assert "x0[m, k] scaled x1[m, (k // 16)] scaled x2[m, (k // 2)]" in text
    assert print_program(parse_program(text)) == text


def test_fewer_bits_are_faster() -> None:
    """2 and 4 times the products of bf16 a clock on maia100 (Hot Chips 2024)."""
    cycles = [
        simulate(product(element), None, load_machine("maia100"), values=False) for element in ("f8e0m7", "f5e0m4")
    ]
    assert cycles[0].cycles > cycles[1].cycles


@pytest.mark.parametrize(
    ("machine", "change", "message"),
    [
        ("gaudi3", ("", ""), "gaudi3 has no rate for f8e0m7 operands"),
        ("maia100", (": f8e0m7", ": f8e4m3"), "maia100 takes no f8e4m3 in blocks with scales of f1e1m0"),
    ],
)
def test_a_unit_without_them_says_so(machine: str, change: tuple[str, str], message: str) -> None:
    program = parse_program(print_program(product("f8e0m7")).replace(*change))
    with pytest.raises(UnsupportedError, match=message):
        simulate(program, None, load_machine(machine), values=False)


def group(element: str, block: str = "(k // 16)", pair: str = "(k // 2)", widths: tuple[int, int] = (8, 64)) -> Fusion:
    """x[64, 128] @ w[48, 128].T."""
    one = "select(u32({s}) == 255:u32, nan, select(u32({s}) == 0:u32, 5.877471754111438e-39, bitcast_f32(u32({s}) << 23:u32)))"
    sides = [
        f"f32(%{name}[{i}, k]) * {one.format(s=f'%s{name}[{i}, {block}]')} * (1.0 - 0.5 * f32(%p{name}[{i}, {pair}]))"
        for name, i in (("x", "i"), ("w", "j"))
    ]
    text = f"""
func @f(%x: {element}[64, 128], %sx: f8e8m0[64, {widths[0]}], %px: f1e1m0[64, {widths[1]}],
        %w: {element}[48, 128], %sw: f8e8m0[48, {widths[0]}], %pw: f1e1m0[48, {widths[1]}]) {{
  %o = fusion {{
    %p = compute f32[i: 64, j: 48] sum(k: 128) in f32 {{ ({sides[0]}) * ({sides[1]}) }}
    yield %p
  }}
  return %o
}}
"""
    (op,) = parse(text).main.body.ops
    assert isinstance(op, Fusion)
    return op


@pytest.mark.parametrize("machine", [*MACHINES, "tpu_v4"])
@pytest.mark.parametrize("name", ["mx9", "mx6"])
def test_a_kernel_hands_them_to_the_unit_as_they_are(name: str, machine: str) -> None:
    """Where it takes them; elsewhere what they are is computed before the product."""
    form, target = FORMATS[name], load_machine(machine)
    assert form.element is not None
    normal = normalize(group(form.element.name))
    schedule = Schedule({"i": 32, "j": 16, "k": 64}, reduce={"k": "looped"}, pipeline=2)
    kernel = tile(normal.fusion, schedule, outputs=normal.outputs)
    lowered = lower(kernel, target)
    products = [op for op in lowered.instructions() if isinstance(op, Matmul)]
    taken = machine in MACHINES
    assert [[scale.dtype.name for scale in scales] for op in products for scales in op.scales] == (
        2 * [["f8e8m0", "f1e1m0"]] if taken else [[]] * 2 * len(products)
    )
    assert taken != any(
        isinstance(op, Vector) and "k" in {axis.name for axis in op.axes} for op in lowered.instructions()
    )
    (x, left), (w, right) = (parts(wide(n, 128), form) for n in (64, 48))
    named = dict(zip(("x", "sx", "px", "w", "sw", "pw"), (*x, *w), strict=True))
    run = simulate(lowered, [named[value.name] for value in lowered.inputs], target)
    bound = 1e-6 * (abs(left) @ abs(right.T))
    assert np.all(abs(run.outputs[0] - left @ right.T) <= bound)
    cost = DataflowModel().predict(summarize(normal.fusion), target, ScheduleBatch.of([schedule]))
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.1)


@pytest.mark.parametrize(
    ("block", "pair"),
    [
        ("(k // 8)", "(k // 2)"),
        ("(k // 16)", "k"),
        ("((k + 8) // 16)", "(k // 2)"),
        ("(k // 16)", "((k + 1) // 2)"),
    ],
)
def test_other_blocks_are_computed_with(block: str, pair: str) -> None:
    """Scales of fewer numbers than a block or a pair, or of blocks that begin inside of one."""
    normal = normalize(group("f8e0m7", block, pair, (16, 128)))
    schedule = Schedule({"i": 32, "j": 16, "k": 64}, reduce={"k": "looped"})
    lowered = lower(tile(normal.fusion, schedule, outputs=normal.outputs), load_machine("maia100"))
    assert not any(scales for op in lowered.instructions() if isinstance(op, Matmul) for scales in op.scales)
