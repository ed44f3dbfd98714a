"""One token with a cache: the cache is the model's own (static, in buffers), or goes in and comes out (growing, recurrent states)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.architectures import STEPS, Example
from benchmarks.architectures.calls import ids
from benchmarks.architectures.language import causal

STATIC = ("llama", "mistral", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "mixtral", "gpt_oss", "smollm3")
"""Decoders whose cache has a fixed length and is written in place, sliding windows as well."""

GROWING = ("gpt2", "gpt_neox", "opt", "falcon", "deepseek_v3")
"""Decoders to which a cache of what was before is given, and which give a longer one back."""

STATES = ("mamba", "mamba2", "rwkv")
"""Recurrent models, whose cache has one size."""


class Token(nn.Module):
    """The logits of one token and the cache after it."""

    def __init__(self, model: nn.Module, name: str = "past_key_values") -> None:
        super().__init__()
        self.model = model
        self.name = name

    def forward(self, input_ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        result = self.model(input_ids=input_ids, use_cache=True, **{self.name: cache})
        return result.logits, getattr(result, self.name)


def static(name: str) -> Callable[[], Example]:
    """The recipe of transformers: buffers of 16 places, of which the token writes one."""

    def make() -> Example:
        import transformers
        from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

        model, sizes = causal(name).eval(), {"batch_size": 1, "max_cache_len": 16}
        settings: Any = transformers.GenerationConfig
        model.generation_config = settings(
            use_cache=True, cache_implementation="static", max_length=16, cache_config=sizes
        )
        held: nn.Module = TorchExportableModuleWithStaticCache(model)
        return held, {"input_ids": ids(1), "cache_position": torch.tensor([5])}

    return make


def growing(name: str, argument: str = "past_key_values") -> Callable[[], Example]:
    """After a prompt of 6 tokens."""

    def make() -> Example:
        model = causal(name).eval()
        with torch.no_grad():
            cache = getattr(model(input_ids=ids(6), use_cache=True), argument)
        return Token(model, argument), {"input_ids": ids(1), "cache": cache}

    return make


STEPS.update({f"{name}_token": static(name) for name in STATIC})
STEPS.update({f"{name}_token": growing(name) for name in GROWING})
STEPS.update({f"{name}_token": growing(name, "state" if name == "rwkv" else "cache_params") for name in STATES})
