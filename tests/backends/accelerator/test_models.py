"""Whole models on the simulated accelerator, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from codesign.backends.accelerator import ModelRun, run_module
from codesign.costmodel.machine import load_machine
from codesign.frontend import Captured, ModelSource, capture, load_model
from codesign.frontend.externals import externals
from codesign.passes.context import Context
from codesign.passes.lowering import tile_module
from codesign.passes.pipeline import optimize
from codesign.passes.schedule.tuner import Tuner


def run(source: ModelSource, name: str, budget: int | None = None) -> tuple[Captured, ModelRun]:
    machine = load_machine(name)
    captured = capture(source)
    tuner = Tuner(machine, budget=budget, bounds=captured.module.bounds())
    module = optimize(captured.module, Context(machine=machine, pricer=tuner.price))
    tile_module(module, tuner)
    inputs = captured.flatten_inputs(source.inputs, source.kwargs)
    return captured, run_module(module, machine, inputs, externals=externals(module))


@pytest.mark.parametrize(
    ("example", "machine"),
    [
        ("mlp", "maia100"),
        ("naive_attention", "maia100"),
        pytest.param("llama_block", "maia100", marks=pytest.mark.slow),
        ("mlp", "systolic_16x16"),
    ],
)
def test_an_example_agrees_with_torch(root_dir: Path, example: str, machine: str) -> None:
    source = load_model(root_dir / "examples" / f"{example}.py")
    with torch.no_grad():
        expected = source.model(*source.inputs, **source.kwargs)
    captured, result = run(source, machine)
    actual = captured.unflatten_outputs(result.outputs)
    assert not result.external, "every op is in a program"
    for got, wanted in zip(
        torch.utils._pytree.tree_leaves(actual), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)
    launch = load_machine(machine).launch["kernel_seconds"].value
    assert launch is not None
    assert result.seconds == pytest.approx(
        sum(r.cycles / r.clock_hz for _, r in result.launches) + launch * len(result.launches)
    )
    assert all(r.cycles > 0 for _, r in result.launches)


def test_a_model_with_an_external_call_counts_it_apart(root_dir: Path) -> None:
    class Sorted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sort(x * 2.0, dim=-1).values + 1.0

    x = torch.randn(8, 2048)  # rows that are not sorted by counting
    captured, result = run(ModelSource(Sorted().eval(), (x,)), "maia100")
    (actual,) = torch.utils._pytree.tree_leaves(captured.unflatten_outputs(result.outputs))
    np.testing.assert_allclose(actual.numpy(), torch.sort(x * 2.0, dim=-1).values.numpy() + 1.0, rtol=1e-6)
    assert len(result.external) == 1
    assert result.external_seconds > 0
    assert len(result.launches) == 2


class Levels(torch.nn.Module):
    """Data choose which of its head's columns of a product each pair of positions reads: an address of data and of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Linear(16, 8)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        of = self.weights(x).view(2, 8, 2, 4).transpose(1, 2)
        return torch.take_along_dim(of, (level % 4).expand(2, 2, -1, -1), dim=-1)


def test_data_choose_columns_of_a_product() -> None:
    torch.manual_seed(0)
    x, level = torch.randn(2, 8, 16), torch.randint(0, 90, (8, 8))
    source = ModelSource(Levels().eval(), (x, level))
    captured, result = run(source, "maia100", budget=200)
    (actual,) = torch.utils._pytree.tree_leaves(captured.unflatten_outputs(result.outputs))
    np.testing.assert_allclose(actual.numpy(), source.model(x, level).detach().numpy(), rtol=1e-5, atol=1e-5)
