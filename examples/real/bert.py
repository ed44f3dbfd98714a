"""BERT-base (12 layers, 110 million parameters) on 8 sequences of 512 tokens."""

import torch
from torch import Tensor, nn
from transformers import BertConfig

from examples.bert import Bert


def get_model() -> nn.Module:
    with torch.device("meta"):
        return Bert(BertConfig()).to(torch.bfloat16).eval()


def get_inputs() -> tuple[Tensor, ...]:
    tokens = torch.empty(8, 512, dtype=torch.int64, device="meta")
    return tokens, torch.empty_like(tokens)
