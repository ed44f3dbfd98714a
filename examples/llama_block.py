"""One layer of a Llama: RMSNorm, rotary position embedding, grouped-query attention and SwiGLU, in plain torch."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Scale the last dimension to unit root mean square, computed in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        exact = x.float()
        scale = torch.rsqrt(exact.square().mean(dim=-1, keepdim=True) + self.epsilon)
        return (exact * scale).to(x.dtype) * self.weight


def rotary_angles(length: int, head: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[length, head]` of the rotary embedding (Su et al., 2021), in float32."""
    frequency = base ** (-torch.arange(0, head, 2, dtype=torch.float32, device=device) / head)
    angle = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequency[None, :]
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair `(x[i], x[i + head/2])` by its position's angle."""
    low, high = x.chunk(2, dim=-1)
    return x * cosine.to(x.dtype) + torch.cat([-high, low], dim=-1) * sine.to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention in which groups of query heads share a key and a value head."""

    def __init__(self, width: int, heads: int, key_value_heads: int, rope_base: float) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head = heads, key_value_heads, width // heads
        self.rope_base = rope_base
        self.query = nn.Linear(width, heads * self.head, bias=False)
        self.key = nn.Linear(width, key_value_heads * self.head, bias=False)
        self.value = nn.Linear(width, key_value_heads * self.head, bias=False)
        self.out = nn.Linear(heads * self.head, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query = self.query(x).view(batch, length, self.heads, self.head).transpose(1, 2)
        key = self.key(x).view(batch, length, self.key_value_heads, self.head).transpose(1, 2)
        value = self.value(x).view(batch, length, self.key_value_heads, self.head).transpose(1, 2)

        cosine, sine = rotary_angles(length, self.head, self.rope_base, x.device)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)

        group = self.heads // self.key_value_heads
        key = key[:, :, None].expand(-1, -1, group, -1, -1).reshape(batch, self.heads, length, self.head)
        value = value[:, :, None].expand(-1, -1, group, -1, -1).reshape(batch, self.heads, length, self.head)

        position = torch.arange(length, device=x.device)
        scores = query @ key.transpose(-2, -1) / math.sqrt(self.head)
        scores = scores.masked_fill(position[None, :] > position[:, None], float("-inf"))
        weights = torch.softmax(scores.float(), dim=-1).to(x.dtype)
        return self.out((weights @ value).transpose(1, 2).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    """A feed-forward network whose hidden layer is gated by its SiLU (Shazeer, 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class LlamaBlock(nn.Module):
    """`[batch, sequence, width]` to the same, with a residual around attention and one around the feed-forward."""

    def __init__(self, width: int, heads: int, key_value_heads: int, hidden: int, rope_base: float = 500_000.0) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, heads, key_value_heads, rope_base)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = SwiGLU(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


def get_model() -> nn.Module:
    torch.manual_seed(0)
    return LlamaBlock(width=64, heads=4, key_value_heads=2, hidden=192).eval()


def get_inputs() -> tuple[Tensor, ...]:
    return (torch.randn(1, 32, 64, generator=torch.Generator().manual_seed(1)),)
