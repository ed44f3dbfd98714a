"""A group norm and a SiLU of Stable Diffusion's first resolution."""

import torch
from torch import Tensor, nn


def get_model() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.GroupNorm(32, 320), nn.SiLU()).half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(2, 320, 64, 64, dtype=torch.float16, device="meta"),)
