"""Routers: a product, scores of it, and the first few of a row, as one kernel, on both backends; ties, NaN and infinities as torch has them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from codesign.backends import accelerator
from codesign.backends.triton.interpret import run_kernel
from codesign.costmodel.machine import load_machine
from codesign.frontend import capture
from codesign.frontend.arrays import to_numpy
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion, Launch
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.end_to_end.test_combining_writes import check as same_as_torch

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.float().softmax(-1),
    "softmax in the logits' type": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "logits": lambda logits: logits,
}
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda top: top,
    "made to sum to one": lambda top: top / top.sum(-1, keepdim=True),
    "a softmax of them": lambda top: top.softmax(-1),
}


WIDTH = 40
"""Of the product: no other dim is as wide."""


class Router(nn.Module):
    def __init__(self, scores: str, weights: str, keep: int) -> None:
        super().__init__()
        self.scores, self.weights, self.keep = SCORES[scores], WEIGHTS[weights], keep

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        top, places = self.scores(x @ w).topk(self.keep, -1)
        return self.weights(top), places


def run(fusion: Fusion, inputs: list[np.ndarray], rows: int, backend: str) -> list[np.ndarray]:
    """The results of the one kernel, `rows` of them at a time and the product in steps of 8."""
    form = normalize(fusion)
    along = {dim.name for compute in form.fusion.computes if compute.monoid == "sum" for dim in compute.reductions}
    product = {name for name in along if form.fusion.dims()[name] == WIDTH}
    assert len(product) == 1
    outer = dict.fromkeys(form.fusion.outer_dims(), rows)
    reduce = {name: "looped" if name in product else "resident" for name in form.fusion.inner_dims()}
    kernel = lower(form.fusion, Schedule({**outer, **dict.fromkeys(product, 8)}, reduce=reduce), outputs=form.outputs)
    if backend == "triton":
        return run_kernel(kernel, inputs, {}, device="cpu")
    machine = load_machine(backend)
    return accelerator.simulate(accelerator.lower(kernel, machine, {}), inputs, machine).outputs


def check(model: Router, x: Tensor, w: Tensor, values: np.ndarray, places: np.ndarray) -> None:
    """Scores that differ by rounding alone may come in either order; equal logits come as they stand in the row."""
    logits = x @ w
    exact = model.scores(logits.double())
    chosen = torch.as_tensor(places)
    eps = torch.finfo(model.scores(logits).dtype).eps
    got, wanted = exact.gather(-1, chosen), exact.sort(-1, descending=True)[0][:, : model.keep]
    torch.testing.assert_close(got, wanted, rtol=4 * eps, atol=1e-37 if eps < 1e-4 else 1e-7, equal_nan=True)
    ranks = torch.where(logits.isnan(), 1e6, logits.double().clamp(-1e5, 1e5))
    for row, mine in zip(ranks.tolist(), chosen.tolist(), strict=True):
        assert len(set(mine)) == len(mine)
        for place in mine:
            earlier = [k for k in range(place) if row[k] == row[place]]
            assert set(earlier) <= set(mine[: mine.index(place)]), "the first of equals first"
    top = model.scores(x @ w).gather(-1, chosen)
    torch.testing.assert_close(
        torch.as_tensor(values),
        model.weights(top.double()).to(top.dtype).float(),
        rtol=8 * eps,
        atol=8 * eps,
        equal_nan=True,
    )


@pytest.mark.parametrize("backend", ["triton", "maia100"])
@given(st.data())
@settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_a_router_is_one_kernel_with_the_choice_of_torch(backend: str, data: st.DataObject) -> None:
    scores, weights = data.draw(st.sampled_from(list(SCORES))), data.draw(st.sampled_from(list(WEIGHTS)))
    keep = data.draw(st.integers(1, 6))
    experts, rows = data.draw(st.integers(4 * keep, 30)), data.draw(st.integers(1, 9))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    magnitude = data.draw(st.sampled_from([0.125, 1.0, 64.0]))
    model = Router(scores, weights, keep)
    draws = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = (
        torch.tensor(draws.integers(-3, 4, (rows, WIDTH))) * magnitude
    )  # exact products, so that ties are ties everywhere
    w = torch.tensor(draws.integers(-1, 2, (WIDTH, experts)) * (draws.random((WIDTH, experts)) < 0.4))
    x, w = x.to(dtype), w.to(dtype)
    if rows > 2:
        x[1, 3], x[2, 5] = torch.inf, torch.nan
    captured = capture(model, (x, w))
    module = optimize(captured.module, Context(pricer=lambda _: 1.0), pipeline=f"{CLEAN_UP},fuse")
    (fusion,) = module.main.body.ops
    assert isinstance(fusion, Fusion)
    inputs = dict(zip(module.main.args, (to_numpy(x), to_numpy(w)), strict=True))
    arrays = run(fusion, [inputs[value] for value in fusion.uses()], 4, backend)
    found = dict(zip(fusion.results, arrays, strict=True))
    values, places = (found[value].reshape(rows, keep) for value in module.main.body.yields)
    check(model, x, w, values.astype(np.float32), places)


@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
def test_the_first_few_of_a_long_row_are_one_kernel(machine: str) -> None:
    """Of values that the kernel makes, too: parts of the row are looked for, and what those hold is read again where they lie."""

    def best(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        values, places = (x / scale).topk(2, -1)
        return values.softmax(-1), places

    x = torch.randperm(3 * 1100).view(3, 1100) / 64  # torch gives equals in no order of its own
    x[1, 1099] = 100.0
    module = same_as_torch(best, x, torch.full((3, 1), 0.5), machine=machine)
    assert sum(isinstance(op, Launch) for op in module.main.body.ops) == len(module.main.body.ops) == 1
