"""Rules where the operator's own samples say little: corners of meaning, and operators taken whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from codesign.frontend import capture, claimed_operators, lower
from codesign.frontend.lowering import FAMILIES
from codesign.frontend.lowering.registry import RULES
from codesign.ir.core import tensor_type
from codesign.ir.dtypes import F32
from codesign.ir.errors import CodesignError, EvaluationError
from codesign.ir.tensor import Compute
from tests.frontend.attention_calls import KINDS, attention_call
from tests.frontend.checks import check, run


class Of(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def test_claims() -> None:
    claimed = claimed_operators()
    assert claimed == sorted(set(claimed))
    assert len(claimed) > 300
    assert all(name.count(".") == 2 for name in claimed)
    assert len(FAMILIES) >= 10


def test_two_rules_for_one_operator_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two lowering rules for aten\.add\.Tensor"):
        lower("aten.add.Tensor")(lambda b: None)
    assert RULES["aten.add.Tensor"].__name__ == "add"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_are_computed_in_float32(dtype: torch.dtype) -> None:
    """x * 3 / 3 in one operator each: the IR rounds once per operator, as torch does, so results are bit-equal."""
    x = torch.randn(257).to(dtype)
    for function in (lambda t: t * 3.1, lambda t: torch.exp(t), lambda t: torch.addcmul(t, t, t, value=0.3)):
        check(Of(function), x, rtol=0, atol=0)


def test_sums_of_narrow_floats_are_kept_in_float32() -> None:
    ones = torch.ones(4096, dtype=torch.bfloat16)
    captured = check(Of(lambda t: t.sum()), ones, rtol=0, atol=0)
    (op,) = [op for op in captured.module.main.body.ops if isinstance(op, Compute) and op.reductions]
    assert op.accumulate is F32


def test_integers_are_exact_and_wrap() -> None:
    check(Of(lambda a: (a.to(torch.int8) * 100, a.sum(), a // -3, a % -3)), torch.arange(-5, 9))
    check(Of(lambda a: torch.div(a, -4, rounding_mode="trunc")), torch.arange(-9, 9))


def test_nan_goes_through_extremes() -> None:
    x = torch.tensor([[1.0, float("nan"), 3.0], [float("inf"), -1.0, 0.0]])
    check(Of(lambda t: (t.relu(), t.clamp(0, 1), t.amax(1), t.max(1), t.argmax(1), t.cummax(1), t.sort(1))), x)


@pytest.mark.parametrize("kind", KINDS)
def test_attention(kind: str) -> None:
    inputs, options = attention_call(kind)
    check(Of(lambda *t: F.scaled_dot_product_attention(*t, **options)), *inputs)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 1, 2, 3), (7, 3, 4)),
        ((4, 2, 3), (3,)),
        ((3,), (5, 3, 2)),
    ],
)
def test_matmul_of_any_ranks(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    check(Of(torch.matmul), torch.randn(left), torch.randn(right))


def test_linear_is_one_reduction_without_reshapes() -> None:
    captured = check(nn.Linear(8, 4), torch.randn(2, 3, 8))
    computes = [op for op in captured.module.main.body.ops if isinstance(op, Compute)]
    assert len(computes) == 2
    assert computes[0].reductions
    assert len(tensor_type(computes[0].result).shape) == 3


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions(rank: int, transposed: bool) -> None:
    name = f"Conv{'Transpose' if transposed else ''}{rank}d"
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    if transposed:
        options["output_padding"] = 1
    layer = getattr(nn, name)(4, 6, 3, **options)
    check(layer.eval(), torch.randn(2, 4, *(7, 6, 5)[:rank]), rtol=1e-4, atol=1e-5)


def test_pools_with_ceil_mode_padding_and_positions() -> None:
    x = torch.randn(2, 3, 11, 9)
    check(Of(lambda t: F.max_pool2d(t, 3, 2, 1, ceil_mode=True, return_indices=True)), x)
    check(Of(lambda t: F.avg_pool2d(t, 3, 2, 1, ceil_mode=True, count_include_pad=False)), x)
    check(Of(lambda t: (F.adaptive_avg_pool2d(t, (4, 5)), F.adaptive_max_pool2d(t, (4, 5), return_indices=True))), x)


def test_reshape_groups_keep_unrelated_dims() -> None:
    """Splitting the last dim leaves the indices of the others alone: no division touches them."""
    captured = check(Of(lambda t: t.view(6, 5, 2, 4).relu()), torch.randn(6, 5, 8))
    view = next(op for op in captured.module.main.body.ops if isinstance(op, Compute))
    assert str(view.body) == "%args_0[i0, i1, i2*4 + i3]"


def test_training_mode_batch_norm_gives_new_running_statistics() -> None:
    layer = nn.BatchNorm2d(3).train()
    x = torch.randn(4, 3, 5, 5)
    reference = nn.BatchNorm2d(3).train()
    from codesign.frontend import capture
    from codesign.frontend.externals import externals
    from codesign.ir.interpreter import evaluate

    captured = capture(layer, (x,))
    results = evaluate(captured.module, captured.flatten_inputs((x,)), externals=externals(captured.module))
    expected = reference(x).detach()
    torch.testing.assert_close(captured.unflatten_outputs(results), expected, rtol=1e-4, atol=1e-5)
    new = {m.name: torch.from_numpy(results[m.position]) for m in captured.mutations}
    torch.testing.assert_close(new["running_mean"], reference.running_mean)
    torch.testing.assert_close(new["running_var"], reference.running_var)


def test_recurrent_and_embedding_layers() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(11, 6)
            self.lstm = nn.LSTM(6, 5, num_layers=2, batch_first=True)
            self.gru = nn.GRU(5, 4, batch_first=True, bidirectional=True)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            hidden, _ = self.lstm(self.table(ids))
            out: torch.Tensor = self.gru(hidden)[0]
            return out

    check(Model().eval(), torch.randint(0, 11, (2, 4)))


def test_transformer_layers_of_torch() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    check(layer, torch.randn(2, 6, 16), rtol=1e-4, atol=1e-5)
    decoder = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True).eval()
    check(decoder, torch.randn(2, 6, 16), torch.randn(2, 5, 16), rtol=1e-4, atol=1e-5)


class _Call(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_number_is_rounded_before_a_comparison(dtype: torch.dtype) -> None:
    x = torch.tensor([0.1, 0.3, 3.14]).to(dtype)
    check(_Call(lambda x: (x == 0.1, x.eq(3.14), x != 0.3, x > 0.1, x <= 0.3, x >= 3.14, x < 0.1)), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("number", [0.1, 0.3, 1.1])
def test_a_number_is_rounded_before_remainders_and_powers(dtype: torch.dtype, number: float) -> None:
    """Quotients jump at whole numbers, and large powers magnify what the number lost; as a divisor it keeps its digits."""
    x = torch.tensor([0.1, 0.3, -0.1, 1.1, 2.2, -3.3, 60.0]).to(dtype)
    scalar = torch.tensor(number)
    remainders = lambda x: (x % number, torch.remainder(number, x), torch.fmod(x, number), x % scalar)  # noqa: E731
    quotients = lambda x: (x // number, number // x, torch.div(scalar, x, rounding_mode="trunc"))  # noqa: E731
    check(_Call(remainders), x, rtol=0.0, atol=0.0)
    check(_Call(quotients), x, rtol=0.0, atol=0.0)
    check(_Call(lambda x: (number**x, x.abs() ** number)), x)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("ends", [(-9, 7, 7), (3, 60, 20), (60, -3, 23), (5, 9, 1), (0, 100, 38)])
def test_linspace_of_integers(dtype: torch.dtype, ends: tuple[int, int, int]) -> None:
    start, end, steps = ends
    if dtype is torch.uint8:
        start, end = abs(start), abs(end)
    x = torch.zeros(steps, dtype=dtype)
    check(_Call(lambda x: torch.linspace(start, end, steps, dtype=dtype) + x), x)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8, torch.float64])
def test_logspace(dtype: torch.dtype) -> None:
    x = torch.zeros(5, dtype=dtype)
    spaces = lambda x: (torch.logspace(0, 2, 5, dtype=dtype) + x, torch.logspace(0, 6, 4, base=2, dtype=dtype))  # noqa: E731
    check(_Call(spaces), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("options", [(2, 2, 1, 1), (3, 2, 1, 1), (2, 2, 1, 2)])
def test_positions_of_windows_of_minus_infinity(rank: int, options: tuple[int, int, int, int]) -> None:
    pool = getattr(F, f"max_pool{rank}d")
    x = torch.full((1, 1, *(6,) * rank), float("-inf"))
    check(_Call(lambda x: pool(x, *options, return_indices=True)), x)


def test_a_remainder_of_zero_has_the_sign_of_the_dividend() -> None:
    x = torch.tensor([4.0, -4.0, 5.0, -5.0, 0.0, -0.0])
    check(_Call(lambda x: (torch.signbit(torch.remainder(x, 2.0)), torch.signbit(torch.remainder(x, -2.0)))), x)


def test_a_class_that_there_is_not_is_an_error_where_it_is_looked_up() -> None:
    """As torch has it: eager raises for it too."""
    model = Of(lambda c: F.one_hot(c, 5))
    captured = check(model, torch.tensor([[3, 0], [4, 1]]))
    for wrong in (8, -1):
        with pytest.raises(EvaluationError, match=r"test_rules\.py:\d+.*one_hot"):
            run(captured, (torch.tensor([[3, 0], [wrong, 1]]),))


def test_statistics_of_all_batches_are_refused_by_the_name_of_their_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4, momentum=None))
    with pytest.raises(CodesignError, match=r"1 has momentum=None.*momentum=0\.1"):
        capture(model, (torch.randn(5, 3),))
    check(model.eval(), torch.randn(5, 3))
