"""torch's flexible attention: score and mask functions of each kind, held to eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from codesign.backends.triton.dynamo import compile_fx_graph
from codesign.frontend import capture
from codesign.frontend.flex_nodes import is_flex
from codesign.frontend.functional import from_functional
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call
from tests.frontend.checks import assert_close, check, run

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 12


def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q >= k


def window(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q - k).abs() <= 3


def starved(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q >= k) & (q % 3 != 1)


def per_head(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q >= k) & ((h == 0) | (k > b))


def soft_cap(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return 5 * torch.tanh(score / 5)


def causal_score(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return torch.where(q >= k, score, -float("inf"))


class Attention(nn.Module):
    """Flexible attention with given functions; the block mask is made in `forward`, or before it."""

    def __init__(self, score_mod: Any = None, mask: Any = None, within: bool = True, **options: Any) -> None:
        super().__init__()
        self.score_mod, self.mask, self.options = score_mod, mask, options
        self.made = None if mask is None or within else create_block_mask(mask, None, None, SIZE, SIZE, device="cpu")

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        block_mask = self.made
        if self.mask is not None and block_mask is None:
            block_mask = create_block_mask(self.mask, None, None, q.shape[2], k.shape[2], device="cpu")
        return flex_attention(q, k, v, score_mod=self.score_mod, block_mask=block_mask, **self.options)


class Biased(nn.Module):
    """ALiBi: a slope for each head, of a tensor that the score function captures."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([0.5, 0.25, 0.125, 0.0625]))

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        def alibi(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
            return score + self.slopes[h] * (j - i)

        return flex_attention(q, k, v, score_mod=alibi, scale=0.3)


class Documents(nn.Module):
    """Attention within documents: the mask function captures an input."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, document: torch.Tensor) -> Any:
        def same(b: Any, h: Any, i: Any, j: Any) -> Any:
            return (document[b, i] == document[b, j]) & (i >= j)

        block_mask = create_block_mask(same, q.shape[0], None, q.shape[2], k.shape[2], device="cpu")
        return flex_attention(q, k, v, block_mask=block_mask)


def tensors(heads: int = 4, groups: int = 4, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, n, SIZE, 8, dtype=dtype) * 2 for n in (heads, groups, groups))


@pytest.mark.parametrize(
    "model",
    [
        Attention(),
        Attention(causal_score),
        Attention(soft_cap),
        Attention(None, causal),
        Attention(None, causal, within=False),
        Attention(soft_cap, window, scale=0.2),
        Attention(None, per_head),
        Biased(),
    ],
    ids=["plain", "causal_score", "soft_cap", "causal", "made_before", "window_and_cap", "per_head", "alibi"],
)
def test_score_and_mask_functions(model: nn.Module) -> None:
    captured = check(model, *tensors())
    assert not captured.warnings
    assert not any(isinstance(op, Call) for op in captured.module.main.body.ops)


def test_documents() -> None:
    document = torch.tensor([[0] * 5 + [1] * 7, [0] * 2 + [1] * 4 + [2] * 6])
    check(Documents(), *tensors(), document)


def test_rows_without_an_entry_are_zeros() -> None:
    captured = check(Attention(None, starved, return_lse=True), *tensors())
    out, logsumexp = run(captured, tensors())
    assert torch.equal(out[:, :, 1::3], torch.zeros(2, 4, 4, 8))
    assert torch.equal(logsumexp[:, :, 1::3], torch.full((2, 4, 4), -torch.inf))


def test_groups_of_heads_and_what_is_returned_besides() -> None:
    check(Attention(soft_cap, causal, enable_gqa=True, return_lse=True), *tensors(4, 2))
    check(Attention(soft_cap, causal, enable_gqa=True, return_aux=AuxRequest(lse=True)), *tensors(4, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow), torch.float64])
def test_types(dtype: torch.dtype) -> None:
    check(Attention(soft_cap, causal), *tensors(dtype=dtype))


@pytest.mark.slow
def test_strict_and_open_sizes_and_two_of_them() -> None:
    check(Attention(soft_cap, causal), *tensors(), strict=True)
    batch = torch.export.Dim("batch", min=2, max=16)
    captured = check(Attention(causal_score), *tensors(), dynamic_shapes=({0: batch},) * 3)
    more = tuple(torch.cat([x, x + 1]) for x in tensors())
    assert_close(run(captured, more), Attention(causal_score)(*more))

    class Two(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            first = flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: torch.where(i >= j, s, -2.0))
            return flex_attention(first, k, v, score_mod=lambda s, b, h, i, j: torch.where(i >= j, s, -5.0))

    check(Two(), *tensors())


@pytest.mark.slow
def test_functions_that_capture_open_sizes_or_make_tensors() -> None:
    class Sized(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            n = k.shape[2]

            def near(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
                return torch.where(2 * (i - j).abs() <= n, score / n, -float("inf"))

            return flex_attention(q, k, v, score_mod=near)

    length = torch.export.Dim("length", min=2, max=64)
    captured = check(Sized(), *tensors(), dynamic_shapes=({2: length},) * 3)
    more = tuple(torch.cat([x, x + 1], 2) for x in tensors())
    assert_close(run(captured, more), Sized()(*more))
    check(Attention(lambda score, b, h, i, j: score * torch.tensor(2.0)), *tensors())


def listed(score: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
    return score * torch.tensor([2.0, 3.0, 0.5, 1.0])[h]


def test_tensor_written_out_in_a_function() -> None:
    captured = check(Attention(listed), *tensors())
    assert not captured.warnings
    with torch.no_grad():
        found = torch.compile(Attention(listed), backend=compile_fx_graph, options={"kernels": "reference"})(*tensors())
    assert_close(found, Attention(listed)(*tensors()))


def test_places_are_the_users() -> None:
    captured = capture(Attention(soft_cap, causal), tensors())
    files = {op.location.file for op in captured.module.main.body.ops if op.location is not None}
    assert {file.rsplit("/", 1)[-1] for file in files} == {"test_flex.py"}


@pytest.mark.parametrize(
    "model",
    [pytest.param(Attention(soft_cap, starved, enable_gqa=True, return_lse=True), marks=pytest.mark.slow), Biased()],
)
def test_through_torch_compile(model: nn.Module) -> None:
    inputs = tensors(4, 2 if isinstance(model, Attention) else 4)
    with torch.no_grad():
        expected = model(*inputs)
        found = torch.compile(model, backend=compile_fx_graph, options={"kernels": "reference"})(*inputs)
    assert_close(found, expected)


def gradients(score_mod: Callable[..., Any], mask: Any) -> Callable[..., Any]:
    """A function of query, key, value and the output's gradient, made of torch's own two operators, as it differentiates them on a GPU."""
    from torch._higher_order_ops.flex_attention import create_fw_bw_graph
    from torch._higher_order_ops.flex_attention import flex_attention as forward
    from torch._higher_order_ops.flex_attention import flex_attention_backward as torchs_backward

    backward: Callable[..., Any] = torchs_backward
    tables = (SIZE, SIZE, *(None,) * 12, 128, 128, mask)

    def step(q: Any, k: Any, v: Any, bias: Any, grad: Any) -> Any:
        asking = bias.detach().requires_grad_()
        scalars = [q.new_zeros((), requires_grad=True), *(q.new_zeros((), dtype=torch.int) for _ in range(4))]
        score, joint = create_fw_bw_graph(score_mod, tuple(scalars), (asking,))
        with torch.no_grad():
            out, logsumexp, _ = forward(q, k, v, score, tables, 0.3, {}, (asking,), ())
            functions: Any = (score, joint, tables, 0.3, {}, (asking,), ())
            dq, dk, dv, (dbias,) = backward(q, k, v, out, logsumexp, grad, None, *functions)
        return dq, dk, dv, dbias

    return step


def test_gradients() -> None:
    from torch._dynamo._trace_wrapped_higher_order_op import mod_index
    from torch.fx.experimental.proxy_tensor import make_fx

    def score_mod(score: Any, b: Any, h: Any, i: Any, j: Any, bias: Any) -> Any:
        return torch.tanh(score + mod_index(bias, [h]) * (j - i))

    q, k, v = tensors(4, 2)
    bias, grad = torch.rand(4), torch.randn_like(q)
    graph = make_fx(gradients(score_mod, starved), tracing_mode="fake")(q, k, v, bias, grad)
    assert sum(is_flex(node) for node in graph.graph.nodes) == 2
    functional = from_functional(graph, {})
    arrays = [(q, k, v, bias, grad)[position].numpy() for position in functional.arguments]
    found = [torch.from_numpy(array) for array in evaluate(functional.module, arrays)]

    leaves = [x.clone().requires_grad_() for x in (q, k, v, bias)]
    index = torch.arange(SIZE)
    scores = leaves[0] @ leaves[1].repeat_interleave(2, 1).mT * 0.3
    scores = torch.tanh(scores + leaves[3][:, None, None] * (index[None, :] - index[:, None]))
    allowed = starved(0, 0, index[:, None], index[None, :])
    weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1).where(allowed, 0.0)
    assert_close(found, torch.autograd.grad(weights @ leaves[2].repeat_interleave(2, 1), leaves, grad), 1e-4, 1e-5)
