"""Two layers of ViT-base with its patches, 8 images of 224 x 224."""

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel


def get_model() -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = ViTModel(ViTConfig(num_hidden_layers=2), add_pooling_layer=False)
        return model.half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(8, 3, 224, 224, dtype=torch.float16, device="meta"),)
