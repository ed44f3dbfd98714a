"""How models of transformers and diffusers are called: one output, no cache, or one token with a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 96


class First(nn.Module):
    """The first output of a call."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__()
        self.model = model
        self.options = options

    def forward(self, **inputs: Tensor) -> Tensor:
        result: Tensor = self.model(**inputs, **self.options)[0]
        return result


def ids(length: int = 12, batch: int = 1) -> Tensor:
    """Token numbers."""
    return torch.randint(3, VOCABULARY - 6, (batch, length))


def image(size: int = 32, batch: int = 1, channels: int = 3) -> Tensor:
    """Pixels."""
    return torch.randn(batch, channels, size, size)
