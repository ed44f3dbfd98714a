"""A step of training: the loss, its gradients and the new weights, as one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.architectures import FORWARD, STEPS, Example

TRAINED = (
    "bert", "roberta", "vit", "convnextv2", "graph_convolution", "graph_attention", "dlrm", "mlp_mixer", "dit",
    "biomedical_unet", "latent_attention", "transformer", "radiance_field", "autoencoder",
)  # fmt: skip
RATE = 0.1


class Step(nn.Module):
    """A traced step: tensors in (weights, then inputs), loss and new weights out."""

    def __init__(self, traced: nn.Module) -> None:
        super().__init__()
        self.traced = traced  # a child called `graph` is lost among the attributes of torch's own graph modules

    def forward(self, **inputs: Tensor) -> Any:
        return self.traced(*inputs.values())


def step_of(model: nn.Module, inputs: dict[str, Tensor]) -> Example:
    """Gradient descent on the mean square of what a model gives, traced through autograd."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        own = {name: x.detach().requires_grad_() for name, x in zip(weights, tensors, strict=False)}
        given = dict(zip(inputs, tensors[len(own) :], strict=True))
        loss = torch.func.functional_call(model, own, (), given).float().square().mean()
        gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
        pairs = zip(own.values(), gradients, strict=True)
        return (loss, *(x if gradient is None else x - RATE * gradient for x, gradient in pairs))

    tensors = [*(weight.detach().clone() for weight in weights.values()), *inputs.values()]
    traced = make_fx(step)(*tensors)
    names = [f"x{k}" for k in range(len(tensors))]
    return Step(traced), dict(zip(names, tensors, strict=True))


def trained(name: str) -> Callable[[], Example]:
    return lambda: step_of(*FORWARD[name]())


STEPS.update({f"{name}_training": trained(name) for name in TRAINED})
