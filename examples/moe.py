"""A mixture-of-experts layer: a router picks the best experts of each token and mixes what they answer.

Shapes are static: every expert computes every token, in one batched matmul, and a token weighs by zero the experts that
it did not choose. It is the dense bound against which a layer that dispatches its tokens is judged.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MixtureOfExperts(nn.Module):
    """`[tokens, width]` to the same through `experts` SwiGLU networks, `chosen` of which count for each token."""

    def __init__(self, width: int, hidden: int, experts: int, chosen: int) -> None:
        super().__init__()
        self.chosen = chosen
        self.router = nn.Linear(width, experts, bias=False)
        self.gate = nn.Parameter(torch.randn(experts, width, hidden) * width**-0.5)
        self.up = nn.Parameter(torch.randn(experts, width, hidden) * width**-0.5)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) * hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        probability = torch.softmax(self.router(x).float(), dim=-1)
        best, expert = torch.topk(probability, self.chosen, dim=-1)
        best = best / best.sum(dim=-1, keepdim=True)
        one_hot = expert[..., None] == torch.arange(probability.shape[-1], device=x.device)  # [tokens, chosen, experts]
        share = (best[..., None] * one_hot).sum(dim=1).to(x.dtype)  # [tokens, experts]

        hidden = F.silu(torch.matmul(x, self.gate)) * torch.matmul(x, self.up)  # [experts, tokens, hidden]
        answers = torch.bmm(hidden, self.down)  # [experts, tokens, width]
        return (share.t()[..., None] * answers).sum(dim=0)


def get_model() -> nn.Module:
    torch.manual_seed(0)
    return MixtureOfExperts(width=64, hidden=96, experts=4, chosen=2).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.randn(32, 64, generator=torch.Generator().manual_seed(1)),)
