"""Products of 8-bit operands: values of torch's own routines, no call, and a matrix product of the operands' own dtype."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from codesign.frontend import capture
from codesign.frontend.externals import externals
from codesign.ir.analysis import contraction
from codesign.ir.dtypes import BF16, F8E4M3, F16, I8, DType
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call, Compute
from codesign.passes import optimize
from tests.frontend.checks import Of

E4, E5 = torch.float8_e4m3fn, torch.float8_e5m2
rng = torch.Generator().manual_seed(0)
X = torch.randn(32, 256, generator=rng).to(E4)
W = torch.randn(64, 256, generator=rng).to(E4)
ONE, ROWS, COLUMNS = torch.tensor(0.7), torch.rand(32, 1, generator=rng), torch.rand(1, 64, generator=rng)
BIAS = torch.randn(64, generator=rng).bfloat16()
WHOLE = torch.randint(-128, 128, (32, 64), dtype=torch.int8, generator=rng)
RIGHT = torch.randint(-128, 128, (64, 48), dtype=torch.int8, generator=rng)


def scaled(
    x: torch.Tensor,
    w: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    return torch._scaled_mm(x, w.t(), a, b, bias, out_dtype=dtype)


CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], DType]] = {
    "one scale": (scaled, (X, W, ONE, ONE), F8E4M3),
    "rows and columns": (scaled, (X, W, ROWS, COLUMNS), F8E4M3),
    "a bias": (lambda x, w, a, b, bias: scaled(x, w, a, b, bias, torch.bfloat16), (X, W, ONE, ONE, BIAS), F8E4M3),
    "8 bits out": (lambda x, w, a, b: torch._scaled_mm(x, w.t(), a, b), (X, W, ONE, ONE), F8E4M3),
    "two formats": (scaled, (X.float().to(E5), W, ONE, ONE), F16),  # which no unit of the IR multiplies as they are
    "integers": (torch._int_mm, (WHOLE, RIGHT), I8),
    "integers widened": (lambda x, y: x.int() @ y.int(), (WHOLE, RIGHT), I8),
    "weights of 8 bits": (
        torch._weight_int8pack_mm,
        (torch.randn(8, 64, generator=rng).bfloat16(), WHOLE, torch.rand(32, generator=rng).bfloat16()),
        BF16,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_torch_and_the_unit_is_that_of_the_operands(name: str) -> None:
    function, inputs, unit = CASES[name]
    captured = capture(Of(function), inputs)
    ops = list(optimize(captured.module, pipeline="canonicalize,fold-views,canonicalize,cse,dce").main.body.walk())
    assert not [op for op in ops if isinstance(op, Call)]
    forms = [form for form in (contraction(op) for op in ops if isinstance(op, Compute)) if form is not None]
    assert [form.operand for form in forms] == [unit]
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs(inputs)))
    torch.testing.assert_close(found.float(), function(*inputs).float(), rtol=1e-5, atol=1e-5)


def tiles_of_16_by_8(numbers: torch.Tensor, tiles: int) -> torch.Tensor:
    """Numbers of 4 bits, [n, k], as torch's `matrix_to_m16n8k16_Bint4_layout` lays them: a word holds eight numbers of a lane in two tiles."""
    n, k = numbers.shape
    words = torch.zeros(n // 8, k // (16 * tiles), 32, tiles // 2, dtype=torch.int64)
    for tile, outer, lane, inner in np.ndindex(words.shape):
        row, start = tile * 8 + lane // 4, (outer * tiles + 2 * inner) * 16 + (lane % 4) * 2
        columns = [start + half * 16 + side + one for half in (0, 1) for side in (0, 8) for one in (0, 1)]
        eight = [int(numbers[row, column]) for column in columns]
        for shift, place in zip(range(0, 32, 4), (0, 2, 4, 6, 1, 3, 5, 7), strict=True):
            words[tile, outer, lane, inner] |= eight[place] << shift
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


@pytest.mark.parametrize("tiles", [2, 4])
def test_weights_of_4_bits_in_the_order_of_a_units_lanes(tiles: int) -> None:
    """Unpacked in the product: its operand is made of words of 32 bits, and no weight of 16 bits is stored."""
    numbers, x = torch.randint(0, 16, (16, 128), generator=rng), torch.randn(4, 128, generator=rng).bfloat16()
    scales = (torch.rand(4, 16, 2, generator=rng) - 0.3).bfloat16()
    inputs = (x, tiles_of_16_by_8(numbers, tiles), scales)
    captured = capture(Of(lambda x, w, s: torch._weight_int4pack_mm(x, w, 32, s)), inputs)
    assert [type(op) for op in captured.module.main.body.ops] == [Compute]
    scale, middle = (scales[:, :, part].float().repeat_interleave(32, 0).t() for part in (0, 1))
    weight = ((numbers - 8).float() * scale + middle).bfloat16()
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs(inputs)))
    torch.testing.assert_close(found.float(), (x.float() @ weight.float().t()).bfloat16().float(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shapes", [((32, 2), (2, 1)), ((32, 2), (2, 64)), ((1, 2), (2, 1))])
def test_blocks_are_scaled_before_they_are_added(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    a, b = (torch.rand(shape, generator=rng) for shape in shapes)
    like = [torch.empty_like(t, device="meta") for t in (X, W, a, b)]  # no CPU of torch runs it
    module = capture(Of(scaled), tuple(like)).module
    left = X.double() * a.double().expand(32, 2).repeat_interleave(128, 1)
    right = W.double() * b.double().expand(2, 64).t().repeat_interleave(128, 1)
    (found,) = evaluate(module, [X.float().numpy(), W.float().numpy(), a.numpy(), b.numpy()])
    torch.testing.assert_close(torch.from_numpy(found).double(), left @ right.t(), rtol=1e-5, atol=1e-4)


def test_a_scale_of_the_result_stays_with_the_routine() -> None:
    def function(x: torch.Tensor, w: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch._scaled_mm(x, w.t(), a, a, scale_result=a)

    inputs = (X, W, ONE)
    captured = capture(Of(function), inputs)
    values = evaluate(captured.module, captured.flatten_inputs(inputs), externals=externals(captured.module))
    assert torch.equal(captured.unflatten_outputs(values).float(), function(*inputs).float())
