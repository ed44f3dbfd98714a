"""Indices beyond 32 bits that are values, or are of what a place is a remainder of, in kernels whose buffers are small."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends import accelerator
from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import run_interpreted
from codesign.costmodel.machine import load_machine
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.ir.tile import Kernel
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.passes.tiling import groups

FAR = {
    "integers": ("i64", "i64(%x[i, j]) + index(i * 1000003 + j)"),
    "numbers": ("f32", "%x[i, j] + f32(index(i * 1000003 + j))"),
    "remainders": ("f32", "%x[i, j] + f32(index((i * 1000003 + j) % 1009))"),
    "quotients": ("f32", "%x[i, j] + f32(index((j - i * 1000003) // 7 % 5))"),
    "comparisons": ("f32", "select(index(i * 1000003) > index(j * 536870912), %x[i, j], 0.0)"),
    "one factor": ("i64", "i64(%x[i, j]) + index(i * 1000000000000)"),
    "places": ("f32", "%x[(i * 1000003) % 4093, j]"),
    "draws": ("f32", "%x[i, j] + f32(philox(7, i, index(i * 536870912 + j)) >> 40)"),
}
ROWS, COLUMNS = 4096, 8


def kernel_of(dtype: str, body: str) -> tuple[Module, Kernel]:
    module = parse(f"""func @main(%x: f32[{ROWS}, {COLUMNS}]) {{
        %f = fusion {{
            %y = compute {dtype}[i: {ROWS}, j: {COLUMNS}] {{ {body} }}
            yield %y
        }}
        return %f }}""")
    (fusion,) = (op for op in module.main.body.ops if isinstance(op, Fusion))
    form = normalize(fusion)
    names = [dim.name for dim in form.fusion.computes[0].dims]
    return module, lower(form.fusion, Schedule(dict(zip(names, (512, COLUMNS), strict=False))))


@pytest.mark.parametrize("name", FAR)
def test_values_are_those_of_64_bits(name: str) -> None:
    module, kernel = kernel_of(*FAR[name])
    x, maia = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32), load_machine("maia100")
    (wanted,) = evaluate(module, [x])
    assert emission(kernel).wide
    np.testing.assert_array_equal(run_interpreted(kernel, [x])[0], wanted)
    np.testing.assert_array_equal(groups.run_tiles(kernel, [x])[0], wanted)
    program = accelerator.lower(kernel, maia, {})
    np.testing.assert_array_equal(accelerator.simulate(program, [x], maia).outputs[0], wanted)


@pytest.mark.parametrize("factor", [1000, 524288])
def test_what_fits_stays_in_32_bits(factor: int) -> None:
    assert not emission(kernel_of("f32", f"%x[i, j] + f32(index((i * {factor} + j) % 1009))")[1]).wide
