"""A two-layer perceptron: two matmuls with a bias, and a GELU between them that belongs in the first one's epilogue."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Module):
    """`[batch, width] -> [batch, width]` through a hidden layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


def get_model() -> nn.Module:
    torch.manual_seed(0)
    return MLP(width=64, hidden=256).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.randn(32, 64, generator=torch.Generator().manual_seed(1)),)
