"""Two layers of BERT-base with its embeddings, 8 sequences of 512 tokens."""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel


def get_model() -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = BertModel(BertConfig(num_hidden_layers=2), add_pooling_layer=False)
        return model.half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.empty(8, 512, dtype=torch.int64, device="meta"),)
