"""Random numbers under `torch.compile`: new ones at every call, repeated by `torch.manual_seed`, and one mask for both passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from codesign.backends.triton.dynamo import compile_fx_graph

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def twice(x: Tensor) -> Tensor:
    return F.dropout(F.dropout(x.exp(), 0.3), 0.4)


def recomputed(x: Tensor) -> Tensor:
    """Its backward pass draws the mask once more, from the state that the forward pass saved."""
    result: Tensor = checkpoint(lambda y: F.dropout(y.exp().mul(2).log().exp(), 0.5).square(), x, use_reentrant=False)
    return result


def attention(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None], dropout_p=0.5)


def drawn(x: Tensor) -> Tensor:
    return x * torch.randn(x.shape) + torch.rand(x.shape)


DRAWING: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x.exp(), 0.5),
    "one after the other": twice,
    "recomputed": recomputed,
    "attention": attention,
    "numbers": drawn,
}


def stepped(compiled: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The result and the gradient of its sum."""
    y = compiled(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), gradient


@pytest.mark.parametrize(("name", "kernels"), [*((name, "reference") for name in DRAWING), ("numbers", "triton")])
def test_calls_differ_and_a_seed_repeats_them(name: str, kernels: str) -> None:
    compiled = torch.compile(DRAWING[name], backend=compile_fx_graph, options={"kernels": kernels})
    x = torch.randn(6, 5, requires_grad=True)
    torch.manual_seed(7)
    first, second = stepped(compiled, x), stepped(compiled, x)
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(7)
    for before, after in zip(first, stepped(compiled, x), strict=True):
        torch.testing.assert_close(after, before)
    for before, after in zip(second, stepped(compiled, x), strict=True):
        torch.testing.assert_close(after, before)


def test_backward_has_the_mask_of_its_own_forward() -> None:
    """y = exp(x) kept or dropped, so dy/dx = y; of two calls whose backward passes run later, each has its own mask."""
    compiled = torch.compile(twice, backend=compile_fx_graph, options={"kernels": "reference"})
    x = torch.randn(12, 9, requires_grad=True)
    results = [compiled(x) for _ in range(2)]
    assert not torch.equal(results[0] == 0, results[1] == 0)
    for result in reversed(results):
        (gradient,) = torch.autograd.grad(result.sum(), x)
        torch.testing.assert_close(gradient, result.detach())


def test_a_recomputed_mask_is_the_first_one() -> None:
    """y = (m exp(x))^2 with m kept or dropped, so dy/dx = 2 y."""
    compiled = torch.compile(recomputed, backend=compile_fx_graph, options={"kernels": "reference"})
    x = torch.randn(12, 9, requires_grad=True)
    results = [compiled(x) for _ in range(2)]
    for result in results:
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert 0.2 < (result == 0).float().mean() < 0.8
        torch.testing.assert_close(gradient, 2 * result.detach())


@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_gradients_are_those_of_the_weights_that_were_kept(kernels: str) -> None:
    """The kept weights are read off beside the result, as values of an identity are appended to those that are asked for."""
    p, (q, k, v) = 0.3, (torch.randn(1, 2, 6, 4, requires_grad=True) for _ in range(3))
    eye = torch.eye(6).expand(1, 2, 6, 6)

    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, torch.cat([v, eye], -1), dropout_p=p)

    torch.manual_seed(0)
    compiled = torch.compile(model, backend=compile_fx_graph, options={"kernels": kernels})
    result = compiled(q, k, v)
    kept = result[..., 4:].detach() != 0
    assert 0.4 < kept.float().mean() < 0.95
    expected = ((q @ k.mT / 2).softmax(-1) * kept / (1 - p)) @ torch.cat([v, eye], -1)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(result)
    found = torch.autograd.grad((result * weight).sum(), (q, k, v))
    for ours, theirs in zip(found, torch.autograd.grad((expected * weight).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_nothing_is_drawn_from_torch_where_a_graph_draws_nothing() -> None:
    compiled = torch.compile(lambda x: F.dropout(x * 2, 0.5, training=False), backend=compile_fx_graph)
    torch.manual_seed(3)
    before: Any = torch.get_rng_state()
    compiled(torch.randn(4, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)
