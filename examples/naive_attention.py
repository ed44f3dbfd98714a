"""Causal attention as the textbook writes it: matmul, mask, softmax, matmul, with the scores in memory between them.

Nothing here calls a fused attention; whatever fusing happens is the compiler's doing.
"""

import math

import torch
from torch import Tensor, nn


class NaiveAttention(nn.Module):
    """Queries, keys and values `[batch, heads, sequence, head]` to `[batch, heads, sequence, head]`."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        length = query.shape[-2]
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(diagonal=1)
        weights = torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1)
        return weights @ value


def get_model() -> nn.Module:
    return NaiveAttention().eval()


def get_inputs() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 64, 32, generator=generator) for _ in range(3))
    return query, key, value
