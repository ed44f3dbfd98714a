"""Architectures of transformers at tiny sizes: the whole model's tensor IR against eager torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from codesign.ir.tensor import Call
from tests.frontend.checks import assert_close, assert_wellformed, run

transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

DECODER = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ENCODER = {key: value for key, value in DECODER.items() if "key_value" not in key and "position" not in key}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

LANGUAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", DECODER),
    "mistral": ("MistralConfig", {**DECODER, "sliding_window": 4}),
    "qwen3": ("Qwen3Config", {**DECODER, "head_dim": 8}),
    "gemma3": ("Gemma3TextConfig", {**DECODER, "head_dim": 8}),
    "mixtral, batched experts": ("MixtralConfig", {**DECODER, **EXPERTS, "experts_implementation": "batched_mm"}),
    "mixtral, grouped experts": ("MixtralConfig", {**DECODER, **EXPERTS, "experts_implementation": "grouped_mm"}),
    "bloom": ("BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mamba": ("MambaConfig", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "rwkv": ("RwkvConfig", {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}),
}


class First(nn.Module):
    """A transformers model that returns its first output and keeps no cache."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__()
        self.model = model
        self.options = options

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.model(**inputs, **self.options)[0]
        return result


def ids(length: int = 12) -> torch.Tensor:
    return torch.randint(3, 90, (1, length))


def check(model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    from codesign.frontend import capture

    model = model.eval()
    captured = capture(model, (), inputs)
    assert not any(isinstance(op, Call) for op in captured.module.main.body.walk()), captured.warnings
    assert_wellformed(captured.module)
    with torch.no_grad():
        expected = model(**inputs)
    assert_close(run(captured, (), inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models(name: str) -> None:
    torch.manual_seed(0)
    config, options = LANGUAGE[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**options))
    check(First(model, use_cache=False), {"input_ids": ids()})


OTHERS: dict[str, Callable[[], tuple[nn.Module, dict[str, torch.Tensor]]]] = {
    "deberta": lambda: (
        First(
            transformers.DebertaV2Model(
                transformers.DebertaV2Config(**ENCODER, relative_attention=True, pos_att_type=["p2c", "c2p"])
            )
        ),
        {"input_ids": ids()},
    ),
    "t5": lambda: (
        First(
            transformers.T5Model(
                transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
            ),
            use_cache=False,
        ),
        {"input_ids": ids(), "decoder_input_ids": ids(5)},
    ),
    "vit": lambda: (
        First(transformers.ViTModel(transformers.ViTConfig(**VISION, image_size=32, patch_size=8))),
        {"pixel_values": torch.randn(1, 3, 32, 32)},
    ),
    "swin": lambda: (
        First(
            transformers.SwinModel(
                transformers.SwinConfig(
                    image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
                )
            )
        ),
        {"pixel_values": torch.randn(1, 3, 32, 32)},
    ),
    "clip text": lambda: (
        First(transformers.CLIPTextModel(transformers.CLIPTextConfig(**VISION, vocab_size=96))),
        {"input_ids": ids()},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models(name: str) -> None:
    torch.manual_seed(0)
    check(*OTHERS[name]())
