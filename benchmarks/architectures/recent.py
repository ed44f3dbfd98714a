"""Architectures of papers from 2024 on, in plain torch from what the papers say: none was written with this compiler in view."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import Example, architecture


class DifferentialAttention(nn.Module):
    """The difference of two softmax maps, whose common noise goes (Ye et al., "Differential transformer", 2024, section 2.1)."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads // 2
        self.start = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.lambdas = nn.Parameter(torch.randn(4, self.size) * 0.1)
        self.norm = nn.RMSNorm(2 * self.size, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k = (
            f(x).view(batch, length, self.heads, 2, self.size).permute(3, 0, 2, 1, 4) for f in (self.query, self.key)
        )
        v = self.value(x).view(batch, length, self.heads, 2 * self.size).transpose(1, 2)
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.size)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        first, second = scores.masked_fill(later, -torch.inf).softmax(-1, dtype=torch.float32).type_as(x)
        a, b, c, d = self.lambdas
        weight = (a * b).sum().exp() - (c * d).sum().exp() + self.start
        y = self.norm((first - weight * second) @ v) * (1 - self.start)
        result: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, width))
        return result


class HyperConnected(nn.Module):
    """A layer between several residual streams, mixed by weights that depend on them (Zhu et al., "Hyper-connections", 2024, section 2.3)."""

    def __init__(self, layer: nn.Module, width: int, streams: int, depth: int) -> None:
        super().__init__()
        self.layer, self.norm = layer, nn.LayerNorm(width)
        into = torch.zeros(streams, 1)
        into[depth % streams] = 1
        self.mix = nn.Parameter(torch.cat([into, torch.eye(streams)], 1))
        self.spread = nn.Parameter(torch.ones(streams))
        self.mix_by, self.spread_by = (
            nn.Parameter(torch.randn(width, streams + 1) / 8),
            nn.Parameter(torch.randn(width) / 8),
        )
        self.scales = nn.Parameter(torch.full((2,), 0.1))

    def forward(self, streams: Tensor) -> Tensor:
        normal = self.norm(streams)
        mix = self.mix + self.scales[0] * (normal @ self.mix_by).tanh()
        spread = self.spread + self.scales[1] * (normal @ self.spread_by).tanh()
        mixed = mix.transpose(-1, -2) @ streams
        answer = self.layer(mixed[..., 0, :])
        result: Tensor = answer[..., None, :] * spread[..., None] + mixed[..., 1:, :]
        return result


class DifferentialTransformer(nn.Module):
    """Differential attention and gated networks, each between two residual streams."""

    def __init__(self, width: int = 32, streams: int = 2) -> None:
        super().__init__()
        self.streams = streams
        self.embedding = nn.Embedding(96, width)
        layers: list[nn.Module] = []
        for depth in range(2):
            layers += [nn.Sequential(nn.RMSNorm(width), DifferentialAttention(width, 2, depth))]
            layers += [
                nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 4 * width), nn.GLU(), nn.Linear(2 * width, width))
            ]
        self.layers = nn.ModuleList(HyperConnected(layer, width, streams, k) for k, layer in enumerate(layers))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 96, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)[..., None, :].expand(-1, -1, self.streams, -1)
        for layer in self.layers:
            x = layer(x)
        result: Tensor = self.head(self.norm(x.sum(-2)))
        return result


@architecture
def differential_transformer() -> Example:
    return DifferentialTransformer(), {"input_ids": torch.randint(0, 96, (2, 10))}


class SparseAttention(nn.Module):
    """Attention to summaries of blocks, to the blocks whose summaries score best, and to a window (Yuan et al., "Native sparse attention",
    2025, section 3)."""

    def __init__(self, width: int, heads: int, block: int, best: int, window: int) -> None:
        super().__init__()
        self.heads, self.size, self.block, self.best, self.window = heads, width // heads, block, best, window
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.keys_values = nn.Linear(width, 6 * self.size, bias=False)
        self.places = nn.Parameter(torch.randn(2, block, self.size) * 0.1)
        self.summary = nn.ModuleList(
            nn.Sequential(nn.Linear(block * self.size, 32), nn.GELU(), nn.Linear(32, self.size)) for _ in range(2)
        )
        self.gate = nn.Linear(width, 3 * heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        blocks = length // self.block
        q = self.query(x).view(batch, length, self.heads, self.size).transpose(1, 2) * self.size**-0.5
        k_all, v_all, k_best, v_best, k_near, v_near = self.keys_values(x).chunk(6, -1)
        place = torch.arange(length, device=x.device)

        k_sum, v_sum = (
            summary((t.view(batch, blocks, self.block, self.size) + own).flatten(2))
            for t, own, summary in zip((k_all, v_all), self.places, self.summary, strict=True)
        )
        ended = (torch.arange(blocks, device=x.device) + 1) * self.block - 1 <= place[:, None]
        scores = (q @ k_sum[:, None].transpose(-1, -2)).masked_fill(~ended, -1e30)
        weights = torch.where(ended.any(-1, keepdim=True), scores.softmax(-1), 0)
        coarse = weights @ v_sum[:, None]

        own = place[:, None] // self.block == torch.arange(blocks, device=x.device)
        rank = torch.where(own, torch.inf, weights.sum(1))
        chosen = rank.topk(self.best, -1).indices
        k_of, v_of = (
            t.view(batch, blocks, self.block, self.size)[
                torch.arange(batch, device=x.device)[:, None, None], chosen
            ].flatten(2, 3)
            for t in (k_best, v_best)
        )
        where = (chosen[..., None] * self.block + torch.arange(self.block, device=x.device)).flatten(2)
        scores = torch.einsum("bhtd,btkd->bhtk", q, k_of).masked_fill((where > place[:, None])[:, None], -1e30)
        fine = torch.einsum("bhtk,btkd->bhtd", scores.softmax(-1), v_of)

        distance = place[:, None] - place
        near = (distance >= 0) & (distance < self.window)
        k_near, v_near = (t[:, None].expand(-1, self.heads, -1, -1) for t in (k_near, v_near))
        local = F.scaled_dot_product_attention(q, k_near, v_near, near, scale=1.0)

        shares = self.gate(x).sigmoid().view(batch, length, self.heads, 3).permute(3, 0, 2, 1)[..., None]
        y = shares[0] * coarse + shares[1] * fine + shares[2] * local
        result: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, width))
        return result


@architecture
def native_sparse_attention() -> Example:
    return SparseAttention(32, 4, block=4, best=2, window=5), {"x": torch.randn(2, 16, 32)}


class NeuralMemory(nn.Module):
    """A memory that learns while it reads: gradient steps with momentum and forgetting on how well it answers (Behrouz et al., "Titans",
    2024, section 3.1). The memory is a network of two layers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.rates = nn.Linear(width, 3)
        self.first, self.second = (
            nn.Parameter(torch.randn(width, hidden) / 4),
            nn.Parameter(torch.randn(hidden, width) / 4),
        )

    @staticmethod
    def surprise(memory: tuple[Tensor, Tensor], key: Tensor, value: Tensor) -> Tensor:
        return (F.silu(key @ memory[0]) @ memory[1] - value).square().sum()

    def forward(self, x: Tensor) -> Tensor:
        q, k = (F.normalize(F.silu(f(x)), dim=-1) for f in (self.query, self.key))
        v = F.silu(self.value(x))
        forget, momentum, rate = self.rates(x).sigmoid().unbind(-1)
        slope = torch.func.vmap(torch.func.grad(self.surprise))
        memory = [w.expand(x.shape[0], *w.shape) for w in (self.first, self.second)]
        change = [torch.zeros_like(w) for w in memory]
        answers = []
        for t in range(x.shape[1]):
            steps = slope((memory[0], memory[1]), k[:, t], v[:, t])
            eta, theta, alpha = (s[:, t, None, None] for s in (momentum, rate, forget))
            change = [eta * c - 0.1 * theta * g for c, g in zip(change, steps, strict=True)]
            memory = [(1 - alpha) * w + c for w, c in zip(memory, change, strict=True)]
            answers.append(F.silu(q[:, t, None] @ memory[0]) @ memory[1])
        return torch.cat(answers, 1)


@architecture
def neural_memory() -> Example:
    return NeuralMemory(8, 16), {"x": torch.randn(2, 5, 8)}


class SplineLayer(nn.Module):
    """A layer whose every edge is a function of its own, a sum of cubic splines (Liu et al., "KAN", 2024, section 2.2)."""

    knots: Tensor

    def __init__(self, into: int, out: int, intervals: int = 5, order: int = 3) -> None:
        super().__init__()
        self.order = order
        self.base = nn.Linear(into, out, bias=False)
        self.weights = nn.Parameter(torch.randn(out, into, intervals + order) * 0.1)
        knots = torch.arange(-order, intervals + order + 1) * (2 / intervals) - 1
        self.register_buffer("knots", knots)

    def forward(self, x: Tensor) -> Tensor:
        t, at = self.knots, x[..., None]
        bases = ((at >= t[:-1]) & (at < t[1:])).type_as(x)
        for n in range(1, self.order + 1):
            rising = (at - t[: -n - 1]) / (t[n:-1] - t[: -n - 1]) * bases[..., :-1]
            bases = rising + (t[n + 1 :] - at) / (t[n + 1 :] - t[1:-n]) * bases[..., 1:]
        result: Tensor = self.base(F.silu(x)) + torch.einsum("...ik,oik->...o", bases, self.weights)
        return result


@architecture
def spline_network() -> Example:
    return nn.Sequential(SplineLayer(4, 8), SplineLayer(8, 3)), {"input": torch.rand(16, 4) * 2 - 1}
