"""The perceptron of `mlp.py` with a ReLU and a batch that is only known when it runs.

`dynamic_shapes` names that size, which stays a symbol with a range through the IR and the kernels' arguments.
"""

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

# From 2, since torch.export treats a size of 0 or 1 as a constant (such a dimension would broadcast).
dynamic_shapes = {"x": {0: Dim("batch", min=2, max=4096)}}


class DynamicMLP(nn.Module):
    """`[batch, width] -> [batch, width]` for any batch."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.relu(self.up(x)))


def get_model() -> nn.Module:
    torch.manual_seed(0)
    return DynamicMLP(width=64, hidden=128).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.randn(24, 64, generator=torch.Generator().manual_seed(1)),)
