"""Gradients of pooling, resizing, padding and grids at random sizes and settings, in all dtypes of floats, against torch's."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codesign.frontend import capture
from codesign.frontend.load import FunctionModule, ModelSource
from codesign.frontend.training import TrainingStep, trained
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call
from tests.frontend.checks import Of, check

NEAR = {torch.float64: 1e-10, torch.float32: 3e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of an element, or half of it of the largest one: sums of some ten terms."""

Case = tuple[Callable[..., Tensor], list[Tensor]]


def sizes(rng: random.Random, rank: int, low: int, high: int) -> list[int]:
    return [rng.randint(low, high) for _ in range(rank)]


def image(rng: random.Random, shape: list[int]) -> Tensor:
    return torch.randn(rng.choice([1, 2]), rng.choice([1, 3]), *shape, dtype=torch.float64)


def means(rng: random.Random) -> Case:
    rank = rng.choice([1, 2, 3])
    window = sizes(rng, rank, 1, 3)
    options: dict[str, Any] = {
        "stride": sizes(rng, rank, 1, 4),
        "padding": [rng.randint(0, size // 2) for size in window],
        "ceil_mode": rng.random() < 0.5,
        "count_include_pad": rng.random() < 0.5,
    }
    if rank > 1:
        options["divisor_override"] = rng.choice([None, 3])
    pool = getattr(F, f"avg_pool{rank}d")
    return lambda x: pool(x, window, **options), [image(rng, sizes(rng, rank, 3, 9))]


def extremes(rng: random.Random) -> Case:
    rank = rng.choice([1, 2, 3])
    shape, window = sizes(rng, rank, 4, 9), sizes(rng, rank, 1, 2)
    spread = [rng.choice([1, 2]) for _ in window]
    pads, steps, whole = [size // 2 for size in window], sizes(rng, rank, 1, 3), rng.random() < 0.5
    pool = getattr(F, f"max_pool{rank}d")
    return lambda x: pool(x, window, steps, pads, spread, whole), [image(rng, shape)]


def adaptive(rng: random.Random) -> Case:
    rank = rng.choice([1, 2, 3])
    out, pool = sizes(rng, rank, 1, 7), getattr(F, f"adaptive_{rng.choice(['avg', 'max'])}_pool{rank}d")
    return lambda x: pool(x, out), [image(rng, sizes(rng, rank, 1, 9))]


def grids(rng: random.Random) -> Case:
    rank = rng.choice([2, 2, 3])
    mode = rng.choice(["bilinear", "nearest", *(["bicubic"] if rank == 2 else [])])
    padding, corners = rng.choice(["zeros", "border", "reflection"]), rng.random() < 0.5
    x = image(rng, sizes(rng, rank, 1, 6))
    grid = torch.randn(len(x), *sizes(rng, rank, 1, 4), rank, dtype=torch.float64) * rng.choice([0.5, 1, 2])
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, corners), [x, grid]


MODES = (
    ("linear", 1),
    ("bilinear", 2),
    ("trilinear", 3),
    ("bicubic", 2),
    ("nearest", 1),
    ("nearest", 3),
    ("nearest-exact", 2),
)


def resized(rng: random.Random) -> Case:
    mode, rank = rng.choice(MODES)
    options: dict[str, Any] = {"size": sizes(rng, rank, 1, 12)}
    if rng.random() < 0.6:
        options = {
            "scale_factor": tuple(rng.choice([0.5, 2.0, 1.3, 0.6, 2.4, rng.uniform(0.5, 3)]) for _ in range(rank))
        }
        options["recompute_scale_factor"] = rng.random() < 0.3
    if "linear" in mode or mode == "bicubic":
        options["align_corners"] = rng.random() < 0.4
    return lambda x: F.interpolate(x, mode=mode, **options), [image(rng, sizes(rng, rank, 2, 8))]


def padded(rng: random.Random) -> Case:
    rank, mode = rng.choice([1, 2, 3]), rng.choice(["replicate", "reflect"])
    pads = sizes(rng, 2 * rank, 0, 2)
    return lambda x: F.pad(x, pads, mode=mode), [image(rng, sizes(rng, rank, 3, 6))]


SAME = [(mode, rank, factor) for mode, rank in MODES for factor in (1.12, 2.13)]


@pytest.mark.parametrize(("mode", "rank", "factor"), SAME)
def test_a_factor_that_all_but_keeps_or_doubles_a_size(mode: str, rank: int, factor: float) -> None:
    """Values as torch's, which goes by the sizes or by the factor, each kernel in its way."""
    factors = tuple([factor, 1.5, 0.6][:rank])
    torch.manual_seed(rank)
    check(
        Of(lambda x: F.interpolate(x, scale_factor=factors, mode=mode, recompute_scale_factor=False)),
        torch.randn(1, 2, *[6, 5, 7][:rank]),
        rtol=3e-5,
        atol=3e-5,
    )


KINDS = {kind.__name__: kind for kind in (means, extremes, adaptive, grids, resized, padded)}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_at_random_sizes(kind: str, seed: int) -> None:
    """Half precision is compared with float32 of the same numbers, and may be as far from it as torch itself is."""
    rng = random.Random(f"{kind}{seed}")
    torch.manual_seed(seed)
    function, inputs = KINDS[kind](rng)
    dtype = (
        rng.choice(list(NEAR)) if kind != "means" else rng.choice([torch.float32, torch.float64])
    )  # of 3d means torch has no others
    given = tuple(x.to(dtype).requires_grad_() for x in inputs)
    source = trained(ModelSource(FunctionModule(function), given))
    captured = capture(source)
    assert not any(isinstance(op, Call) for op in captured.module.main.body.walk())
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs(given)))["gradients"]
    assert isinstance(source.model, TrainingStep)
    after = list(source.model.following)
    wanted = torch.autograd.grad(function(*given), given, after or None)
    wide = tuple(x.detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_() for x in given)
    exact = torch.autograd.grad(function(*wide), wide, [x.to(wide[0].dtype) for x in after] or None)
    for place, (eager, reference) in enumerate(zip(wanted, exact, strict=True)):
        ours, reference = found[f"input {place}"].double(), reference.double()
        error, slack = (ours - reference).abs(), (eager.double() - reference).abs()
        near = NEAR[dtype] * reference.abs().maximum(reference.abs().max() / 2)
        right = (error <= near) | (error <= 1.5 * slack)
        assert bool(right.all()), (dtype, float(error.max()), float(slack.max()), float(reference.abs().max()))
