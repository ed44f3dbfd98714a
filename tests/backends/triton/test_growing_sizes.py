"""Sizes that grow from call to call under `torch.compile`: few compilations, each of which holds for many sizes."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codesign.backends.triton import graphs
from codesign.backends.triton.dynamo import compile_fx_graph

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """The sizes of each graph that was compiled, as they were then."""
    made: list[Mapping[str, Any]] = []
    compile_one = graphs.CompiledGraph.__init__

    def counted(self: Any, graph: Any, sizes: Mapping[str, Any], *more: Any) -> None:
        made.append(sizes)
        compile_one(self, graph, sizes, *more)

    monkeypatch.setattr(graphs.CompiledGraph, "__init__", counted)
    return made


Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class Decoder(nn.Module):
    """A layer that appends keys and values of one token and attends to all so far."""

    def __init__(self, width: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.project, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.project(x).chunk(3, dim=-1))
        keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        attended = F.scaled_dot_product_attention(q, keys, values)
        return x + self.out(attended.transpose(1, 2).flatten(2)), keys, values


def written_out(q: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same by products and a softmax, with the keys scaled by their count."""
    keys, values = torch.cat([keys, q], 1), torch.cat([values, 2 * q], 1)
    weights = (q @ keys.transpose(1, 2) / keys.shape[1]).softmax(-1)
    return weights @ values, keys, values


def decode(step: Step, x: Tensor, cache: tuple[int, ...], steps: int) -> list[Tensor]:
    keys, values = torch.zeros(cache), torch.ones(cache)
    outputs = []
    with torch.no_grad():
        for number in range(steps):
            out, keys, values = step(x + number, keys, values)
            outputs.append(out)
    return [*outputs, keys, values]


@pytest.mark.parametrize(
    ("make", "x", "cache", "kernels", "steps"),
    [
        (Decoder, (1, 1, 12), (1, 2, 3, 6), "reference", 8),
        (lambda: written_out, (2, 1, 4), (2, 5, 4), "reference", 20),
        (lambda: written_out, (2, 1, 4), (2, 5, 4), "triton", 5),
    ],
)
def test_a_growing_cache_compiles_twice(
    make: Callable[[], Step],
    x: tuple[int, ...],
    cache: tuple[int, ...],
    kernels: str,
    steps: int,
    compilations: list[Mapping[str, Any]],
) -> None:
    """Once for the first length, which torch takes for the only one, and once for all lengths."""
    step = make()
    compiled = torch.compile(step, backend=compile_fx_graph, options={"kernels": kernels})
    given = torch.randn(x)
    expected = decode(step, given, cache, steps)
    for got, want in zip(decode(compiled, given, cache, steps), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
    assert len(compilations) <= 3


def test_training_on_batches_of_any_size_compiles_once_for_each_pass(compilations: list[Mapping[str, Any]]) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    compiled = torch.compile(model, backend=compile_fx_graph, options={"kernels": "reference"}, dynamic=True)
    for rows in (5, 9, 3):
        x = torch.randn(rows, 6)
        found = []
        for call in (compiled, model):
            model.zero_grad()
            call(x).square().mean().backward()
            found.append([p.grad for p in model.parameters()])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert len(compilations) == 2


def test_another_size_than_the_graph_holds_for_is_compiled_anew(compilations: list[Mapping[str, Any]]) -> None:
    """A number that is no size of an input is fixed; graphs of earlier ones are found again."""
    compiled = torch.compile(
        lambda x, n: x[1:] * n + x.shape[0], backend=compile_fx_graph, options={"kernels": "reference"}, dynamic=True
    )
    for rows, number in ((4, 3), (6, 3), (6, 5), (8, 5), (9, 3)):
        x = torch.randn(rows, 2)
        torch.testing.assert_close(compiled(x, number), x[1:] * number + rows)
    assert len(compilations) == 2
