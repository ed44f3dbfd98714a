"""Steps of serving a language model that are more than a token through its layers, in plain torch from what the papers say."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import Example, step


class TernaryLinear(nn.Module):
    """Weights of -1, 0 and 1, four in a byte, against activations of 8 bits (Ma et al., "The era of 1-bit LLMs", 2024, section 2: BitNet b1.58)."""

    packed: Tensor
    scale: Tensor

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        weight = torch.randn(out, into)
        scale = weight.abs().mean()
        digits = ((weight / scale).round().clamp(-1, 1) + 1).to(torch.uint8).view(out, into // 4, 4)
        self.register_buffer(
            "packed", (digits << torch.tensor([0, 2, 4, 6], dtype=torch.uint8)).sum(-1, dtype=torch.uint8)
        )
        self.register_buffer("scale", scale / into**0.5)
        self.norm = nn.RMSNorm(into)

    def forward(self, x: Tensor) -> Tensor:
        shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=x.device)
        weight = (((self.packed[..., None] >> shifts) & 3).flatten(1).to(torch.int8) - 1).to(torch.int8)
        x = self.norm(x)
        largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        rounded = (x * (127 / largest)).round().clamp(-128, 127).to(torch.int8)
        return torch._int_mm(rounded, weight.t()).float() * (largest / 127 * self.scale)


class TernaryBlock(nn.Module):
    """Attention with a cache that is written in place, and a network with a squared ReLU."""

    keys: Tensor
    values: Tensor

    def __init__(self, width: int, heads: int, batch: int, places: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.project, self.out = TernaryLinear(width, 3 * width), TernaryLinear(width, width)
        self.up, self.down = TernaryLinear(width, 4 * width), TernaryLinear(2 * width, width)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.randn(batch, heads, places, self.size))

    def turned(self, x: Tensor, position: Tensor) -> Tensor:
        half = self.size // 2
        angle = position * 10000.0 ** (-torch.arange(half, device=x.device) / half)
        low, high = x.chunk(2, -1)
        return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], -1)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        q, k, v = self.project(x).view(x.shape[0], 3, self.heads, 1, self.size).unbind(1)
        self.keys.index_copy_(2, position, self.turned(k, position))
        self.values.index_copy_(2, position, v)
        seen = (torch.arange(self.keys.shape[2], device=x.device) <= position)[None]
        y = F.scaled_dot_product_attention(self.turned(q, position), self.keys, self.values, seen)
        x = x + self.out(y.flatten(1))
        gate, up = self.up(x).chunk(2, -1)
        result: Tensor = x + self.down(gate.relu().square() * up)
        return result


class TernaryDecoder(nn.Module):
    """A token for each of a batch of sequences that have come equally far."""

    def __init__(self, width: int = 32, batch: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(96, width)
        self.blocks = nn.ModuleList(TernaryBlock(width, 4, batch, places=16) for _ in range(2))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 96, bias=False)

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        x = self.embedding(token)
        for block in self.blocks:
            x = block(x, position)
        result: Tensor = self.head(self.norm(x))
        return result


@step
def bitnet_token() -> Example:
    return TernaryDecoder(), {"token": torch.randint(0, 96, (4,)), "position": torch.tensor([7])}


class TreeCheck(nn.Module):
    """A tree of drafted tokens read at once; of the paths that the model would have written itself the longest is kept (Miao et al.,
    "SpecInfer", 2024, section 4)."""

    parents: Tensor
    ancestors: Tensor

    def __init__(self, parents: tuple[int, ...], width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        count = len(parents)
        ancestors = torch.eye(count, dtype=torch.bool)
        for node, parent in enumerate(parents):
            if parent >= 0:
                ancestors[node] |= ancestors[parent]
        self.register_buffer("parents", torch.tensor(parents))
        self.register_buffer("ancestors", ancestors)
        self.embedding, self.position = nn.Embedding(96, width), nn.Embedding(32, width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 96, bias=False)

    def forward(self, draft: Tensor, keys: Tensor, values: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        batch, nodes = draft.shape
        depth = self.ancestors.sum(-1) - 1
        x = self.embedding(draft) + self.position(known[:, None] + depth)
        q, k, v = self.project(self.norm(x)).view(batch, nodes, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        before = (torch.arange(keys.shape[2], device=x.device) < known[:, None])[:, None].expand(-1, nodes, -1)
        mask = torch.cat([before, self.ancestors.expand(batch, -1, -1)], -1)[:, None]
        y = F.scaled_dot_product_attention(q, torch.cat([keys, k], 2), torch.cat([values, v], 2), mask)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        answers = self.head(self.norm(x + self.network(x))).argmax(-1)

        fits = answers[:, self.parents.clamp(min=0)] == draft
        fits = fits | (self.parents < 0)
        whole = (fits[:, None] | ~self.ancestors).all(-1)
        best = torch.where(whole, depth + 1, 0).argmax(-1)
        length = depth[best] + 1
        on_path = self.ancestors[best]
        order = torch.where(on_path, depth, nodes).argsort(dim=-1, stable=True)
        places = (known[:, None] + torch.arange(nodes, device=x.device)).clamp(max=keys.shape[2] - 1)
        index = order[:, None, :, None].expand(-1, self.heads, -1, k.shape[-1])
        where = places[:, None, :, None].expand_as(index)
        keys = keys.scatter(2, where, k.gather(2, index))
        values = values.scatter(2, where, v.gather(2, index))
        following = answers.gather(1, best[:, None]).squeeze(1)
        return following, length, keys, values


@step
def tree_check() -> Example:
    check = TreeCheck((-1, 0, 0, 1, 1, 2, 3))
    caches = {name: torch.randn(2, 4, 16, 8) for name in ("keys", "values")}
    return check, {"draft": torch.randint(0, 96, (2, 7)), **caches, "known": torch.tensor([5, 8])}
