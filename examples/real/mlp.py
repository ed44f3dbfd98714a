"""The feed-forward of a model 4096 wide on 4096 tokens."""

import torch
from torch import Tensor, nn

from examples.mlp import MLP


def get_model() -> nn.Module:
    with torch.device("meta"):
        return MLP(width=4096, hidden=16384).to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(4096, 4096, dtype=torch.bfloat16, device="meta"),)
