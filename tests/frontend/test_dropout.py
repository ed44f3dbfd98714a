"""Dropout of attention's weights, and random numbers in general, against torch with this compiler's draws."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.frontend import capture
from codesign.frontend.draws import drawn_alike
from codesign.ir.errors import UnsupportedError
from codesign.ir.tensor import Random
from tests.frontend.attention_calls import KINDS, attention_call
from tests.frontend.checks import Of, assert_close, assert_wellformed, run

CPU_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


def draws(captured: Any) -> list[Random]:
    return [op for op in captured.module.main.body.walk() if isinstance(op, Random)]


def check_drawn(
    function: Callable[..., Any], *inputs: Tensor, rtol: float | None = None, atol: float | None = None
) -> Any:
    """The captured function against torch with the same draws; gives what was captured."""
    captured = capture(Of(function), inputs)
    assert_wellformed(captured.module)
    with torch.no_grad(), drawn_alike():
        expected = function(*inputs)
    assert_close(run(captured, inputs), expected, rtol, atol)
    return captured


@pytest.mark.parametrize(("kind", "p"), [*((kind, 0.4) for kind in KINDS), ("empty", 0.1), ("empty", 1.0)])
def test_attention_drops_weights(kind: str, p: float) -> None:
    inputs, options = attention_call(kind)
    options["dropout_p"] = p
    captured = check_drawn(lambda *t: F.scaled_dot_product_attention(*t, **options), *inputs)
    assert len(draws(captured)) == (p < 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_attention_drops_weights_in_other_dtypes(dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(1, 2, 16, 8, dtype=dtype) for _ in range(3))
    far = {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-12}[dtype]
    check_drawn(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.3), q, k, v, rtol=far, atol=far)


def test_attention_without_dropout_draws_nothing() -> None:
    q, k, v = (torch.randn(1, 2, 5, 8) for _ in range(3))
    captured = capture(Of(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.0)), (q, k, v))
    assert not draws(captured)
    assert_close(run(captured, (q, k, v)), F.scaled_dot_product_attention(q, k, v))


def weights_of(p: float, calls: int = 1) -> Any:
    """Attention whose result is its weights, as the values are those of an identity; `calls` times."""

    def model(q: Tensor, k: Tensor) -> Any:
        eye = torch.eye(k.shape[-2]).expand(*k.shape[:-1], -1)
        return [F.scaled_dot_product_attention(q, k, eye, dropout_p=p) for _ in range(calls)]

    return Of(model)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale_of_kept_weights(p: float) -> None:
    """Within four deviations of a binomial distribution; kept weights are softmax / (1 - p); two calls drop others, two runs the same."""
    q, k = torch.randn(2, 3, 64, 8), torch.randn(2, 3, 64, 8)
    captured = capture(weights_of(p, 2), (q, k))
    first, second = run(captured, (q, k))
    plain = (q @ k.mT / 8**0.5).softmax(-1)
    deviation = (p * (1 - p) / plain.numel()) ** 0.5
    for found in (first, second):
        kept = found != 0
        assert abs(float(kept.float().mean()) - (1 - p)) < 4 * deviation
        torch.testing.assert_close(found, plain * kept / (1 - p))
    together = ((first != 0) & (second != 0)).float().mean()
    assert abs(float(together) - (1 - p) ** 2) < 4 * deviation
    assert_close(run(captured, (q, k)), [first, second])


@pytest.mark.parametrize("causal", [False, True])
def test_logsumexp_is_that_of_all_weights(causal: bool) -> None:
    q, k, v = (torch.randn(1, 2, 9, 8) for _ in range(3))
    captured = capture(Of(lambda *t: CPU_FLASH(*t, 0.4, causal)), (q, k, v))
    found, logsumexp = run(captured, (q, k, v))
    assert_close(logsumexp, CPU_FLASH(q, k, v, 0.0, causal)[1])
    with torch.no_grad(), drawn_alike():
        assert_close(found, F.scaled_dot_product_attention(q, k, v, dropout_p=0.4, is_causal=causal))


def test_a_backward_that_is_not_told_the_mask_is_refused() -> None:
    q = torch.randn(1, 2, 9, 8)
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    with pytest.raises(UnsupportedError, match="what its forward dropped"):
        capture(Of(lambda x: backward(x, x, x, x, x, x[..., 0], 0.4, False)), (q,))


def everything(x: Tensor) -> Tensor:
    """All random operators that have a meaning here, one after the other."""
    y = F.dropout(x, 0.3) + F.dropout(x, 1.0) + F.dropout(x, 0.0) + F.dropout(x.clone(), 0.2, inplace=True)
    y = F.feature_alpha_dropout(F.alpha_dropout(F.dropout2d(y, 0.3), 0.3, True), 0.3, True)
    y = y * torch.rand(2, 3, 4, 4) + torch.randn_like(x) * torch.rand_like(x) + torch.randn(4)
    y = y + torch.empty_like(x).uniform_(1, 2) + torch.empty_like(x).normal_(1, 2) + torch.bernoulli(y.sigmoid())
    y = y + torch.randint(-3, 9, (4,)) + torch.randint(9, (4,)) + torch.randint_like(x, 5) + torch.randint_like(x, 2, 5)
    return y + torch.empty_like(x).bernoulli_(0.3) + torch.bernoulli(x, 0.4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_draws_what_the_compiled_model_draws(dtype: torch.dtype) -> None:
    captured = check_drawn(everything, torch.randn(2, 3, 4, 4, dtype=dtype))
    assert [op.seed for op in draws(captured)] == list(range(1, 19))


def test_draws_of_the_chance_that_torch_has_by_default() -> None:
    check_drawn(lambda x: F.dropout(x, 0.5) + torch.empty_like(x).bernoulli_(), torch.randn(4, 50))


def test_a_draw_of_another_chance_is_seen() -> None:
    """The same draws do not make models alike that drop other shares, or in another place."""
    x = torch.randn(4, 50)
    found = run(capture(Of(lambda x: F.dropout(x, 0.3)), (x,)), (x,))
    others: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.dropout(x, 0.35),
        lambda x: F.dropout(x.T.contiguous(), 0.3).T,
    ]
    for other in others:
        with torch.no_grad(), drawn_alike():
            assert not torch.equal(found, other(x))


WAITED: dict[str, Callable[[Tensor], Tensor]] = {
    "exponential": lambda x: torch.empty_like(x).exponential_() + torch.empty_like(x).exponential_(3.0),
    "log normal": lambda x: torch.empty_like(x).log_normal_() + torch.empty_like(x).log_normal_(0.5, 0.25),
    "normal of each": lambda x: torch.normal(x, x.abs() + 1) + torch.normal(x, 2.0) + torch.normal(1.0, x.abs()),
    "chance of each": lambda x: torch.empty_like(x).bernoulli_(x.sigmoid()),
}


@pytest.mark.parametrize("name", WAITED)
def test_other_draws_follow_the_compilers_numbers(name: str) -> None:
    check_drawn(WAITED[name], torch.randn(4, 50))


def test_what_is_drawn_has_the_mean_that_it_says() -> None:
    x = torch.full((200, 300), 0.3)
    for function, wanted in (
        (lambda x: torch.empty_like(x).exponential_(4.0), 0.25),
        (lambda x: torch.empty_like(x).log_normal_(0.0, 0.5), math.exp(0.125)),
        (lambda x: torch.normal(x, x), 0.3),
        (lambda x: torch.empty_like(x).bernoulli_(x), 0.3),
    ):
        found = run(capture(Of(function), (x,)), (x,))
        assert float(found.mean()) == pytest.approx(wanted, rel=0.02)
        assert found.isfinite().all()
