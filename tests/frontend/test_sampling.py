"""Orders, categories, counts and waiting times that are drawn: equal to torch's with this compiler's numbers, and distributed as they should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.frontend import capture
from codesign.frontend.draws import drawn_alike
from codesign.frontend.load import FunctionModule, ModelSource
from codesign.frontend.training import TrainingStep, trained
from codesign.ir.errors import UnsupportedError
from codesign.ir.interpreter import evaluate
from tests.frontend.checks import Of, assert_close, run
from tests.frontend.test_dropout import check_drawn

WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool)
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*sizes, dtype=dtype)


EQUAL: dict[str, Callable[[Tensor], Any]] = {
    "orders": lambda x: [
        torch.randperm(90),
        torch.randperm(1),
        torch.randperm(0),
        torch.randperm(50, dtype=torch.int32),
    ],
    "one category": lambda x: [x.multinomial(1), x[0].multinomial(1), x.multinomial(1, True), x.half().multinomial(1)],
    "several categories": lambda x: [x.multinomial(5), x.double().multinomial(x.shape[1]), x[2].multinomial(3)],
    "categories that come back": lambda x: [
        x.multinomial(70, True),
        x.double().multinomial(9, True),
        x[1].multinomial(4, True),
    ],
    "few events": lambda x: [torch.poisson(x), torch.poisson((x * 9).half()), torch.poisson(x * 0)],
    "many events": lambda x: [torch.poisson(x.double() * 400), torch.poisson(x * 30)],
    "trials": lambda x: [torch.empty_like(x).geometric_(0.3), empty(20, dtype=torch.int64).geometric_(0.7)],
    "whole numbers": lambda x: [empty(200, dtype=kind).random_() for kind in (*WHOLE, *FLOATS)],
    "whole numbers below": lambda x: [empty(30, dtype=torch.int64).random_(9), empty(30).random_(1 << 20)],
    "far limits": lambda x: [
        torch.randint(-(1 << 40), 1 << 41, (50,)),
        torch.randint(1 << 30, (50,)),
        torch.randint(99, (9,)),
    ],
}
"""What is whole is equal, not near."""


def test_more_categories_than_there_are() -> None:
    """Which torch finds when it runs; the place is that of the user's call."""
    with pytest.raises(UnsupportedError, match="12 of 9 categories, none of them twice") as found:
        capture(Of(lambda x: x.multinomial(12)), (torch.ones(2, 9),))
    assert "test_sampling.py" in str(found.value)


@pytest.mark.parametrize("name", EQUAL)
def test_draws_are_equal(name: str) -> None:
    torch.manual_seed(len(name))
    check_drawn(EQUAL[name], torch.rand(4, 30) + 1e-3, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cauchy(dtype: torch.dtype) -> None:
    far = 1e-3 if dtype is torch.float32 else 1e-9  # the tangent of a rounded angle near a right one
    check_drawn(
        lambda x: torch.empty_like(x).cauchy_() + torch.empty_like(x).cauchy_(1.0, 2.0),
        torch.zeros(20, 30, dtype=dtype),
        rtol=far,
        atol=1e-4,
    )


def test_all_of_a_range_is_drawn() -> None:
    """Low bits too, where limits are far apart."""
    (found,) = run(capture(Of(lambda x: [torch.randint(1 << 40, (4000,))]), (torch.zeros(1),)), (torch.zeros(1),))
    for bit in (0, 7, 20, 39):
        assert float((found >> bit & 1).double().mean()) == pytest.approx(0.5, abs=0.04)


def test_an_order_has_each_number_once() -> None:
    (found,) = run(capture(Of(lambda x: [torch.randperm(3000)]), (torch.zeros(1),)), (torch.zeros(1),))
    assert torch.equal(found.sort().values, torch.arange(3000))
    assert int((found == torch.arange(3000)).sum()) < 12


SHARES = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0])


@pytest.mark.parametrize("replacement", [False, True])
def test_categories_come_by_their_weights(replacement: bool) -> None:
    """The second of two as well: without replacement with the chance that the first was another one."""
    count = 60_000
    weights = (SHARES * 7).expand(count, 5).contiguous()
    with drawn_alike():
        found = weights.multinomial(2, replacement)
    first, second = (found[:, k].bincount(minlength=5) / count for k in (0, 1))
    others = SHARES if replacement else SHARES * ((SHARES / (1 - SHARES)).sum() - SHARES / (1 - SHARES))
    for shares, wanted in ((first, SHARES), (second, others)):
        torch.testing.assert_close(shares, wanted, rtol=0, atol=0.009)
    assert replacement or bool((found[:, 0] != found[:, 1]).all())


@pytest.mark.parametrize("rate", [0.4, 9.9, 10.0, 13.0, 70.0, 3e4])
def test_counts_have_the_mean_and_the_variance_of_their_rate(rate: float) -> None:
    x = torch.full((200, 200), rate, dtype=torch.float64)
    with drawn_alike():
        found = torch.poisson(x)
    assert abs(float(found.mean()) - rate) < 4 * (rate / found.numel()) ** 0.5
    assert float(found.var()) == pytest.approx(rate, rel=0.04)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_random_slopes_and_their_gradient(training: bool, inplace: bool) -> None:
    x = torch.randn(5, 40, requires_grad=True)

    def model(x: Tensor) -> Tensor:
        return F.rrelu(x * 2, 0.1, 0.4, training, inplace)

    source = trained(ModelSource(FunctionModule(model), (x,)))
    captured = capture(source)
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs((x,))))
    assert isinstance(source.model, TrainingStep)
    with drawn_alike():
        result = model(x)
        (wanted,) = torch.autograd.grad(result, x, list(source.model.following))
    assert_close(found["results"], result.detach())
    assert_close(found["gradients"]["input 0"], wanted)


def test_complex_numbers_are_drawn_in_both_parts() -> None:
    def model(z: Tensor) -> Any:
        made = torch.randn(3, 50, dtype=torch.complex64), torch.rand_like(z), torch.randn_like(z)
        return *made, torch.empty_like(z).normal_(0.0, 2.0)

    captured = check_drawn(model, torch.zeros(4, 60, dtype=torch.complex64), rtol=1e-5, atol=1e-6)
    found = run(captured, (torch.zeros(4, 60, dtype=torch.complex64),))
    for place, size in ((0, 1.0), (2, 1.0), (3, 4.0)):
        assert float(found[place].abs().square().mean()) == pytest.approx(size, rel=0.3)
