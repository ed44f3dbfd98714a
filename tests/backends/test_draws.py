"""Random numbers drawn in kernels: the same bits from the interpreter, tiles of any size, Triton and an accelerator's program."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends import accelerator
from codesign.backends.triton import compile_aot
from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import run_interpreted
from codesign.costmodel.machine import load_machine
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion, Random
from codesign.ir.text import parse, print_module
from codesign.ir.tile import For
from codesign.ir.verify import verify_kernel
from codesign.passes import optimize
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import tune
from codesign.passes.tile import lower
from tests.backends.triton.kernels import Array
from tests.passes.tiling import groups

KEY = np.asarray(-(2**40) - 9)


def drawn(kind: str, rows: int, columns: int, offset: int = 0, transposed: bool = False) -> Module:
    """Numbers of a kind, in a kernel that adds nothing to them."""
    read, shape = ("j, i", f"{columns}, {rows}") if transposed else ("i, j", f"{rows}, {columns}")
    nothing = {"bits u32": "u32(0)", "bits i64": "0", "uniform f32": "0.0", "uniform f16": "f16(0.0)"}[kind]
    dtype = kind.split()[1]
    return parse(f"""func @main(%key: i64[]) {{
        %r = random {kind}[{shape}] seed %key + 3 offset {offset}
        %y = compute {dtype}[i: {rows}, j: {columns}] {{ %r[{read}] + {nothing} }}
        return %y }}""")


def the_group(module: Module) -> Fusion:
    made = optimize(module)
    assert not any(isinstance(op, Random) for op in made.main.body.walk())
    (fusion,) = (op for op in made.main.body.ops if isinstance(op, Fusion))
    return fusion


KINDS = ["bits u32", "bits i64", "uniform f32", "uniform f16"]
TILES = [(1, 1), (1, 64), (8, 2), (4, 16), (16, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tile_has_the_same_bits(kind: str) -> None:
    module = drawn(kind, 13, 37, offset=5)
    (wanted,) = evaluate(module, [KEY])
    assert len(np.unique(wanted)) > 400
    fusion = the_group(module)
    form = normalize(fusion)
    for tiles in TILES:
        kernel = lower(
            form.fusion, Schedule(dict(zip((dim.name for dim in form.fusion.computes[0].dims), tiles, strict=True)))
        )
        verify_kernel(kernel)
        (found,) = run_interpreted(kernel, [KEY])
        np.testing.assert_array_equal(found, wanted, err_msg=str(tiles))
        (found,) = groups.run_tiles(kernel, [KEY])
        np.testing.assert_array_equal(found, wanted, err_msg=str(tiles))


def test_columns_of_another_axis_have_them_too() -> None:
    """Neighbours that share a counter lie along the first axis of the tile."""
    module = drawn("uniform f32", 32, 16, transposed=True)
    (wanted,) = evaluate(module, [KEY])
    form = normalize(the_group(module))
    names = [dim.name for dim in form.fusion.computes[0].dims]
    kernel = lower(form.fusion, Schedule(dict(zip(names, (16, 8), strict=True))))
    assert "tl.permute(" in emission(kernel).core
    np.testing.assert_array_equal(run_interpreted(kernel, [KEY])[0], wanted)


def test_two_neighbours_share_a_counter() -> None:
    form = normalize(the_group(drawn("uniform f32", 32, 64)))
    names = [dim.name for dim in form.fusion.computes[0].dims]
    for tiles, shared in (((8, 32), True), ((8, 1), False)):
        core = emission(lower(form.fusion, Schedule(dict(zip(names, tiles, strict=True))))).core
        assert ("tl.join(" in core) is shared


ATTENTION = """func @main(%q: f16[2, 64, 32], %k: f16[2, 64, 32], %v: f16[2, 64, 32], %key: i64[]) {
    %z = compute f32[h: 2, i: 64, j: 64] sum(d: 32) { f32(%q[h, i, d]) * f32(%k[h, j, d]) }
    %s = compute f32[h: 2, i: 64, j: 64] { select(j <= i, %z[h, i, j] * 0.25, -inf) }
    %m = compute f32[h: 2, i: 64] max(j: 64) { %s[h, i, j] }
    %t = compute f32[h: 2, i: 64] sum(j: 64) { exp(%s[h, i, j] - %m[h, i]) }
    %r = random uniform f32[2, 64, 64] seed %key + 1 offset 0
    %w = compute f16[h: 2, i: 64, j: 64] {
      f16(exp(%s[h, i, j] - %m[h, i]) / %t[h, i] * select(%r[h, i, j] < 0.75, 1.3333334, 0.0)) }
    %o = compute f16[h: 2, i: 64, e: 32] sum(j: 64) { f32(%w[h, i, j]) * f32(%v[h, j, e]) }
    return %o }"""


def attention() -> tuple[Module, list[Array]]:
    rng = np.random.default_rng(4)
    return parse(ATTENTION), [*(rng.standard_normal((2, 64, 32)).astype(np.float16) for _ in range(3)), KEY]


def folded(j: int) -> Schedule:
    return Schedule({"i": 16, "j": j, "d": 32, "e": 32}, reduce={"j": "fold", "d": "resident"})


def test_attention_with_dropout_is_one_loop_of_one_kernel() -> None:
    """No tensor of scores is read or written, and the values are those of the whole model in each form."""
    module, arrays = attention()
    (wanted,) = evaluate(module, arrays)
    fusion = the_group(module)
    text = print_module(optimize(module))
    assert print_module(parse(text)) == text
    form = normalize(fusion)
    named = dict(zip(("q", "k", "v", "key"), arrays, strict=True))
    given = [named[value.name] for value in fusion.uses()]
    for j in (16, 32):
        kernel = lower(form.fusion, folded(j))
        assert sum(isinstance(op, For) for op in kernel.body.walk()) <= 2  # whole tiles and those on the border
        assert not any([size.constant for size in value.shape] == [2, 64, 64] for value in kernel.params)
        for found in (run_interpreted(kernel, given)[0], groups.run_tiles(kernel, given)[0]):
            np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), rtol=2e-3, atol=2e-3)
    maia = load_machine("maia100")
    program = accelerator.lower(lower(form.fusion, folded(32)), maia, {})
    (found,) = accelerator.simulate(program, given, maia).outputs
    np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_attention_with_dropout_compiles(target: str) -> None:
    fusion = the_group(attention()[0])
    assert compile_aot(lower(normalize(fusion).fusion, folded(32)), target).spills == 0


def test_an_accelerator_draws_the_same_bits() -> None:
    module, maia = drawn("uniform f32", 16, 64), load_machine("maia100")
    (wanted,) = evaluate(module, [KEY])
    fusion = the_group(module)
    kernel = lower(normalize(fusion).fusion, tune(fusion, maia).schedule)
    (found,) = accelerator.simulate(accelerator.lower(kernel, maia, {}), [KEY], maia).outputs
    np.testing.assert_array_equal(found, wanted)
