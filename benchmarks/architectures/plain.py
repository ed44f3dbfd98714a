"""Architectures in plain torch, as their papers and repositories write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import Example, architecture


class GraphConvolution(nn.Module):
    """A graph convolution: messages along edges are summed where they arrive and divided by the degree's root on both sides."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(into, out)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        degree = torch.zeros(x.shape[0]).index_add(0, target, torch.ones(target.shape[0])).clamp(min=1)
        scale = degree.rsqrt()
        messages = self.linear(x)[source] * (scale[source] * scale[target])[:, None]
        return torch.zeros(x.shape[0], messages.shape[1]).index_add(0, target, messages)


class GraphAttention(nn.Module):
    """Graph attention: a softmax over the edges that arrive at a node."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(into, out, bias=False)
        self.source, self.target = nn.Linear(out, 1), nn.Linear(out, 1)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        values = self.linear(x)
        score = F.leaky_relu(self.source(values)[source] + self.target(values)[target], 0.2).squeeze(-1)
        top = torch.full((x.shape[0],), -1e30).scatter_reduce(0, target, score, "amax")
        weight = (score - top[target]).exp()
        total = torch.zeros(x.shape[0]).scatter_add(0, target, weight)
        messages = values[source] * (weight / total[target])[:, None]
        return torch.zeros_like(values).scatter_add(0, target[:, None].expand_as(messages), messages)


class Graphs(nn.Module):
    """Two layers over a graph, and the mean of each graph of a batch."""

    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = layer(8, 16), layer(16, 4)

    def forward(self, x: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        x = self.second(self.first(x, edges).relu(), edges)
        return torch.zeros(2, 4).scatter_reduce(0, graph[:, None].expand_as(x), x, "mean", include_self=False)


def _graph() -> dict[str, Tensor]:
    return {"x": torch.randn(10, 8), "edges": torch.randint(0, 10, (2, 24)), "graph": torch.arange(10) // 5}


@architecture
def graph_convolution() -> Example:
    return Graphs(GraphConvolution), _graph()


@architecture
def graph_attention() -> Example:
    return Graphs(GraphAttention), _graph()


class DLRM(nn.Module):
    """Recommendation: bags of embeddings, and products of every pair of features."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(50, 8, mode="sum") for _ in range(3))
        self.bottom = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(8 + 6, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())

    def forward(self, dense: Tensor, sparse: Tensor, offsets: Tensor) -> Tensor:
        x = self.bottom(dense)
        features = [x, *(table(sparse[k], offsets) for k, table in enumerate(self.tables))]
        stacked = torch.stack(features, 1)
        products = stacked @ stacked.transpose(1, 2)
        low = torch.tril_indices(4, 4, -1)
        result: Tensor = self.top(torch.cat([x, products[:, low[0], low[1]]], 1))
        return result


@architecture
def dlrm() -> Example:
    inputs = {"dense": torch.randn(4, 6), "sparse": torch.randint(0, 50, (3, 9)), "offsets": torch.tensor([0, 2, 5, 6])}
    return DLRM(), inputs


class RWKV7Mixing(nn.Module):
    """RWKV 7's time mixing: a state that decays, forgets along a direction and learns another, step by step.

    Peng et al., "RWKV-7 Goose with expressive dynamic state evolution", 2025, section 4.
    """

    def __init__(self, width: int, heads: int, rank: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.mix = nn.Parameter(torch.rand(6, width))
        self.receptance, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.decay = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Tanh(), nn.Linear(rank, width))
        self.rate = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
        self.gate = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Sigmoid(), nn.Linear(rank, width, bias=False))
        self.removal, self.scale = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.bonus = nn.Parameter(torch.rand(heads, width // heads))
        self.norm = nn.GroupNorm(heads, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        shifted = F.pad(x, (0, 0, 1, -1)) - x
        xr, xw, xk, xv, xa, xg = (x + shifted * mix for mix in self.mix)
        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)
        w = torch.exp(-0.606531 * torch.sigmoid(self.decay(xw).float()))
        a = torch.sigmoid(self.rate(xa))
        removed = F.normalize((k * self.removal).view(shape), dim=-1)
        k = (k * (1 + (a - 1) * self.scale)).view(shape)
        r, w, v, a = r.view(shape), w.view(shape), v.view(shape), a.view(shape)
        state = x.new_zeros(batch, self.heads, shape[-1], shape[-1])
        outputs = []
        for t in range(length):
            forget = (state @ -removed[:, t, :, :, None]) @ (removed[:, t] * a[:, t])[:, :, None]
            state = state * w[:, t, :, None] + forget + v[:, t, :, :, None] @ k[:, t, :, None]
            outputs.append((state @ r[:, t, :, :, None]).view(batch, width))
        y = self.norm(torch.stack(outputs, 1).view(-1, width)).view(batch, length, width)
        y = y + ((r * k * self.bonus).sum(-1, keepdim=True) * v).view(batch, length, width)
        result: Tensor = self.out(y * self.gate(xg))
        return result


class RWKV7(nn.Module):
    """Two blocks of time and channel mixing."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(96, width)
        self.times = nn.ModuleList(RWKV7Mixing(width, 2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width, bias=False) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(4 * width, width, bias=False) for _ in range(2))
        self.head = nn.Linear(width, 96, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for k in range(2):
            x = x + self.times[k](self.norms[2 * k](x))
            x = x + self.down[k](torch.relu(self.up[k](self.norms[2 * k + 1](x))) ** 2)
        result: Tensor = self.head(self.norms[4](x))
        return result


@architecture
def rwkv7() -> Example:
    return RWKV7(), {"input_ids": torch.randint(0, 96, (1, 4))}


class LatentAttention(nn.Module):
    """Multi-head latent attention with its matrices absorbed: queries meet the compressed keys themselves (DeepSeek V2, 2024)."""

    def __init__(self, width: int = 32, heads: int = 4, size: int = 8, rank: int = 16, rotary: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.rotary = heads, size, rotary
        self.query = nn.Linear(width, heads * (size + rotary), bias=False)
        self.compress = nn.Linear(width, rank + rotary, bias=False)
        self.norm = nn.RMSNorm(rank)
        self.keys, self.values = (nn.Parameter(torch.randn(heads, size, rank) / 4) for _ in range(2))
        self.out = nn.Linear(heads * size, width, bias=False)

    def turn(self, x: Tensor) -> Tensor:
        half = self.rotary // 2
        angle = torch.arange(x.shape[1])[:, None] * 100.0 ** (-torch.arange(half) / half)
        shape = (1, x.shape[1], *(1,) * (x.dim() - 3), half)
        cos, sin = angle.cos().view(shape), angle.sin().view(shape)
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.query(x).view(batch, length, self.heads, -1)
        plain, turned = q.split([self.size, self.rotary], -1)
        latent, shared = self.compress(x).split([self.norm.normalized_shape[0], self.rotary], -1)
        latent, shared = self.norm(latent), self.turn(shared)
        absorbed = torch.einsum("bqhd,hdr->bqhr", plain, self.keys)
        score = torch.einsum("bqhr,bkr->bhqk", absorbed, latent)
        score = score + torch.einsum("bqhr,bkr->bhqk", self.turn(turned), shared)
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        weight = (score * (self.size + self.rotary) ** -0.5).masked_fill(~mask, float("-inf")).softmax(-1)
        mixed = torch.einsum("bhqk,bkr->bqhr", weight, latent)
        result: Tensor = self.out(torch.einsum("bqhr,hdr->bqhd", mixed, self.values).flatten(2))
        return result


@architecture
def latent_attention() -> Example:
    return LatentAttention(), {"x": torch.randn(1, 10, 32)}


class Mixer(nn.Module):
    """MLP-Mixer: layers across places and across channels in turn."""

    def __init__(self, places: int = 16, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        sizes = (places, width, places, width)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(n, 32), nn.GELU(), nn.Linear(32, n)) for n in sizes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for k, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            y = norm(x)
            x = x + (layer(y) if k % 2 else layer(y.transpose(1, 2)).transpose(1, 2))
        return x.mean(1)


@architecture
def mlp_mixer() -> Example:
    return Mixer(), {"x": torch.randn(1, 3, 16, 16)}


@architecture
def transformer() -> Example:
    """torch's own encoder and decoder."""
    return nn.Transformer(32, 4, 1, 1, 64, batch_first=True), {
        "src": torch.randn(1, 7, 32),
        "tgt": torch.randn(1, 5, 32),
    }


class Recurrent(nn.Module):
    """An LSTM in both directions, then a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.gru(self.lstm(x)[0])[0]
        return result


@architecture
def recurrent() -> Example:
    return Recurrent(), {"x": torch.randn(2, 5, 8)}


class UNet(nn.Module):
    """The U-Net of biomedical images: down by pooling, up by transposed convolutions, with what was before concatenated."""

    def __init__(self) -> None:
        super().__init__()

        def block(into: int, out: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())

        self.down, self.middle, self.up = block(1, 8), block(8, 16), block(16, 8)
        self.raise_, self.out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = self.down(x)
        right = self.raise_(self.middle(F.max_pool2d(left, 2)))
        result: Tensor = self.out(self.up(torch.cat([left, right], 1)))
        return result


@architecture
def biomedical_unet() -> Example:
    return UNet(), {"x": torch.randn(1, 1, 16, 16)}


class Field(nn.Module):
    """A radiance field: positions as waves, a network, colours summed along each ray by what is not yet absorbed."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3 + 24, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, origin: Tensor, direction: Tensor) -> Tensor:
        depth = torch.linspace(1.0, 3.0, 8)
        place = origin[:, None] + depth[:, None] * direction[:, None]
        waves = place[..., None] * 2.0 ** torch.arange(4)
        x = self.network(torch.cat([place, waves.sin().flatten(2), waves.cos().flatten(2)], -1))
        absorbed = 1 - torch.exp(-F.softplus(x[..., 3]) * 0.25)
        left = torch.cumprod(torch.cat([torch.ones_like(absorbed[:, :1]), 1 - absorbed[:, :-1] + 1e-10], 1), 1)
        result: Tensor = ((left * absorbed)[..., None] * x[..., :3].sigmoid()).sum(1)
        return result


@architecture
def radiance_field() -> Example:
    return Field(), {"origin": torch.randn(6, 3), "direction": F.normalize(torch.randn(6, 3), dim=-1)}
