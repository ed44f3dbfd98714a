"""A strided 3 x 3 convolution with padding and a bias, and a ReLU that belongs in its epilogue."""

import torch
from torch import Tensor, nn


def get_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 24, 3, stride=2, padding=1), nn.ReLU()).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.randn(2, 8, 15, 15, generator=torch.Generator().manual_seed(1)),)
