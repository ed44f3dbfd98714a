"""Models at the sizes that people run, in bfloat16 on the `meta` device: they have no weights, so that they are captured and costed but not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.architectures import Example
from benchmarks.architectures.calls import First

REAL: dict[str, Callable[[], Example]] = {}
"""By name; each is made on `meta` by whoever calls it under `torch.device("meta")`."""

LLAMA: dict[str, Any] = {"vocab_size": 128256, "num_key_value_heads": 8, "rope_theta": 500000.0}

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_3_8b": ("Llama", {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336}),
    "llama_3_70b": ("Llama", {**LLAMA, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
                    "num_attention_heads": 64}),
    "mixtral_8x7b": ("Mixtral", {}),
    "deepseek_v3": ("DeepseekV3", {}),
    "gpt_oss_120b": ("GptOss", {}),
}  # fmt: skip
"""Causal language models: configurations of transformers, whose own defaults are those of Mixtral 8x7B, DeepSeek V3 and gpt-oss 120B."""

TOKENS = 2048


def prompt(config: str, options: dict[str, Any]) -> Callable[[], Example]:
    """The logits of a prompt of 2048 tokens."""

    def make() -> Example:
        import transformers

        classes: Any = transformers
        made = getattr(classes, f"{config}Config")(**options)
        model = classes.AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)
        return First(model, use_cache=False), {"input_ids": torch.zeros(1, TOKENS, dtype=torch.long)}

    return make


REAL.update({name: prompt(*row) for name, row in CAUSAL.items()})


def real(make: Callable[[], Example]) -> Callable[[], Example]:
    """Register one under the name of its function."""
    REAL[make.__name__] = make
    return make


@real
def whisper_large_v3() -> Example:
    """30 s of sound and 64 tokens of text."""
    import transformers

    config: Any = transformers.WhisperConfig(
        d_model=1280, encoder_layers=32, decoder_layers=32, encoder_attention_heads=20, decoder_attention_heads=20,
        encoder_ffn_dim=5120, decoder_ffn_dim=5120, num_mel_bins=128, vocab_size=51866,
    )  # fmt: skip
    model: nn.Module = transformers.WhisperModel(config)
    inputs = {"input_features": torch.zeros(1, 128, 3000), "decoder_input_ids": torch.zeros(1, 64, dtype=torch.long)}
    return First(model, use_cache=False), inputs


@real
def sd_1_5_unet() -> Example:
    """An image of 512 x 512, and its text."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    inputs: dict[str, Any] = {"sample": torch.zeros(1, 4, 64, 64), "timestep": torch.zeros(1, dtype=torch.long)}
    return First(model, return_dict=False), {**inputs, "encoder_hidden_states": torch.zeros(1, 77, 768)}


@real
def sdxl_unet() -> Example:
    """An image of 1024 x 1024, its text, and the sizes that it was cut from."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
    inputs: dict[str, Any] = {"sample": torch.zeros(1, 4, 128, 128), "timestep": torch.zeros(1, dtype=torch.long)}
    text = torch.zeros(1, 77, 2048)
    return First(model, return_dict=False), {**inputs, "encoder_hidden_states": text, "added_cond_kwargs": added}


@real
def flux_dev() -> Example:
    """An image of 1024 x 1024 in patches, and 512 tokens of text."""
    from diffusers import FluxTransformer2DModel

    inputs = {
        "hidden_states": torch.zeros(1, 4096, 64),
        "encoder_hidden_states": torch.zeros(1, 512, 4096),
        "pooled_projections": torch.zeros(1, 768),
        "timestep": torch.zeros(1),
        "img_ids": torch.zeros(4096, 3),
        "txt_ids": torch.zeros(512, 3),
        "guidance": torch.zeros(1),
    }
    return First(FluxTransformer2DModel(guidance_embeds=True), return_dict=False), inputs


def on_meta(name: str) -> Example:
    """A model of the table without weights, its floats in bfloat16."""
    with torch.device("meta"):
        model, inputs = REAL[name]()
    return model.to(torch.bfloat16).eval(), torch.utils._pytree.tree_map(_narrow, inputs)


def _narrow(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.bfloat16() if tensor.is_floating_point() else tensor
