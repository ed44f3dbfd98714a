"""Models of images, of images with text, and of what is in an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.architectures import FORWARD, Example, architecture
from benchmarks.architectures.calls import VOCABULARY, First, ids, image
from benchmarks.architectures.text import made

TRANSFORMER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
STAGES: dict[str, Any] = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4]}
TEXT: dict[str, Any] = {
    **{
        key: TRANSFORMER[key]
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    },
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", TRANSFORMER),
    "deit": ("DeiT", TRANSFORMER),
    "beit": ("Beit", {**TRANSFORMER, "use_relative_position_bias": True}),
    "dinov2": ("Dinov2", TRANSFORMER),
    "swin": ("Swin", {**STAGES, "window_size": 4}),
    "swinv2": ("Swinv2", {**STAGES, "window_size": 4}),
    "convnext": ("ConvNext", {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}),
    "convnextv2": ("ConvNextV2", {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}),
    "resnet": ("ResNet", {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}),
    "regnet": ("RegNet", {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "groups_width": 8}),
    "mobilenet_v2": ("MobileNetV2", {"depth_multiplier": 0.25, "image_size": 32}),
    "mobilevit": ("MobileViT", {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
                  "num_attention_heads": 2, "image_size": 64}),
    "efficientnet": ("EfficientNet", {"width_coefficient": 0.25, "depth_coefficient": 0.25, "image_size": 32,
                     "hidden_dim": 320}),
    "poolformer": ("PoolFormer", {"hidden_sizes": [16, 32, 32, 32], "depths": [1, 1, 1, 1]}),
    "pvt_v2": ("PvtV2", {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
               "image_size": 32}),
    "segformer": ("Segformer", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_encoder_blocks": 2, "sr_ratios": [2, 1],
                  "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]}),
    "levit": ("Levit", {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2],
              "depths": [1, 1, 1], "key_dim": [8, 8, 8]}),
}  # fmt: skip


def pixels(config: str, options: dict[str, Any]) -> Callable[[], Example]:
    """Features of an image."""
    return lambda: (First(made(config, options)), {"pixel_values": image(int(options.get("image_size", 32)))})


FORWARD.update({name: pixels(*row) for name, row in IMAGES.items()})


SMALL: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def _text_and_image(config: str) -> Example:
    model = made(config, {"text_config": TEXT, "vision_config": TRANSFORMER, "projection_dim": 16})
    return First(model), {"input_ids": ids(8, 2), "pixel_values": image(32, 2)}


@architecture
def clip() -> Example:
    """Scores of texts for images."""
    return _text_and_image("CLIP")


@architecture
def siglip() -> Example:
    """The same with a sigmoid, and attention that pools."""
    return _text_and_image("Siglip")


@architecture
def sam() -> Example:
    """Masks of what is at a point: windows, relative positions, attention both ways, transposed convolutions."""
    import transformers

    vision = {
        "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
        "patch_size": 16, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 64, "num_pos_feats": 8,
    }  # fmt: skip
    prompts = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    masks = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32, "iou_head_hidden_dim": 16,
    }  # fmt: skip
    config: Any = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks)
    points = image(1).new_tensor([[[[20.0, 30.0]]]])
    model = transformers.SamModel(config)
    return First(model, multimask_output=False), {"pixel_values": image(64), "input_points": points}


@architecture
def detr() -> Example:
    """Boxes and classes by attention from queries to an image."""
    import transformers

    backbone: Any = transformers.ResNetConfig(**{**SMALL, "out_features": ["stage2"]})
    config: Any = transformers.DetrConfig(
        backbone_config=backbone,
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5,
    )  # fmt: skip
    return First(transformers.DetrForObjectDetection(config)), {"pixel_values": image()}


@architecture
def llava() -> Example:
    """An image in a prompt: its features take the places of the image's tokens."""
    import torch
    import transformers

    from benchmarks.architectures.language import DECODER

    vision: Any = transformers.CLIPVisionConfig(**TRANSFORMER)
    text: Any = transformers.LlamaConfig(**DECODER)
    places: dict[str, Any] = {"image_token_index": 95, "image_token_id": 95, "vision_feature_layer": -1}
    config: Any = transformers.LlavaConfig(vision_config=vision, text_config=text, **places)
    prompt = torch.cat([ids(3), torch.full((1, 16), 95), ids(4)], 1)
    model = transformers.LlavaForConditionalGeneration(config)
    return First(model, use_cache=False), {"input_ids": prompt, "pixel_values": image()}
