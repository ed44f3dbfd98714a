"""One training step of each model through `torch.compile(..., backend="codesign")`: loss, gradients and buffers agree with eager.

Kernels are the IR's interpreter on the fused and tiled graphs (`kernels="reference"`), so that a step takes seconds; what compiled
kernels do differently is the verifier's to see. The slower models are in the long run only.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codesign.backends.triton.dynamo import compile_fx_graph
from tests.backends.triton.training_models import MODELS, Example

OPTIONS: dict[str, Any] = {"kernels": "reference", "machine": "h100_sxm"}
QUICK = {
    "with_buffers",
    "gated_linear",
    "rms_norm",
    "weight_tied",
    "grouped_transposed",
    "cnn_of_one_dim",
    "embedding_classifier",
}
NARROW = {"mlp_in_bfloat16": 3e-2}


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.fixture(autouse=True)
def recurrent_layers() -> Iterator[None]:
    with torch._dynamo.config.patch(allow_rnn=True):
        yield


def stepped(model: nn.Module, inputs: tuple[Tensor, ...], compiled: bool) -> dict[str, Tensor]:
    """What a step leaves: the loss, gradients by name of parameter or input, and buffers."""
    call = torch.compile(model, backend=compile_fx_graph, options=OPTIONS) if compiled else model
    loss = call(*inputs)
    loss.backward()
    left = {"loss": loss.detach(), **dict(model.named_buffers())}
    given = {f"input {k}": x for k, x in enumerate(inputs)}
    left.update({name: x.grad for name, x in (*model.named_parameters(), *given.items()) if x.grad is not None})
    return left


def assert_same_step(example: Example, tolerance: float = 1e-4) -> None:
    model, inputs = example
    eager = stepped(
        copy.deepcopy(model), tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs), False
    )
    ours = stepped(model, inputs, True)
    assert ours.keys() == eager.keys()
    for name, expected in eager.items():
        named = f"{name}: {{}}".format
        torch.testing.assert_close(ours[name], expected, rtol=tolerance, atol=tolerance, msg=named)


def marked(name: str) -> Any:
    return pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("name", [marked(name) for name in MODELS])
def test_step_agrees_with_eager(name: str) -> None:
    if name in ("gpt2", "bert"):
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    assert_same_step(MODELS[name](), NARROW.get(name, 1e-4))


class Dropped(nn.Module):
    """A layer whose result passes through dropout; the mask can be read off from the result."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x.exp(), self.p, training=True)


def test_dropout_in_training() -> None:
    """Which elements are kept is this compiler's draw, not torch's; values, share and gradients must be of that one mask."""
    torch.manual_seed(0)
    x = torch.randn(40, 50).requires_grad_()
    y = torch.compile(Dropped(0.25), backend=compile_fx_graph, options=OPTIONS)(x)
    y.backward(torch.ones_like(y))
    kept = y != 0
    assert 0.7 < kept.float().mean() < 0.8
    expected = x.detach().exp() * kept / 0.75
    torch.testing.assert_close(y.detach(), expected)
    torch.testing.assert_close(x.grad, expected)


def test_dropout_of_kernels_is_that_of_the_interpreter() -> None:
    x = torch.randn(9, 7).requires_grad_()
    results = []
    for way in ("reference", "triton"):
        torch._dynamo.reset()
        torch.manual_seed(0)
        options = {**OPTIONS, "kernels": way}
        results.append(torch.compile(Dropped(0.5), backend=compile_fx_graph, options=options)(x).detach())
    torch.testing.assert_close(results[0], results[1])


def test_dropout_of_everything() -> None:
    x = torch.randn(4, 5).requires_grad_()
    y = torch.compile(Dropped(1.0), backend=compile_fx_graph, options=OPTIONS)(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad is not None
    assert not x.grad.any()
