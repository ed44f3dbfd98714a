"""Diffusion: denoisers with convolutions or attention, and the autoencoder before and after them."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.architectures import Example, architecture
from benchmarks.architectures.calls import First


@architecture
def unet() -> Example:
    """The denoiser of Stable Diffusion 1.5: convolutions, and attention to the text."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=16, attention_head_dim=4,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    inputs: dict[str, Any] = {"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([3])}
    return First(model, return_dict=False), {**inputs, "encoder_hidden_states": torch.randn(1, 5, 16)}


@architecture
def autoencoder() -> Example:
    """Latents to an image: the decoder of Stable Diffusion's autoencoder, and its encoder."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    return First(model, return_dict=False), {"sample": torch.randn(1, 3, 16, 16)}


@architecture
def dit() -> Example:
    """A transformer over patches whose norms depend on the time and the class."""
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, norm_num_groups=4,
        num_embeds_ada_norm=16,
    )  # fmt: skip
    inputs = {"timestep": torch.tensor([3]), "class_labels": torch.tensor([5])}
    return First(model, return_dict=False), {"hidden_states": torch.randn(1, 4, 8, 8), **inputs}


@architecture
def sd3() -> Example:
    """Stable Diffusion 3: text and image in one attention, each with weights of its own."""
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16, out_channels=4,
        pos_embed_max_size=8,
    )  # fmt: skip
    inputs = {"encoder_hidden_states": torch.randn(1, 5, 16), "pooled_projections": torch.randn(1, 16)}
    return First(model, return_dict=False), {
        "hidden_states": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor([3]),
        **inputs,
    }


@architecture
def flux() -> Example:
    """Flux: blocks of two streams, then of one, with rotary positions in three axes."""
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    inputs = {
        "hidden_states": torch.randn(1, 16, 4),
        "encoder_hidden_states": torch.randn(1, 6, 32),
        "pooled_projections": torch.randn(1, 32),
        "timestep": torch.tensor([0.3]),
        "img_ids": torch.randn(16, 3),
        "txt_ids": torch.zeros(6, 3),
        "guidance": torch.tensor([3.5]),
    }
    return First(model, return_dict=False), inputs
