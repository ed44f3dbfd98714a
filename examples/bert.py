"""BERT's encoder from `transformers`, from a configuration with random weights, on a batch with padding."""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel


class Bert(nn.Module):
    """Token ids and a mask of real tokens, both `[batch, sequence]`, to the last hidden state and the pooled one."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.model = BertModel(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return output.last_hidden_state, output.pooler_output


def get_model() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_size=64,
        intermediate_size=256,
        vocab_size=256,
        max_position_embeddings=64,
    )
    return Bert(config).eval()


def get_inputs() -> tuple[Tensor, ...]:
    tokens = torch.randint(0, 256, (2, 32), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([32, 20])
    return tokens, (torch.arange(32)[None, :] < lengths[:, None]).long()
