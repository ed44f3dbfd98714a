"""Models whose inputs and outputs are objects of their own, and the modes of torch.export that are tried on them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from codesign.frontend import capture
from codesign.frontend.export import advice
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate
from tests.frontend.checks import assert_close, assert_wellformed, check, run


class Layer:
    def __init__(self, keys: torch.Tensor) -> None:
        self.keys = keys
        self.dtype = keys.dtype  # not what a graph may return


class Cache:
    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self.kind = "dynamic"


@dataclass
class Result:
    logits: torch.Tensor
    cache: Any = None
    extra: Any = None
    steps: int = 1


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Result:
        keys = self.project(x)
        return Result(keys.relu(), Cache([Layer(keys), Layer(keys + 1)]), {"norms": (keys.norm(), None)})


def test_objects_of_the_models_own_among_the_outputs() -> None:
    model, x = Caching().eval(), torch.randn(2, 4)
    captured = check(model, x)
    found, expected = run(captured, (x,)), model(x)
    assert isinstance(found, Result)
    assert isinstance(found.cache, Cache)
    assert (found.steps, found.cache.kind, found.extra["norms"][1]) == (1, "dynamic", None)
    assert_close(found.cache.layers[1].keys, expected.cache.layers[1].keys)
    assert any("Cache" in note and "Layer" in note for note in captured.warnings)


class Reading(nn.Module):
    def forward(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        return x + cache.layers[0].keys * 2


def test_an_object_of_the_models_own_as_input() -> None:
    captured = check(Reading(), torch.randn(3), Cache([Layer(torch.randn(3))]))
    assert len(captured.input_names) == 2


def test_a_causal_language_model_as_it_comes() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.arange(5).reshape(1, 5)
    captured = capture(model, (ids,))
    assert_wellformed(captured.module)
    with torch.no_grad():
        expected = model(ids)
    found = run(captured, (ids,))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    keys, theirs = (pytree.tree_leaves(given.past_key_values) for given in (found, expected))
    torch.testing.assert_close(keys, theirs, rtol=1e-4, atol=1e-5)


def test_the_next_mode_is_tried_when_the_decomposition_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.export.export

    class Undecomposable:
        def run_decompositions(self, table: Any) -> Any:
            raise AssertionError("no")

    def only_strict(*args: Any, strict: bool, **options: Any) -> Any:
        return plain(*args, strict=strict, **options) if strict else Undecomposable()

    monkeypatch.setattr(torch.export, "export", only_strict)
    assert check(nn.Linear(3, 2), torch.randn(2, 3)).method == "torch.export (strict=True)"


def test_advice_on_dynamic_shapes_only_where_some_were_given() -> None:
    error = RuntimeError("Found <class 'DynamicThing'> in output")
    assert "dynamic_shapes" in advice(error, dynamic=True)
    assert "dynamic_shapes" not in advice(error, dynamic=False)


def test_a_size_that_the_example_or_the_model_fixes_is_told_with_what_to_do() -> None:
    shapes: Any = {"input": {0: torch.export.Dim("batch")}}
    with pytest.raises(CodesignError, match=r"constant \(1\); .*give example inputs whose batch is 2 or more"):
        capture(nn.Linear(4, 4), (torch.randn(1, 4),), dynamic_shapes=shapes)
    with pytest.raises(CodesignError, match=r"the model works at batch = 8 only: leave that size fixed"):
        capture(nn.Sequential(nn.Flatten(0), nn.Linear(32, 4)), (torch.randn(8, 4),), dynamic_shapes=shapes)


class Opaque:
    __slots__ = ("x",)

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


class Hiding(nn.Module):
    def forward(self, x: torch.Tensor) -> Opaque:
        return Opaque(x + 1)


def test_what_hides_its_tensors_is_refused_with_advice() -> None:
    with pytest.raises(CodesignError, match=r"Opaque.*dataclasses"):
        capture(Hiding(), (torch.randn(3),))


class Items(OrderedDict[str, Any]):
    """A dict with an attribute that is a tensor and one that is none."""


class Row(list[Any]):
    pass


def test_dicts_and_lists_of_other_classes_are_taken_apart() -> None:
    class Returns(nn.Module):
        def forward(self, given: Items) -> tuple[Items, Row]:
            made = Items(second=given["x"] + 1, first=given["x"] * 2)
            made.extra, made.label = given.extra - 1, "kept"  # type: ignore[attr-defined]
            return made, Row([given["x"], [made["first"]]])

    given = Items(x=torch.ones(2))
    given.extra = torch.zeros(2)  # type: ignore[attr-defined]
    captured = capture(Returns(), (given,))
    results = evaluate(captured.module, captured.flatten_inputs((given,)))
    made, row = captured.unflatten_outputs(results)
    assert (type(made), list(made), made.label, type(row)) == (Items, ["second", "first"], "kept", Row)
    assert [made["second"].tolist(), made["first"].tolist(), made.extra.tolist()] == [[2, 2], [2, 2], [-1, -1]]
    assert [row[0].tolist(), row[1][0].tolist()] == [[1, 1], [2, 2]]


def test_a_set_of_tensors_is_refused_with_advice_and_sets_stay_as_they_are() -> None:
    class Returns(nn.Module):
        def forward(self, x: torch.Tensor) -> set[torch.Tensor]:
            return {x + 1}

    class Takes(nn.Module):
        def forward(self, given: set[torch.Tensor]) -> torch.Tensor:
            return next(iter(given)) + 1

    for model, inputs in ((Returns(), torch.ones(2)), (Takes(), {torch.ones(2)})):
        with pytest.raises(CodesignError, match="dataclasses"):
            capture(model, (inputs,))
    assert set not in pytree.SUPPORTED_NODES
