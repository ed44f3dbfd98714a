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


def mean_square(result: Tensor) -> Tensor:
    """The loss of a model that gives none."""
    return result.float().square().mean()


def itself(loss: Tensor) -> Tensor:
    """The loss of a model that gives one."""
    return loss


def unchanged(name: str, weight: Tensor) -> Tensor:
    """A weight as the step leaves it."""
    return weight


def step_of(
    model: nn.Module,
    inputs: dict[str, Tensor],
    loss: Callable[[Any], Tensor] = mean_square,
    after: Callable[[str, Tensor], Tensor] = unchanged,
) -> Example:
    """Gradient descent, traced through autograd; `after` makes of a weight's name and new value what it shall be."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        own = {name: x.detach().requires_grad_() for name, x in zip(weights, tensors, strict=False)}
        given = dict(zip(inputs, tensors[len(own) :], strict=True))
        total = loss(torch.func.functional_call(model, own, (), given))
        gradients = torch.autograd.grad(total, list(own.values()), allow_unused=True)
        new = (
            x if gradient is None else after(name, x - RATE * gradient)
            for (name, x), gradient in zip(own.items(), gradients, strict=True)
        )
        return (total, *new)

    tensors = [*(weight.detach().clone() for weight in weights.values()), *inputs.values()]
    traced = make_fx(step)(*tensors)
    names = [f"x{k}" for k in range(len(tensors))]
    return Step(traced), dict(zip(names, tensors, strict=True))


def trained(name: str) -> Callable[[], Example]:
    return lambda: step_of(*FORWARD[name]())


STEPS.update({f"{name}_training": trained(name) for name in TRAINED})
