"""Rows that a product makes, or that one takes, reduced in its own kernel: log-sum-exp and cross-entropy without logits in memory, the
quantisation of a row by its greatest value. Against float64, in 16 bits and 32, at magnitudes at which logits overflow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codesign.backends import accelerator
from codesign.backends.triton.interpret import run_kernel
from codesign.costmodel.machine import load_machine
from codesign.frontend import capture
from codesign.frontend.arrays import to_numpy, to_torch
from codesign.ir.core import tensor_type
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Fusion
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower

WIDTH = 16
"""Of the products' inner dim: no other dim is as wide."""


class Rows(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def entropy(x: Tensor, w: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(x @ w, target, reduction="none")


def log_sum_exp(x: Tensor, w: Tensor) -> Tensor:
    return torch.logsumexp(x @ w, -1)


def quantised(x: Tensor, w: Tensor) -> Tensor:
    """A product of 8-bit integers with a scale for each row of x."""
    scale = x.float().abs().amax(-1, keepdim=True) / 127
    q = (x.float() / scale).round().clamp(-128, 127).to(torch.int8)
    return torch._int_mm(q, w).float() * scale


def run(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], mode: str, backend: str) -> Tensor:
    """By one kernel, 16 rows and 16 columns at a time."""
    captured = capture(Rows(function), inputs)
    module = optimize(captured.module, Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    (fusion,) = [op for op in module.main.body.ops if isinstance(op, (Fusion, Compute))]
    assert isinstance(fusion, Fusion)
    form = normalize(fusion)
    sizes = {name: size.constant for name, size in form.fusion.dims().items()}
    tiles = {name: 16 for name, size in sizes.items() if size > 1}
    reduce = {name: "resident" if sizes[name] == WIDTH else mode for name in form.fusion.inner_dims()}
    kernel = lower(form.fusion, Schedule(tiles, reduce=reduce), outputs=form.outputs)
    given_arrays = dict(zip(module.main.args, (to_numpy(each) for each in inputs), strict=True))
    arrays = [given_arrays[value] for value in form.fusion.uses()]
    if backend == "triton":
        (found,) = run_kernel(kernel, arrays, {}, device="cpu")
    else:
        machine = load_machine(backend)
        (found,) = accelerator.simulate(accelerator.lower(kernel, machine, {}), arrays, machine).outputs
    return to_torch(found, tensor_type(fusion.results[0]).dtype)


@pytest.mark.parametrize("backend", ["triton", "maia100"])
@given(st.data())
@settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_rows_of_a_product_against_float64(backend: str, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(2, 40).filter(lambda n: n != WIDTH)), data.draw(st.integers(17, 70))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
    magnitude, draws = data.draw(st.sampled_from([2.0**-6, 1.0, 512.0])), data.draw(st.integers(0, 99))
    torch.manual_seed(draws)
    x = (torch.randint(-8, 9, (rows, WIDTH)) * magnitude).to(dtype)  # products are exact in float32
    w = torch.randint(-8, 9, (WIDTH, columns)).to(dtype)
    logits = (x.double() @ w.double()).to(dtype).double()
    eps = torch.finfo(dtype).eps
    summed = run(log_sum_exp, (x, w), "fold", backend)
    torch.testing.assert_close(summed.double(), logits.logsumexp(-1), rtol=2 * eps, atol=4 * eps)
    target = torch.randint(0, columns, (rows,))
    found, wanted = (
        run(entropy, (x, w, target), "fold", backend),
        nn.functional.cross_entropy(logits, target, reduction="none"),
    )
    size = logits.abs().where(logits.isfinite(), 0.0).amax(-1)
    near = (found.double() - wanted).abs() <= 4 * eps * (1 + size)
    assert bool((near | (found == wanted.to(dtype)) | (found.isnan() & wanted.isnan())).all())


@pytest.mark.parametrize("backend", ["triton", "maia100"])
@given(st.data())
@settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_a_row_that_is_quantised_before_a_product(backend: str, data: st.DataObject) -> None:
    """Half a step of each element's, and what float32 rounds, is all that it is off by."""
    rows, columns = data.draw(st.integers(17, 40)), 8 * data.draw(st.integers(1, 6))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
    magnitude = data.draw(st.sampled_from([1e-3, 1.0, 1e3]))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    x = (torch.randn(rows, WIDTH) * magnitude * torch.logspace(-1, 1, rows)[:, None]).to(dtype)
    w = torch.randint(-127, 128, (WIDTH, columns), dtype=torch.int8)
    found = run(quantised, (x, w), "looped", backend).double()
    exact, step = x.double() @ w.double(), x.double().abs().amax(-1, keepdim=True) / 127
    most = step * (0.5 + 127 * 2.0**-21) * w.double().abs().sum(0)
    assert bool(((found - exact).abs() <= most).all())
