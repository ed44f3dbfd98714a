"""GPT-2 from `transformers`, from a configuration with random weights: token ids to logits over the vocabulary."""

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel


class GPT2(nn.Module):
    """Token ids `[batch, sequence]` to logits `[batch, sequence, vocabulary]`, without a key-value cache."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.model = GPT2LMHeadModel(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, use_cache=False).logits


def get_model() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=4, n_embd=64, n_positions=64, vocab_size=256, bos_token_id=0, eos_token_id=0)
    return GPT2(config).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.randint(0, 256, (1, 32), generator=torch.Generator().manual_seed(1)),)
