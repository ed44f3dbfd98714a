"""ResNet-50 on 32 images of 224 x 224."""

import torch
from torch import Tensor, nn

from examples.resnet import ResNet


def get_model() -> nn.Module:
    with torch.device("meta"):
        return ResNet(depths=(3, 4, 6, 3), width=64, classes=1000).to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(32, 3, 224, 224, dtype=torch.bfloat16, device="meta"),)
