"""A block of Stable Diffusion 1.5's UNet at its first resolution: residual convolutions, then attention to itself and to a text."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, HEADS, TIME, TEXT = 320, 8, 1280, 768


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.GroupNorm(32, CHANNELS), nn.GroupNorm(32, CHANNELS)
        self.first, self.second = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.time = nn.Linear(TIME, CHANNELS)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.first(F.silu(self.first_norm(x))) + self.time(F.silu(time))[:, :, None, None]
        result: Tensor = x + self.second(F.silu(self.second_norm(h)))
        return result


class Attention(nn.Module):
    def __init__(self, context: int) -> None:
        super().__init__()
        self.query = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.key, self.value = (nn.Linear(context, CHANNELS, bias=False) for _ in range(2))
        self.out = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.query(x), self.key(context), self.value(context)
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        result: Tensor = self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.residual, self.norm = Residual(), nn.GroupNorm(32, CHANNELS)
        self.into, self.back = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(CHANNELS) for _ in range(3))
        self.itself, self.text = Attention(CHANNELS), Attention(TEXT)
        self.gate, self.down = nn.Linear(CHANNELS, 8 * CHANNELS), nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        x = self.residual(x, time)
        h = self.into(self.norm(x)).flatten(2).transpose(1, 2)
        own = self.norms[0](h)
        h = h + self.itself(own, own)
        h = h + self.text(self.norms[1](h), text)
        value, gate = self.gate(self.norms[2](h)).chunk(2, dim=-1)
        h = h + self.down(value * F.gelu(gate))
        result: Tensor = x + self.back(h.transpose(1, 2).unflatten(2, x.shape[2:]))
        return result


def get_model() -> nn.Module:
    with torch.device("meta"):
        return Block().half().eval()


def get_inputs() -> tuple[Tensor, ...]:
    shapes = (2, CHANNELS, 64, 64), (2, TIME), (2, 77, TEXT)
    return tuple(torch.empty(shape, dtype=torch.float16, device="meta") for shape in shapes)
