"""Each example is a model by the conventions, with a seed of its own and a real size (tests/frontend/test_examples.py captures them)."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[2] / "examples").glob("[a-z]*.py"))

# What the published models have: GPT-2 small and BERT-base as released, torchvision's ResNet-50; for one layer of
# Llama 3 8B and of Mixtral 8x7B the sum of their matrices (and two norms for Llama).
PUBLISHED_PARAMETERS = {
    "gpt2": 124_439_808,
    "bert": 109_482_240,
    "resnet": 25_557_032,
    "llama_block": 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096,
    "moe": 8 * 3 * 4096 * 14336 + 8 * 4096,
}


def _load(name: str) -> ModuleType:
    return importlib.import_module(name)


def _export(module: ModuleType) -> torch.export.ExportedProgram:
    shapes: dict[str, Any] | None = getattr(module, "dynamic_shapes", None)
    exported = torch.export.export(module.get_model(), module.get_inputs(), dynamic_shapes=shapes, strict=False)
    decomposed: torch.export.ExportedProgram = exported.run_decompositions()
    return decomposed


def _outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_every_example_has_a_real_size() -> None:
    real = {path.stem for path in (Path(__file__).parents[2] / "examples" / "real").glob("[a-z]*.py")}
    assert real == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_small_example_gives_the_same_every_time(name: str) -> None:
    module = _load(f"examples.{name}")
    assert module.__doc__
    model, inputs = module.get_model(), module.get_inputs()
    assert not model.training
    expected = _outputs(model(*inputs))
    again = _outputs(module.get_model()(*module.get_inputs()))
    torch.testing.assert_close(again, expected, rtol=0, atol=0)  # the seed is fixed
    for tensor in expected:
        assert tensor.isfinite().all()
        assert tensor.std() > 1e-3


def test_dynamic_batch_stays_a_symbol() -> None:
    module = _load("examples.dynamic_mlp")
    exported = _export(module)
    (batch_range,) = exported.range_constraints.values()
    assert (batch_range.lower, batch_range.upper) == (2, 4096)
    for batch in (2, 7, 100):
        x = torch.randn(batch, 64)
        torch.testing.assert_close(exported.module()(x), module.get_model()(x))


@pytest.mark.parametrize("name", EXAMPLES)
def test_real_example_is_the_published_model_without_data(name: str) -> None:
    module = _load(f"examples.real.{name}")
    parameters = list(module.get_model().parameters())
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in parameters)
    assert all(x.is_meta for x in module.get_inputs())
    if name in PUBLISHED_PARAMETERS:
        assert sum(p.numel() for p in parameters) == PUBLISHED_PARAMETERS[name]
