"""Writes into a part of a tensor: made in place by the kernel that makes the values, where the old value is dead; right everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from codesign.costmodel.machine import load_machine
from codesign.frontend import Captured, capture
from codesign.frontend.arrays import to_torch
from codesign.ir.core import Module, tensor_type
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Fusion, Launch, Scatter
from codesign.ir.text import parse, print_module
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.lowering import tile_module
from codesign.passes.memory import plan
from codesign.passes.schedule.tuner import Tuner


class Model(nn.Module):
    def __init__(self, forward: Callable[..., Any], **buffers: torch.Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(self, *args)


def compiled(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Captured, Module]:
    captured = capture(model, tuple(x.clone() for x in inputs))
    machine = load_machine("h100_sxm")
    tuner = Tuner(machine, bounds=captured.module.bounds(), budget=16)
    fused = optimize(captured.module, Context(machine=machine, pricer=tuner.price))
    assert print_module(parse(print_module(fused))) == print_module(fused)
    tile_module(fused, tuner)
    assert print_module(parse(print_module(fused))) == print_module(fused)
    return captured, fused


def check(model: nn.Module, *inputs: torch.Tensor) -> Module:
    """The tiled module, whose kernels have given torch's results and left the inputs and buffers as torch leaves them."""
    captured, tiled = compiled(model, inputs)
    arrays = captured.flatten_inputs(tuple(x.clone() for x in inputs))
    found = evaluate(tiled, arrays)
    mine = tuple(x.clone() for x in inputs)
    wanted = model(*mine)
    expected = list(wanted) if isinstance(wanted, (tuple, list)) else [wanted]
    buffers = dict(model.named_buffers())
    for mutation in captured.mutations:
        if mutation.kind == "input":
            expected.append(mine[captured.input_names.index(mutation.name)])
        else:
            expected.append(buffers[mutation.name])
    for value, array, want in zip(tiled.main.results, found, expected, strict=True):
        got = to_torch(array, tensor_type(value).dtype)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    return tiled


def in_place(tiled: Module) -> int:
    """Launches that write into memory that was there before."""
    launches = [op for op in tiled.main.body.ops if isinstance(op, Launch)]
    assert not any(isinstance(op, Scatter) for op in tiled.main.body.ops)
    return sum(len(tiled.kernels[op.kernel].overwrites) for op in launches)


def launches(tiled: Module) -> int:
    return sum(isinstance(op, Launch) for op in tiled.main.body.ops)


CACHE, NEW, AT = torch.randn(2, 12, 8), torch.randn(2, 3, 8), torch.tensor([4, 5, 6])


def _copy(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k.index_copy_(1, at, x.exp())
    return k.sum(1)


def _put(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k[:, at] = x * 2
    return k.mean(-1)


def _slice(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k[:, 3:6].copy_(x + at[None, :, None])
    return k.sum()


def _steps(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k[:, 1:6:2] = x
    k[:, -1] = x[:, 0] * 3
    return x.sum(-1)


def _nested(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k[1, 2:5, 1:3] = x[0, :, 4:6]
    return x.sum()


def _paged(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k.view(6, 4, 8).view(24, 8)[at * 3] = x[1].cos()
    return x.sum(), k[0, 0]


def _updated(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k[:, 3:6] += x
    return x.sum()


def _one(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
    k[:, at[:1]] = x[:, :1] + 1
    return x.sum()


@pytest.mark.parametrize(
    ("function", "writes"),
    [(_copy, 1), (_put, 1), (_slice, 1), (_steps, 2), (_nested, 1), (_paged, 1), (_updated, 1), (_one, 1)],
    ids=lambda f: getattr(f, "__name__", None),
)
def test_inputs_are_written_in_place_by_who_makes_the_values(function: Callable[..., Any], writes: int) -> None:
    tiled = check(Model(function), CACHE, NEW, AT)
    assert in_place(tiled) == writes
    memory = plan(tiled.main, kernels=tiled.kernels)
    assert memory.output_bytes < CACHE.numel() * 4  # the new value of the cache takes no memory of its own


def test_a_write_costs_no_launch_where_a_kernel_makes_its_values() -> None:
    tiled = check(Model(_copy), CACHE, NEW, AT)
    assert launches(tiled) == 2  # the values, written where they belong, and the sum over the cache


def test_values_that_are_wanted_elsewhere_too_are_written_twice_by_one_kernel() -> None:
    def forward(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
        new = x.sin()
        k.index_copy_(1, at, new)
        return new

    tiled = check(Model(forward), CACHE, NEW, AT)
    assert (in_place(tiled), launches(tiled)) == (1, 1)


def test_buffers_are_caches_too() -> None:
    def forward(m: Model, x: torch.Tensor, at: torch.Tensor) -> Any:
        keys, values = m.get_buffer("keys"), m.get_buffer("values")
        keys[:, at] = x + 1
        values[:, 2:5] = x - 1
        return (keys * values).sum()

    tiled = check(Model(forward, keys=CACHE.clone(), values=CACHE.clone()), NEW, AT)
    assert in_place(tiled) == 2


def test_an_old_value_that_is_wanted_afterwards_stays() -> None:
    def forward(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
        before = k.clone()
        k.index_copy_(1, at, x)
        return before

    check(Model(forward), CACHE, NEW, AT)


def test_a_tensor_that_the_model_does_not_change_is_copied() -> None:
    def forward(m: Model, k: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> Any:
        return (
            k.index_copy(1, at, x),
            torch.slice_scatter(k, x, 1, 2, 5),
            k.scatter(1, at[None, :, None].expand_as(x), x),
        )

    tiled = check(Model(forward), CACHE, NEW, AT)
    launched = [op for op in tiled.main.body.ops if isinstance(op, Launch)]
    overwritten = [op.inputs[s] for op in launched for s in tiled.kernels[op.kernel].overwrites.values()]
    assert not set(overwritten) & set(tiled.main.args)


def test_long_chains_of_writes_into_an_intermediate_copy_nothing() -> None:
    def forward(m: Model, x: torch.Tensor) -> Any:
        out = torch.zeros(8, 16)
        state = torch.zeros(16)
        for step in range(8):
            state = state * 0.5 + x[step]
            out[step] = state.tanh()
        return out * 2

    tiled = check(Model(forward), torch.randn(8, 16))
    assert in_place(tiled) == 8


def test_short_ones_become_part_of_what_reads_them() -> None:
    def forward(m: Model, x: torch.Tensor) -> Any:
        y = x + 1
        y[:, 0] = 0
        return y * 2

    tiled = check(Model(forward), torch.randn(8, 16))
    assert (in_place(tiled), launches(tiled)) == (0, 1)


def test_points_outside_are_not_written() -> None:
    module = parse(
        """
func @main(%k: f32[4], %x: f32[2], %at: i64[]) updates (0: %k) {
  %r = scatter set %k over (i: 2) at [%at[] + i] { %x[i] + 1.0 }
  return %r
}
"""
    )
    machine = load_machine("h100_sxm")
    tuner = Tuner(machine, budget=4)
    fused = optimize(module, Context(machine=machine, pricer=tuner.price))
    tile_module(fused, tuner)
    inputs = [np.arange(4, dtype=np.float32), np.ones(2, np.float32), np.array(3)]
    (wanted,), (found,) = evaluate(module, inputs), evaluate(fused, inputs)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found, [0, 1, 2, 2])


DECODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LlamaConfig", DECODER),
        ("MistralConfig", {**DECODER, "sliding_window": 8}),
        ("Gemma3TextConfig", {**DECODER, "head_dim": 8, "sliding_window": 8}),
        ("GPT2Config", {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    ],
)
def test_static_caches_of_language_models_are_written_in_place(kind: str, options: dict[str, Any]) -> None:
    transformers: Any = pytest.importorskip("transformers")
    from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**options)).eval()
    sizes = {"batch_size": 1, "max_cache_len": 32}
    model.generation_config = transformers.GenerationConfig(
        use_cache=True, cache_implementation="static", max_length=32, cache_config=sizes
    )
    step = TorchExportableModuleWithStaticCache(model)
    inputs = {"input_ids": torch.tensor([[5]]), "cache_position": torch.tensor([3])}
    captured = capture(step, (), inputs)
    fused = optimize(captured.module, pipeline=f"{CLEAN_UP},fuse{{policy=none,prices=roofline}}")
    groups = [op for op in fused.main.body.ops if isinstance(op, Fusion)]
    written = sorted(write.base.name for group in groups for write in group.writes.values())
    assert written == [f"{what}_cache_{layer}" for what in ("key", "value") for layer in (0, 1)]
    found = evaluate(fused, captured.flatten_inputs((), inputs))
    with torch.no_grad():
        np.testing.assert_allclose(found[0], step(**inputs).numpy(), rtol=1e-4, atol=1e-5)


def _chosen(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return torch.arange(x.shape[1])[None, :, None] == at[:, None, None]


def _kept(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return torch.arange(1, x.shape[1] + 1)[None, :, None] != at[:, None, None] + 1


WHERE: dict[str, tuple[Callable[..., Any], int]] = {
    "a place of each row": (lambda x, new, at: torch.where(_chosen(x, at), new * 2, x), 1),
    "all places but one": (lambda x, new, at: torch.where(_kept(x, at), x, new * 2), 1),
    "a place round a ring": (lambda x, new, at: torch.where(_chosen(x, at % 5), new, x), 1),
    "the place in what is written": (lambda x, new, at: torch.where(_chosen(x, at), x.flip(1), x), 0),
    "some places": (lambda x, new, at: torch.where(_chosen(x, at) | (x > 1), new, x), 0),
}
"""What a tensor becomes by `torch.where`, and how many launches write that in its own memory."""


@pytest.mark.parametrize("name", WHERE)
def test_a_choice_of_one_place_is_written_there(name: str) -> None:
    """Also where the place lies outside, which is no error: nothing equals it."""
    become, inside = WHERE[name]

    def step(m: nn.Module, x: torch.Tensor, new: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        before = x.sum(1)
        x.copy_(become(x, new, at))
        return before

    tiled = check(Model(step), CACHE.clone(), torch.randn(2, 1, 8), torch.tensor([7, 30]))
    assert in_place(tiled) == inside
    assert launches(tiled) <= 2


def test_places_are_worked_out_where_they_are_written() -> None:
    def ring(m: nn.Module, x: torch.Tensor, new: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        x[:, at % x.shape[1]] = new
        return x.sum()

    tiled = check(Model(ring), CACHE.clone(), NEW, AT + 7)
    assert (in_place(tiled), launches(tiled)) == (1, 2)
