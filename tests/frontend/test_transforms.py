"""Transforms of functions in `forward`: gradients and maps over a batch are captured; choices by data and written state are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from codesign.frontend import capture
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate

Function = Callable[..., Tensor]


def energy(w: Tensor, x: Tensor) -> Tensor:
    return (w @ x).tanh().square().sum()


def of_each(w: Tensor, x: Tensor) -> Tensor:
    """Gradients in a map over a batch."""
    found: Tensor = vmap(grad(energy, argnums=1), (None, 1))(w, x)
    return found


class Model(nn.Module):
    calls: Tensor

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.w, self.function = nn.Parameter(torch.randn(3, 4)), function
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.function(self.w, x * scale)


def test_transforms_are_done() -> None:
    model, given = Model(of_each), {"x": torch.randn(4, 5), "scale": 0.5}
    captured = capture(model, (), given, strict=False)
    (found,) = evaluate(captured.module, captured.flatten_inputs((), given))
    np.testing.assert_allclose(found, model(**given).detach().numpy(), atol=1e-6)


class Chooses(Model):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.function(self.w, x) if x.sum() > 0 else x


class Counts(Model):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        self.calls.add_(1)
        return self.function(self.w, x) + self.calls


@pytest.mark.parametrize("kind", [Chooses, Counts])
def test_what_one_run_does_not_tell_is_refused(kind: type[Model]) -> None:
    with pytest.raises(CodesignError, match=r"torch\.export can't capture"):
        capture(kind(grad(energy)), (torch.randn(4, 5),), strict=False)
