"""Tensor IR as linalg: torch-mlir's package parses and verifies it, and its compiler makes the interpreter's numbers of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from codesign.backends.mlir import mlir_text
from codesign.frontend import capture
from codesign.frontend.load import FunctionModule
from codesign.ir.errors import UnsupportedError
from codesign.ir.interpreter import evaluate
from codesign.ir.text import parse
from tests.backends.mlir.jit import run

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("torch_mlir") is None,
    reason='torch_mlir is not installed: pip install "codesign[torch-mlir]"',
)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


SOME = torch.tensor([1.5, float("nan"), float("-inf"), -2.5, 0.0, 0.25])
PLACES = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])


def fibonacci(n: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    def more(k: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return k > 0

    def step(k: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return k - 1, b.clone(), a + b

    loop: Any = torch._higher_order_ops.while_loop
    last: torch.Tensor = loop(more, step, (n, x, x + 1))[1]
    return last


MODELS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "functions": (
        lambda x: (
            F.gelu(x),
            x.round(),
            x.sign(),
            x.isnan(),
            x.isinf(),
            x.clamp(-1, 0.5),
            x.erf(),
            x.reciprocal(),
            x % 2,
        ),
        (SOME,),
    ),
    "integers": (
        lambda n, u: (
            n // 3,
            n % -3,
            -n,
            n.abs(),
            u + u,
            u // 7,
            u.float() / 3,
            u > 100,
            n.to(torch.int8),
            ~n & 5,
            n.bool(),
        ),
        (torch.arange(-4, 4) + 2**40, torch.tensor([1, 200, 255], dtype=torch.uint8)),
    ),
    "conversions": (lambda x: (x.to(torch.int32), x.half().float(), x > 0, x.double()), (normal(5),)),
    "reductions": (
        lambda x: (x.sum(), x.mean(0), x.prod(1), x.amin(0), (x > 0).all(1), x.logsumexp(1), F.layer_norm(x, (5,))),
        (normal(4, 5),),
    ),
    "places of extrema": (
        lambda x: (x.argmax(1), x.argmin(0), x.max(0)),
        (torch.tensor([[1.0, float("nan"), 3.0], [3.0, 3.0, 1.0]]),),
    ),
    "products": (
        lambda x, w: (F.linear(x, w), F.conv1d(x[None], w[:, :, None].expand(2, 4, 1)[:, :3], padding=1)),
        (normal(3, 4), normal(2, 4)),
    ),
    "reads": (
        lambda x, i: (
            F.pad(x, (1, 2), value=3.0),
            x.gather(0, i),
            x[i[1]],
            x.roll(1, 1).reshape(2, 10).T,
            torch.cat([x, x], 1),
        ),
        (normal(5, 4), PLACES),
    ),
    "writes": (
        lambda x, i, y: (x.scatter_add(0, i, y), x.index_put((i[1, :2],), y), x.slice_scatter(y, 0, 1, 3)),
        (normal(5, 4), PLACES, normal(2, 4)),
    ),
    "running": (lambda x: (x.cumsum(1), x.cumprod(0)), (normal(3, 4),)),
    "branches": (
        lambda x: torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,)),
        (normal(3, 2),),
    ),
    "loops": (fibonacci, (torch.tensor(5), torch.tensor(1.0))),
}


@needs_package
@pytest.mark.parametrize("name", MODELS)
def test_compiled_text_gives_the_interpreter_s_numbers(name: str) -> None:
    function, inputs = MODELS[name]
    captured = capture(FunctionModule(function), inputs)
    arrays = captured.flatten_inputs(inputs)
    expected = evaluate(captured.module, arrays)
    found = run(mlir_text(captured.module), arrays, [np.zeros_like(a) for a in expected])
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-5, atol=2e-6)


@needs_package
@pytest.mark.parametrize("rows", [2, 5])
def test_sizes_are_dynamic(rows: int) -> None:
    shapes = ({0: 2 * torch.export.Dim("half", min=1, max=32)},)

    def halves(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x.reshape(2, -1, 3).sum(0), -1)

    captured = capture(FunctionModule(halves), (normal(4, 3),), dynamic_shapes=(shapes,))
    text = mlir_text(captured.module)
    assert "tensor<?x3xf32>" in text
    arrays = captured.flatten_inputs((normal(2 * rows, 3),))
    (expected,) = evaluate(captured.module, arrays)
    (found,) = run(text, arrays, [np.zeros_like(expected)])
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@needs_package
def test_weights_are_globals_and_what_linalg_lacks_is_called() -> None:
    from torch_mlir import ir

    class Sorted(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).sort(1).values.to(torch.float8_e4m3fn)

    captured = capture(Sorted(16, 16), (normal(4, 16),))
    text = mlir_text(captured.module)
    assert text.count("#ml_program.extern") == 1, "the matrix; the vector is written out"
    assert "func.func private @sort_ascending_dim1(tensor<4x16xf32>)" in text
    with ir.Context():
        assert ir.Module.parse(text).operation.verify()


DOUBLED_SUM = """
module @m
func @main(%x: f32[3, 4]) {
  %r = compute f32[i: 3] sum(k: 4) { %x[i, k] * 2.0 }
  return %r
}
"""


def test_a_reduction_is_a_fill_and_a_generic() -> None:
    text = mlir_text(parse(DOUBLED_SUM))
    head = "(%arg0: tensor<3x4xf32>) -> (tensor<3xf32>)"
    maps = "affine_map<(d0, d1) -> (d0, d1)>, affine_map<(d0, d1) -> (d0)>"
    generic = f'linalg.generic {{indexing_maps = [{maps}], iterator_types = ["parallel", "reduction"]}}'
    assert [line.strip() for line in text.splitlines()] == [
        "module {",
        f"func.func @main{head} {{",
        "%v1 = tensor.empty() : tensor<3xf32>",
        "%v2 = arith.constant 0.0 : f32",
        "%v3 = linalg.fill ins(%v2 : f32) outs(%v1 : tensor<3xf32>) -> tensor<3xf32>",
        f"%v4 = {generic} ins(%arg0 : tensor<3x4xf32>) outs(%v3 : tensor<3xf32>) {{",
        "^bb0(%in5: f32, %out6: f32):",
        "%v7 = arith.constant 2.0 : f32",
        "%v8 = arith.mulf %in5, %v7 : f32",
        "%v9 = arith.addf %out6, %v8 : f32",
        "linalg.yield %v9 : f32",
        "} -> tensor<3xf32>",
        "return %v4 : tensor<3xf32>",
        "}",
        "}",
    ]


LEAST_BOOL = """
module @m
func @main(%x: bool[2, 3]) {
  %r = compute i64[i: 2] argmin(k: 3) { %x[i, k] }
  return %r
}
"""


@needs_package
def test_the_place_of_the_least_bool() -> None:
    module, x = parse(LEAST_BOOL), np.array([[True, False, False], [True, True, True]])
    (expected,) = evaluate(module, [x])
    (found,) = run(mlir_text(module), [x], [np.zeros_like(expected)])
    assert found.tolist() == expected.tolist() == [1, 0]


def test_what_has_no_form_is_one_line() -> None:
    captured = capture(FunctionModule(lambda x: x.logcumsumexp(0)), (normal(3),))
    with pytest.raises(UnsupportedError, match="running logsumexp has no form in MLIR"):
        mlir_text(captured.module)
