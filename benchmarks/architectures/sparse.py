"""Networks in which a token or a node meets only some of the weights or of the others, in plain torch from what the papers say."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import STEPS, Example, architecture, step
from benchmarks.architectures.papers import Attending, Feeding
from benchmarks.architectures.training import step_of


class BalancedExperts(nn.Module):
    """A shared expert beside routed ones, of which those of the best groups are taken; a bias, moved after each batch by who had too much to
    do, keeps them even without a loss (DeepSeek-AI, "DeepSeek-V3", 2024, sections 2.1.2 and 2.1.3)."""

    bias: Tensor

    def __init__(self, width: int, experts: int = 8, groups: int = 4, best: int = 2, rate: float = 0.001) -> None:
        super().__init__()
        self.groups, self.best, self.rate = groups, best, rate
        self.router = nn.Linear(width, experts, bias=False)
        self.register_buffer("bias", torch.randn(experts) * 0.05)
        self.shared = Feeding(width)
        self.gates, self.ups, self.downs = (
            nn.Parameter(torch.randn(experts, width, width) * width**-0.5) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        scores = self.router(flat).sigmoid()
        wanted = (scores + self.bias).unflatten(-1, (self.groups, -1))
        groups = wanted.topk(2, -1).values.sum(-1).topk(2, -1).indices
        open_groups = torch.zeros(wanted.shape[:-1], device=x.device, dtype=torch.bool).scatter_(1, groups, True)
        chosen = wanted.masked_fill(~open_groups[..., None], -torch.inf).flatten(1).topk(self.best, -1).indices
        weight = scores.gather(1, chosen)
        weight = 2.5 * weight / weight.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)
        load = F.one_hot(chosen.flatten(), len(self.bias)).sum(0)
        ends = load.cumsum(0).to(torch.int32)
        given = flat[order // self.best].bfloat16()
        gate, up = (torch._grouped_mm(given, part.bfloat16(), offs=ends) for part in (self.gates, self.ups))
        routed = torch._grouped_mm(F.silu(gate) * up, self.downs.bfloat16(), offs=ends).float()
        y: Tensor = self.shared(flat).index_add(0, order // self.best, routed * weight.flatten()[order, None])
        with torch.no_grad():
            self.bias += self.rate * torch.sign(load.float().mean() - load)
        return y.view_as(x)


class PredictingFurther(nn.Module):
    """Two layers, and a third that tells the token after the next from the state and the next (the same, section 2.2)."""

    def __init__(self, width: int = 24, vocabulary: int = 64) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary, bias=False)
        self.attentions = nn.ModuleList(Attending(width, 4) for _ in range(3))
        self.networks = nn.ModuleList([Feeding(width), BalancedExperts(width), Feeding(width)])
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(3))
        self.join = nn.Linear(2 * width, width, bias=False)

    def layer(self, x: Tensor, n: int) -> Tensor:
        x = x + self.attentions[n](x)
        result: Tensor = x + self.networks[n](x)
        return result

    def forward(self, input_ids: Tensor) -> Tensor:
        embedded = self.embedding(input_ids)
        x = self.layer(self.layer(embedded, 0), 1)
        loss = F.cross_entropy(self.head(self.norms[0](x))[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
        both = torch.cat([self.norms[1](x[:, :-1]), self.norms[2](embedded[:, 1:])], -1)
        further = self.head(self.norms[0](self.layer(self.join(both), 2)))
        return loss + 0.3 * F.cross_entropy(further[:, :-1].flatten(0, 1), input_ids[:, 2:].flatten())


@step
def balanced_experts() -> Example:
    return PredictingFurther(), {"input_ids": torch.randint(0, 64, (2, 10))}


class PlainGraphs(nn.Module):
    """A transformer over the nodes of graphs that knows its edges only from random walks: attention by distance, norms whose size the data
    set, and pairs with a network of their own (Ma et al., "Plain transformers can be powerful graph learners", 2025, section 3)."""

    def __init__(self, width: int = 16, heads: int = 2, steps: int = 5, depth: int = 2) -> None:
        super().__init__()
        self.heads, self.steps = heads, steps
        self.nodes = nn.Embedding(9, width)
        self.walks = nn.Sequential(nn.Linear(steps, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.alone = nn.Linear(steps, width)
        self.project = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(depth))
        self.pair = nn.ModuleList(nn.Linear(width, heads) for _ in range(depth))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(2, width)) for _ in range(depth))
        self.degrees = nn.ParameterList(nn.Parameter(torch.randn(2, width) * 0.3) for _ in range(depth))
        self.network = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.head = nn.Linear(width, 3)

    @staticmethod
    def sized(x: Tensor, scale: Tensor) -> Tensor:
        """Root-mean-square norm by a size that adapts: with a large vector it grows no more."""
        square = x.square().mean(-1, keepdim=True)
        return x / (square + scale.square().mean()).sqrt() * scale

    def forward(self, kinds: Tensor, edges: Tensor, count: Tensor) -> Tensor:
        batch, size = kinds.shape
        real = torch.arange(size, device=kinds.device) < count[:, None]
        graph, head, tail = edges
        near = torch.zeros(batch, size, size, device=kinds.device)
        near = near.index_put((graph, head, tail), torch.ones(graph.shape[0], device=kinds.device))
        degree = near.sum(-1)
        walk = near / degree.clamp(min=1)[..., None]
        powers = [torch.eye(size, device=kinds.device).expand(batch, -1, -1)]
        for _ in range(self.steps - 1):
            powers.append(powers[-1] @ walk)
        walked = torch.stack(powers, -1)
        pairs = self.walks(walked)
        x = self.nodes(kinds) + self.alone(torch.diagonal(walked, dim1=1, dim2=2).mT)
        for n, project in enumerate(self.project):
            q, k, v = (
                project(self.sized(x, self.scales[n][0])).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            )
            scores = -0.5 * torch.cdist(q, k).square() / q.shape[-1] ** 0.5
            scores = scores + self.pair[n](pairs).permute(0, 3, 1, 2)
            scores = scores.masked_fill(~real[:, None, None], -torch.inf)
            y = self.out[n]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
            y = y * self.degrees[n][0] + torch.log1p(degree)[..., None] * y * self.degrees[n][1]
            x = x + y
            x = x + self.network[n](self.sized(x, self.scales[n][1]))
        x = torch.where(real[..., None], x, 0).sum(1) / count[:, None]
        result: Tensor = self.head(x)
        return result


@architecture
def plain_graphs() -> Example:
    kinds = torch.randint(0, 9, (2, 7))
    rings = [(g, i, (i + way) % n) for g, n in enumerate((7, 5)) for i in range(n) for way in (1, n - 1)]
    return PlainGraphs(), {"kinds": kinds, "edges": torch.tensor(rings).T, "count": torch.tensor([7, 5])}


STEPS["plain_graphs_training"] = lambda: step_of(*plain_graphs())
