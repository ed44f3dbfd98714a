"""Transforms of functions in `forward`: gradients and maps over a batch are captured; choices by data and written state are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from codesign.frontend import capture
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute

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


class MeanFlow(nn.Module):
    """The average velocity of a flow and what its training compares it with: v - (t - r) du/dt.

    Z. Geng et al., "Mean Flows for One-step Generative Modeling" (2025).
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 8))

    def forward(self, z: Tensor, v: Tensor, t: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        def velocity(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
            found: Tensor = self.net(z * t + r)
            return found

        found: Any = jvp(velocity, (z, t, r), (v, torch.ones_like(t), torch.zeros_like(r)))
        u, derivative = found
        return u, v - (t - r) * derivative


def test_forward_mode_derivatives_and_their_places() -> None:
    """Each linear layer is two products, of the value and of its derivative: none with the zeros that are the derivative of a weight."""
    model = MeanFlow()
    given = (torch.randn(4, 8), torch.randn(4, 8), torch.rand(4, 1), torch.rand(4, 1))
    captured = capture(model, given, strict=False)
    assert captured.method == "make_fx"
    for got, expected in zip(evaluate(captured.module, captured.flatten_inputs(given)), model(*given), strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), atol=1e-5)
    sums = [op for op in captured.module.main.body.walk() if isinstance(op, Compute) and op.reductions]
    products = [op.location for op in sums if op.location.origin in ("aten.mm.default", "aten.addmm.default")]
    assert [place.module for place in products] == ["net.0", "net.0", "net.3", "net.3"]
    lines = Path(__file__).read_text().splitlines()
    assert {lines[place.line - 1].strip() for place in products} == {"found: Tensor = self.net(z * t + r)"}


class OfRunningSums(nn.Module):
    """Whose input torch.export takes for a constant, and its decomposition of which ends the process."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = grad(lambda each: each.cumsum(1).sin().sum())(x)
        return found


def test_what_export_takes_for_a_constant_is_captured_by_what_runs() -> None:
    model = OfRunningSums()
    captured = capture(model, (torch.randn(3, 5),))
    assert captured.method == "make_fx"
    assert "takes lifted_tensor_0, which torch.func transforms, for a constant" in captured.warnings[0]
    other = torch.randn(3, 5)
    (found,) = evaluate(captured.module, captured.flatten_inputs((other,)))
    np.testing.assert_allclose(found, model(other).numpy(), atol=1e-6)


def pushed(w: Tensor, x: Tensor) -> Tensor:
    found: Any = jvp(lambda each: (w @ each).tanh(), (x,), (torch.ones_like(x),))
    return torch.stack(found)


def jacobian(w: Tensor, x: Tensor) -> Tensor:
    found: Tensor = jacfwd(lambda each: (w @ each).tanh())(x[:, 0])
    return found


def curvature(w: Tensor, x: Tensor) -> Tensor:
    found: Tensor = hessian(lambda each: energy(w, each))(x[:, 0])
    return found


@pytest.mark.parametrize("function", [pushed, jacobian, curvature])
def test_a_failed_attempt_inside_of_forward_mode_does_not_stand_in_the_way_of_the_next(function: Function) -> None:
    """Where torch.export fails while it takes its own graph apart, which has entered forward mode."""
    model, given = Model(function), torch.randn(4, 5)
    captured = capture(model, (given,), strict=False)
    with forward_ad.dual_level():  # which torch refuses where one is on
        pass
    other = torch.randn(4, 5)
    (found,) = evaluate(captured.module, captured.flatten_inputs((other,)))
    np.testing.assert_allclose(found, model(other).detach().numpy(), atol=1e-5)


def test_what_torch_has_no_forward_derivative_of_is_refused_with_what_to_do() -> None:
    class Attention(nn.Module):
        def __init__(self, backends: list[SDPBackend]) -> None:
            super().__init__()
            self.backends = backends

        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            with sdpa_kernel(self.backends):
                attention = torch.nn.functional.scaled_dot_product_attention
                found: Tensor = jvp(lambda q: attention(q, k, k), (q,), (k,))[1]
                return found

    q, k = torch.randn(2, 1, 2, 5, 4)
    with pytest.raises(CodesignError, match=r"test_transforms.py:\d+.*forward AD.*SDPBackend.MATH"):
        capture(Attention([SDPBackend.FLASH_ATTENTION]), (q, k))
    model = Attention([SDPBackend.MATH])
    captured = capture(model, (q, k))
    (found,) = evaluate(captured.module, captured.flatten_inputs((q, k)))
    np.testing.assert_allclose(found, model(q, k).detach().numpy(), atol=1e-6)
