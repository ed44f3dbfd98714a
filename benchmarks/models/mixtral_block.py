"""A layer of Mixtral 8x7B: attention with grouped queries and 8 experts of which 2 count for each token; 1024 tokens."""

import torch
from torch import Tensor, nn

from examples.llama_block import LlamaBlock
from examples.moe import MixtureOfExperts


class OfTokens(nn.Module):
    """The experts on each token of `[batch, sequence, width]`."""

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.experts(x.flatten(0, 1)).view(x.shape)
        return result


def get_model() -> nn.Module:
    with torch.device("meta"):
        block = LlamaBlock(width=4096, heads=32, key_value_heads=8, hidden=14336, rope_base=1e6)
        block.register_module("feed_forward", OfTokens(MixtureOfExperts(width=4096, hidden=14336, experts=8, chosen=2)))
        return block.to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(1, 1024, 4096, dtype=torch.bfloat16, device="meta"),)
