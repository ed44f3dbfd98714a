"""One layer of Llama 3 8B on 4096 tokens."""

import torch
from torch import Tensor, nn

from examples.llama_block import LlamaBlock


def get_model() -> nn.Module:
    with torch.device("meta"):
        return LlamaBlock(width=4096, heads=32, key_value_heads=8, hidden=14336).to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(1, 4096, 4096, dtype=torch.bfloat16, device="meta"),)
