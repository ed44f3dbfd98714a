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
from codesign.ir.tensor import Constant, Fusion, Launch, Random
from codesign.ir.text import parse, print_module
from codesign.ir.tile import For
from codesign.ir.verify import verify_kernel
from codesign.passes import optimize
from codesign.passes.normalize import normalize
from codesign.passes.planning import Choices, plan_module
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


def the_group(module: Module, *arrays: Array) -> tuple[Fusion, list[Array]]:
    """The one group of a module, and what it reads, given the module's inputs."""
    made = optimize(module)
    assert not any(isinstance(op, Random) for op in made.main.body.walk())
    (fusion,) = (op for op in made.main.body.ops if isinstance(op, Fusion))
    known = dict(zip(made.main.args, arrays, strict=False))
    for op in made.main.body.ops:
        if isinstance(op, Constant):
            known[op.result] = np.asarray(made.constants[op.constant])
    return fusion, [known[value] for value in fusion.uses() if value in known]


KINDS = ["bits u32", "bits i64", "uniform f32", "uniform f16"]
TILES = [(1, 1), (1, 64), (8, 2), (4, 16), (16, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tile_has_the_same_bits(kind: str) -> None:
    module = drawn(kind, 13, 37, offset=5)
    (wanted,) = evaluate(module, [KEY])
    assert len(np.unique(wanted)) > 400
    fusion, given = the_group(module, KEY)
    form = normalize(fusion)
    for tiles in TILES:
        kernel = lower(
            form.fusion, Schedule(dict(zip((dim.name for dim in form.fusion.computes[0].dims), tiles, strict=True)))
        )
        verify_kernel(kernel)
        (found,) = run_interpreted(kernel, given)
        np.testing.assert_array_equal(found, wanted, err_msg=str(tiles))
        (found,) = groups.run_tiles(kernel, given)
        np.testing.assert_array_equal(found, wanted, err_msg=str(tiles))


def test_columns_of_another_axis_have_them_too() -> None:
    """Neighbours that share a counter lie along the first axis of the tile."""
    module = drawn("uniform f32", 32, 16, transposed=True)
    (wanted,) = evaluate(module, [KEY])
    fusion, given = the_group(module, KEY)
    form = normalize(fusion)
    names = [dim.name for dim in form.fusion.computes[0].dims]
    kernel = lower(form.fusion, Schedule(dict(zip(names, (16, 8), strict=True))))
    assert "tl.permute(" in emission(kernel).core
    np.testing.assert_array_equal(run_interpreted(kernel, given)[0], wanted)


def test_two_neighbours_share_a_counter() -> None:
    form = normalize(the_group(drawn("uniform f32", 32, 64))[0])
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
    fusion, given = the_group(module, *arrays)
    text = print_module(optimize(module))
    assert print_module(parse(text)) == text
    form = normalize(fusion)
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
    fusion, _ = the_group(attention()[0])
    assert compile_aot(lower(normalize(fusion).fusion, folded(32)), target).spills == 0


def test_an_accelerator_draws_the_same_bits() -> None:
    module, maia = drawn("uniform f32", 16, 64), load_machine("maia100")
    (wanted,) = evaluate(module, [KEY])
    fusion, given = the_group(module, KEY)
    kernel = lower(normalize(fusion).fusion, tune(fusion, maia).schedule)
    (found,) = accelerator.simulate(accelerator.lower(kernel, maia, {}), given, maia).outputs
    np.testing.assert_array_equal(found, wanted)


def layers(count: int) -> Module:
    """Layers of a product, dropout and a norm, by a seed that is the module's input."""
    text = "%x: f32[32, 64], " + ", ".join(f"%w{n}: f32[64, 64]" for n in range(count)) + ", %key: i64[]"
    body = "%h0 = compute f32[i: 32, j: 64] { %x[i, j] }"
    for n in range(count):
        body += f"""
        %p{n} = compute f32[i: 32, j: 64] sum(k: 64) {{ %h{n}[i, k] * %w{n}[k, j] }}
        %r{n} = random uniform f32[32, 64] seed %key + {n + 1} offset 0
        %d{n} = compute f32[i: 32, j: 64] {{ select(%r{n}[i, j] < 0.75, %p{n}[i, j], 0.0) }}
        %m{n} = compute f32[i: 32] max(j: 64) {{ abs(%d{n}[i, j]) }}
        %h{n + 1} = compute f32[i: 32, j: 64] {{ %d{n}[i, j] / (%m{n}[i] + 1.0) }}"""
    return parse(f"func @main({text}) {{ {body}\n return %h{count} }}")


def test_equal_layers_share_their_kernels() -> None:
    """Which stream a layer draws is data: six of them have no more kernels than one."""
    machine = load_machine("h100_sxm")
    one, six = (plan_module(layers(count), machine, Choices(budget=16)).module for count in (1, 6))
    launches = [sum(isinstance(op, Launch) for op in made.main.body.walk()) for made in (one, six)]
    assert len(six.kernels) == len(one.kernels)
    assert launches[1] > len(six.kernels)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in [(32, 64), *[(64, 64)] * 6]]
    (wanted,) = evaluate(layers(6), [*arrays, KEY])
    assert len(np.unique(wanted)) > 1000
    (found,) = evaluate(six, [*arrays, KEY])
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_a_stream_has_one_constant_beside_those_of_the_model() -> None:
    """Draws of one stream read the same constant, whatever the model calls its own."""
    module = parse("""func @main(%key: i64[]) {
        %c = constant "stream..3": f32[2, 8]
        %a = random uniform f32[2, 8] seed %key + 3 offset 0
        %b = random uniform f32[2, 8] seed %key + 3 offset 8
        %d = random uniform f32[2, 8] seed 4 offset 0
        %y = compute f32[i: 2, j: 8] { %a[i, j] + %b[i, j] + %c[i, j] + %d[i, j] }
        return %y }""")
    module.constants["stream..3"] = np.arange(16, dtype=np.float32).reshape(2, 8) / 16
    (wanted,) = evaluate(module, [KEY])
    made = optimize(module)
    held = {name: np.asarray(data) for name, data in made.constants.items() if name != "stream..3"}
    assert [data.tolist() for data in held.values() if data.shape == () and data.dtype == np.int64].count(3) == 1
    np.testing.assert_array_equal(evaluate(made, [KEY])[0], wanted)
