"""The attention of a model with 32 heads of 128 over 4096 tokens."""

import torch
from torch import Tensor, nn

from examples.naive_attention import NaiveAttention


def get_model() -> nn.Module:
    return NaiveAttention().eval()


def get_inputs() -> tuple[Tensor, ...]:
    query, key, value = (torch.empty(1, 32, 4096, 128, dtype=torch.bfloat16, device="meta") for _ in range(3))
    return query, key, value
