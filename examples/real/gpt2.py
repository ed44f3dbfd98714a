"""GPT-2 small (12 layers, 124 million parameters) on 1024 tokens."""

import torch
from torch import Tensor, nn
from transformers import GPT2Config

from examples.gpt2 import GPT2


def get_model() -> nn.Module:
    with torch.device("meta"):
        return GPT2(GPT2Config()).to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(1, 1024, dtype=torch.int64, device="meta"),)
