"""A matrix product and a group norm of its columns."""

import torch
from torch import Tensor, nn


def get_model() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(1024, 1024), nn.GroupNorm(16, 1024)).half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(512, 1024, dtype=torch.float16, device="meta"),)
