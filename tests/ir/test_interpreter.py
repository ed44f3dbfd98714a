"""The tensor-level interpreter means what PyTorch means."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from codesign.ir.core import Module
from codesign.ir.errors import EvaluationError
from codesign.ir.interpreter import evaluate
from codesign.ir.philox import philox
from codesign.ir.text import parse, print_module

Array = npt.NDArray[Any]
rng = np.random.default_rng(7)


def run(text: str, *inputs: Array, **options: Any) -> list[Array]:
    """Evaluate a function body given as text."""
    return evaluate(parse(text), inputs, **options)


def floats(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def test_matmul_of_real_size_is_quick_and_right() -> None:
    a, b = floats(1024, 2048), floats(512, 2048)
    start = time.perf_counter()
    (result,) = run(
        """func @main(%x: f32[M, 2048], %w: f32[512, 2048]) {
             %h = compute f32[i: M, j: 512] sum(k: 2048) { %x[i, k] * %w[j, k] }
             return %h }""",
        a,
        b,
    )
    assert time.perf_counter() - start < 5  # a billion products one by one take much longer
    np.testing.assert_allclose(result, a @ b.T, rtol=2e-5, atol=1e-3)


def test_batched_matmul_with_broadcast_batch() -> None:
    q, k = floats(2, 6, 5, 8), floats(2, 3, 7, 8)  # grouped queries: three heads of keys for six of queries
    (result,) = run(
        """func @main(%q: f32[2, 6, 5, 8], %k: f32[2, 3, 7, 8]) {
             %s = compute f32[b: 2, h: 6, i: 5, j: 7] sum(d: 8) { %q[b, h, i, d] * %k[b, h // 2, j, d] }
             return %s }""",
        q,
        k,
    )
    np.testing.assert_allclose(result, q @ k.repeat(2, axis=1).transpose(0, 1, 3, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_precision_matmul_accumulates_in_single(dtype: str) -> None:
    kind = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    a, b = torch.randn(33, 257).to(kind), torch.randn(257, 17).to(kind)
    (result,) = run(
        f"""func @main(%a: {dtype}[33, 257], %b: {dtype}[257, 17]) {{
             %c = compute {dtype}[i: 33, j: 17] sum(k: 257) {{ f32(%a[i, k]) * f32(%b[k, j]) }}
             return %c }}""",
        a.float().numpy(),
        b.float().numpy(),
    )
    expected = (a.double() @ b.double()).to(kind).double().numpy()
    np.testing.assert_allclose(result.astype(float), expected, rtol=2**-7)


def test_convolution_with_padding_stride_and_groups() -> None:
    image, weight = torch.randn(2, 6, 9, 11), torch.randn(8, 3, 3, 3)
    (result,) = run(
        """func @main(%im: f32[2, 6, 9, 11], %wt: f32[8, 3, 3, 3]) {
             %c = compute f32[n: 2, o: 8, y: 5, x: 6] sum(c: 3, r: 3, s: 3) {
               %im[n, (o // 4)*3 + c, y*2 + r - 1, x*2 + s - 1] else 0.0 * %wt[o, c, r, s] }
             return %c }""",
        image.numpy(),
        weight.numpy(),
    )
    expected = torch.nn.functional.conv2d(image, weight, stride=2, padding=1, groups=2)
    np.testing.assert_allclose(result, expected.numpy(), rtol=1e-4, atol=1e-5)


REDUCTIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda x: x.sum(1),
    "prod": lambda x: x.prod(1),
    "max": lambda x: x.amax(1),
    "min": lambda x: x.amin(1),
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(1),
}


@pytest.mark.parametrize("monoid", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["f32", "i32", "bf16"])
def test_reductions(monoid: str, dtype: str) -> None:
    values = torch.tensor([[3.0, 1.0, 3.0, -2.0], [0.5, -7.0, -7.0, 4.0]])
    if dtype == "f32":
        values = torch.cat([values, torch.tensor([[1.0, torch.nan, 5.0, torch.nan]])])
    if dtype == "i32":
        values = values.to(torch.int32)
    result_dtype = "i64" if monoid.startswith("arg") else dtype
    (result,) = run(
        f"""func @main(%x: {dtype}[M, 4]) {{
             %r = compute {result_dtype}[i: M] {monoid}(j: 4) {{ %x[i, j] }}
             return %r }}""",
        values.numpy(),
    )
    np.testing.assert_array_equal(result, REDUCTIONS[monoid](values).numpy())


def test_any_and_all_take_any_number() -> None:
    values = np.array([[0.0, np.nan], [0.0, 0.0], [1.0, 2.0]], np.float32)
    some, every = run(
        """func @main(%x: f32[3, 2]) {
             %a = compute bool[i: 3] any(j: 2) { %x[i, j] }
             %b = compute bool[i: 3] all(j: 2) { %x[i, j] }
             return %a, %b }""",
        values,
    )
    np.testing.assert_array_equal(some, [True, False, True])
    np.testing.assert_array_equal(every, [False, False, True])


def test_reductions_over_nothing_give_the_identity() -> None:
    results = run(
        """func @main(%x: f32[2, 0]) {
             %s = compute f32[i: 2] sum(j: 0) { %x[i, j] }
             %p = compute f32[i: 2] prod(j: 0) { %x[i, j] }
             %m = compute f32[i: 2] max(j: 0) { %x[i, j] }
             %d = compute f32[i: 2, k: 3] sum(j: 0) { %x[i, j] * %x[k, j] else 0.0 }
             return %s, %p, %m, %d }""",
        np.zeros((2, 0), np.float32),
    )
    assert [float(r.reshape(-1)[0]) for r in results] == [0.0, 1.0, -np.inf, 0.0]


def test_a_large_reduction_is_done_in_pieces() -> None:
    x = floats(300, 40, 1000)
    total, place = run(
        """func @main(%x: f32[300, 40, 1000]) {
             %s = compute f32[] max(i: 300, j: 40, k: 1000) { %x[i, j, k] * 2.0 }
             %a = compute i64[i: 300, j: 40] argmax(k: 1000) { %x[i, j, k] * 2.0 }
             return %s, %a }""",
        x,
    )
    assert total == x.max() * 2
    np.testing.assert_array_equal(place, x.argmax(2))


def test_gather_scatter_and_select() -> None:
    table, ids = floats(10, 4), np.array([3, 9, 0, 3, 3])
    values = floats(5, 4)
    gathered, added, last = run(
        """func @main(%table: f32[10, 4], %ids: i64[N], %v: f32[N, 4]) {
             %g = compute f32[i: N, j: 4] { %table[%ids[i], j] }
             %a = scatter add %table over (i: N, j: 4) at [%ids[i], j] { %v[i, j] }
             %s = scatter set %table over (i: N, j: 4) at [%ids[i] - 1, j] { %v[i, j] }
             return %g, %a, %s }""",
        table,
        ids,
        values,
    )
    np.testing.assert_array_equal(gathered, table[ids])
    expected = torch.from_numpy(table).index_add(0, torch.from_numpy(ids), torch.from_numpy(values))
    np.testing.assert_allclose(added, expected.numpy(), rtol=1e-6)
    assert (last[2] == values[4]).all()  # the last writer wins
    assert (last[9] == table[9]).all()  # index -1 is outside and skipped, not counted from the end


@pytest.mark.parametrize("outside", [4, -1])
def test_a_scatter_within_its_tensor_has_no_targets_outside(outside: int) -> None:
    text = """func @main(%x: f32[4], %ids: i64[2]) {
      %y = scatter set %x over (i: 2) within [%ids[i]] { 1.0 }
      return %y
    }"""
    (found,) = run(text, floats(4), np.array([3, 0]))
    assert found[3] == found[0] == 1
    assert "within [" in print_module(parse(text))
    with pytest.raises(EvaluationError, match="outside of %x"):
        run(text, floats(4), np.array([3, outside]))


@pytest.mark.parametrize("outside", [4, -1])
def test_a_group_that_writes_within_a_tensor_has_no_places_outside(outside: int) -> None:
    text = """func @main(%x: f32[4], %ids: i64[2]) {
      %y = fusion {
        %ones = compute f32[i: 2] { 1.0 }
        yield %ones
      } writes (0: %x PLACE [%ids[i]])
      return %y
    }"""
    within, anywhere = text.replace("PLACE", "within"), text.replace("PLACE", "at")
    assert print_module(parse(within)) != print_module(parse(anywhere))
    assert print_module(parse(print_module(parse(within)))) == print_module(parse(within))
    ids = np.array([3, outside])
    (found,) = run(anywhere, floats(4), ids)
    assert found[3] == 1
    with pytest.raises(EvaluationError, match="outside of %x"):
        run(within, floats(4), ids)


SCANS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda x: x.cumsum(1),
    "prod": lambda x: x.cumprod(1),
    "max": lambda x: x.cummax(1).values,
    "argmax": lambda x: x.cummax(1).indices,
    "argmin": lambda x: x.cummin(1).indices,
    "logsumexp": lambda x: x.logcumsumexp(1),
}


@pytest.mark.parametrize("monoid", SCANS)
def test_scans(monoid: str) -> None:
    values = torch.tensor(
        [[1.0, 3.0, 3.0, -1.0, 3.0], [2.0, torch.nan, 5.0, torch.nan, 1.0], [0.0, -torch.inf, 1.0, 1.0, 0.0]]
    )
    dtype = "i64" if monoid.startswith("arg") else "f32"
    (result,) = run(
        f"func @main(%x: f32[3, 5]) {{ %r = scan {dtype}[i: 3, j: 5] {monoid} over j {{ %x[i, j] }} return %r }}",
        values.numpy(),
    )
    np.testing.assert_allclose(result, SCANS[monoid](values).numpy(), rtol=1e-6)


@pytest.mark.parametrize("descending", [False, True])
def test_sort_is_stable_and_puts_nan_where_torch_does(descending: bool) -> None:
    values = torch.tensor([[2.0, torch.nan, 1.0, 2.0, -torch.inf, 1.0, torch.nan, 2.0]])
    order = "descending" if descending else ""
    text = f"""func @main(%x: f32[1, 8]) {{
        %v, %p = sort %x dim 1 {order}
        %t, %q = sort %x dim 1 {order} keep 3
        return %v, %p, %t }}"""
    result, positions, top = run(text, values.numpy())
    expected = values.sort(dim=1, descending=descending, stable=True)
    np.testing.assert_array_equal(result, expected.values.numpy())
    np.testing.assert_array_equal(positions, expected.indices.numpy())
    np.testing.assert_array_equal(top, expected.values.numpy()[:, :3])


def test_random_numbers_have_their_moments_and_repeat() -> None:
    text = """func @main() {
        %u = random uniform f32[200, 500] seed 3 offset 0
        %n = random normal f32[100000] seed 3 offset 0
        %w = random bits u32[4] seed 3 offset 0
        %s = random bits u32[3] seed 3 offset 1
        return %u, %n, %w, %s }"""
    uniform, normal, words, shifted = run(text)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(uniform.var() - 1 / 12) < 0.002
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    np.testing.assert_array_equal(words[1:], shifted)  # element p uses counter offset + p
    np.testing.assert_array_equal(run(text)[0], uniform)


@pytest.mark.parametrize(("key", "seed"), [(5, 12), (-9, -2), (2**63 - 1, -(2**63) + 6), (2**40, 2**40 + 7)])
def test_a_key_is_added_to_the_seed(key: int, seed: int) -> None:
    drawn = run("func @main(%k: i64[]) { %r = random bits u32[40] seed %k + 7 offset 2  return %r }", np.asarray(key))
    fixed = run(f"func @main() {{ %r = random bits u32[40] seed {seed} offset 2  return %r }}")
    np.testing.assert_array_equal(drawn[0], fixed[0])


def test_philox_known_answer() -> None:
    """The vector of zeros from Random123's known-answer tests for philox4x32-10."""
    words = philox(0, np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert [int(w[0]) for w in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_control_flow() -> None:
    text = """func @main(%x: f32[3], %n: i64[]) {
        %i = compute i64[] { 0 }
        %r, %k = while (%a = %x, %j = %i) cond {
          %c = compute bool[] { %j[] < %n[] }
          yield %c
        } do {
          %b = compute f32[i: 3] { %a[i] * 2.0 }
          %m = compute i64[] { %j[] + 1 }
          yield %b, %m
        }
        %big = compute bool[] { %k[] > 2 }
        %s = if %big { %t = compute f32[i: 3] { -%r[i] } yield %t } else { yield %r }
        return %s, %k }"""
    x = np.array([1.0, 2.0, 3.0], np.float32)
    for count in (0, 2, 3):
        result, steps = run(text, x, np.array(count))
        assert steps == count
        np.testing.assert_array_equal(result, x * 2**count * (-1 if count > 2 else 1))


def test_fusions_mean_their_parts_and_calls_go_outside() -> None:
    text = """func @main(%x: f32[M, N]) {
        %y = fusion "softmax" {
          %m = compute f32[i: M] max(j: N) { %x[i, j] }
          %s = compute f32[i: M] sum(j: N) { exp(%x[i, j] - %m[i]) }
          %y = compute f32[i: M, j: N] { exp(%x[i, j] - %m[i]) / %s[i] }
          yield %y
        }
        %z = call "my.flip"(%y) {dim = 1} : f32[M, N]
        return %z }"""
    x = floats(5, 9)

    def flip(op: Any, inputs: Any) -> Array:
        return np.flip(inputs[0], op.attributes["dim"])

    (result,) = run(text, x, externals={"my.flip": flip})
    np.testing.assert_allclose(result, torch.from_numpy(x).softmax(1).flip(1).numpy(), rtol=1e-5)
    with pytest.raises(EvaluationError, match=r"nothing runs the external call 'my.flip'"):
        run(text, x)


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        (
            "func @main(%x: f32[4]) { %y = compute f32[i: 5] { %x[i] } return %y }",
            [4],
            "reaches 0..4 but the size is 4",
        ),
        ("func @main(%x: f32[4]) { %y = compute f32[i: 4] { %x[i - 1] } return %y }", [4], "reaches -1..2"),
        ("func @main(%x: f32[S, S*2]) { return %x }", [3, 5], "size 1 of %x is 5"),
        ("func @main(%x: f32[4]) { return %x }", [3], "size 0 of %x is 3"),
        ('func @main() { %w = constant "w": f32[2] return %w }', None, "constant 'w' has no data"),
    ],
)
def test_what_cannot_run_says_why(text: str, inputs: list[int] | None, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        run(text, *([] if inputs is None else [floats(*inputs)]))


def test_errors_name_the_line_of_the_model() -> None:
    text = (
        'func @main(%x: f32[4]) { %y = compute f32[i: 5] { %x[i] } loc("net.py":12 in "fc" of "aten.view") return %y }'
    )
    with pytest.raises(EvaluationError) as caught:
        run(text, floats(4))
    assert caught.value.place == "net.py:12 in fc (aten.view)"


def test_constants_come_from_the_module() -> None:
    module: Module = parse('func @main() { %w = constant "fc.weight": bf16[2] return %w }')
    module.constants["fc.weight"] = np.array([1.001, 2.0])
    np.testing.assert_array_equal(evaluate(module, [])[0], np.array([1.0, 2.0], np.float32))


def test_inputs_of_narrow_formats_are_rounded_on_entry() -> None:
    (result,) = run("func @main(%x: bf16[1]) { return %x }", np.array([1.001]))
    assert result[0] == 1.0
