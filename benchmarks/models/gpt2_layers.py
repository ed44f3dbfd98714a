"""Two layers of GPT-2 small with its embeddings and head, 1024 tokens."""

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel


def get_model() -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = GPT2LMHeadModel(GPT2Config(n_layer=2, use_cache=False))
        return model.half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(1, 1024, dtype=torch.int64, device="meta"),)
