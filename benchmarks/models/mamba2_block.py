"""A layer of Mamba-2 130M, 1024 tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mamba2Config
from transformers.models.mamba2 import modeling_mamba2


def get_model() -> nn.Module:
    config = Mamba2Config(hidden_size=768, num_heads=24, head_dim=64, state_size=128, n_groups=1, use_cache=False)
    with torch.device("meta"):
        made: Any = modeling_mamba2
        block: nn.Module = made.Mamba2Block(config, 0)
    return block.half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(1, 1024, 768, dtype=torch.float16, device="meta"),)
