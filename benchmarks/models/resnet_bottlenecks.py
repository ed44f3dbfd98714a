"""Two bottleneck blocks of ResNet-50's second stage, 32 images."""

import torch
from torch import Tensor, nn

from examples.resnet import Bottleneck


def get_model() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(Bottleneck(256, 128, 2), Bottleneck(512, 128, 1)).half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(32, 256, 56, 56, dtype=torch.float16, device="meta"),)
