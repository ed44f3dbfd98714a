"""The greedy token of each row, and its probability: an argmax and a softmax's maximum over one long row."""

import torch
from torch import Tensor, nn


class Greedy(nn.Module):
    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return logits.argmax(-1), torch.softmax(logits, -1).amax(-1)


def get_model() -> nn.Module:
    return Greedy()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.randn(6, 5000, generator=torch.Generator().manual_seed(1)),)
