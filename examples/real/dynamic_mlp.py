"""The feed-forward of a model 4096 wide on any number of tokens."""

import torch
from torch import Tensor, nn

from examples.dynamic_mlp import DynamicMLP, dynamic_shapes

__all__ = ["dynamic_shapes", "get_inputs", "get_model"]


def get_model() -> nn.Module:
    with torch.device("meta"):
        return DynamicMLP(width=4096, hidden=16384).to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(256, 4096, dtype=torch.bfloat16, device="meta"),)
