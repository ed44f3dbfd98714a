"""The mixture of experts of a Mixtral 8x7B layer (8 experts, 2 for each token) on 256 tokens."""

import torch
from torch import Tensor, nn

from examples.moe import MixtureOfExperts


def get_model() -> nn.Module:
    with torch.device("meta"):
        return MixtureOfExperts(width=4096, hidden=14336, experts=8, chosen=2).to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(256, 4096, dtype=torch.bfloat16, device="meta"),)
