"""`torch.compile(..., backend="codesign")` on the CPU: values, gradients, options, breaks in the graph."""

import importlib.metadata
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codesign.backends.triton.dynamo import compile_fx_graph
from codesign.ir.errors import UnsupportedError


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4))


def test_inference() -> None:
    plain, x = model(), torch.randn(10, 16)
    compiled = torch.compile(plain, backend=compile_fx_graph)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(compiled(x * 2), plain(x * 2), rtol=1e-5, atol=1e-5)


def test_training_step_gives_the_same_gradients() -> None:
    first, second, x = model(), model(), torch.randn(10, 16)
    torch.compile(first, backend=compile_fx_graph)(x).square().sum().backward()
    second(x).square().sum().backward()
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_graph_breaks_and_several_outputs() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.sin() + 1
        torch._dynamo.graph_break()
        return y.sum(0), (y * x).softmax(-1)

    x = torch.randn(6, 9)
    for got, want in zip(torch.compile(function, backend=compile_fx_graph)(x), function(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_sizes_that_change_between_calls() -> None:
    compiled = torch.compile(lambda x: (x * 2).relu().sum(-1), backend=compile_fx_graph)
    for rows in (4, 7, 9):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), (x * 2).relu().sum(-1), rtol=1e-5, atol=1e-5)


def test_reference_kernels_need_no_triton() -> None:
    plain, x = model(), torch.randn(10, 16)
    compiled = torch.compile(plain, backend=compile_fx_graph, options={"kernels": "reference", "machine": "a100_sxm"})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"tile": 3}, {"kernels": "cuda"}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    graph = torch.fx.symbolic_trace(model())
    with pytest.raises(UnsupportedError, match=r"option|kernels"):
        compile_fx_graph(graph, [torch.randn(2, 16)], options=options)


def test_entry_point_is_registered() -> None:
    found = [e for e in importlib.metadata.entry_points(group="torch_dynamo_backends") if e.name == "codesign"]
    if not found:
        pytest.skip("codesign is not installed in this environment (pip install -e .)")
    assert found[0].load() is compile_fx_graph
    assert "codesign" in torch._dynamo.list_backends()
