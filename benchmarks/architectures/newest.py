"""Architectures of papers of 2025 and 2026, in plain torch from what the papers say: none was written with this compiler in view."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import Example, architecture, step


def doubly_stochastic(scores: Tensor, rounds: int) -> Tensor:
    """A positive matrix whose rows and columns sum to one, by Sinkhorn and Knopp's alternation."""
    matrix = (scores - scores.amax((-1, -2), keepdim=True)).exp()
    for _ in range(rounds):
        matrix = matrix / matrix.sum(-1, keepdim=True)
        matrix = matrix / matrix.sum(-2, keepdim=True)
    return matrix


class ConstrainedConnections(nn.Module):
    """Residual streams mixed by doubly stochastic matrices that depend on them (Xie et al., "mHC: manifold-constrained hyper-connections",
    2025, section 4)."""

    def __init__(self, layer: nn.Module, width: int, streams: int) -> None:
        super().__init__()
        self.layer, self.streams = layer, streams
        self.norm = nn.RMSNorm(streams * width)
        self.map = nn.Linear(streams * width, streams * (streams + 2), bias=False)
        self.scales = nn.Parameter(torch.full((3,), 0.1))
        self.start = nn.Parameter(torch.randn(streams * (streams + 2)) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        n = self.streams
        raw = self.map(self.norm(x.flatten(-2)))
        into, out, across = torch.split(raw, [n, n, n * n], -1)
        first, second, third = torch.split(self.start, [n, n, n * n])
        into = (self.scales[0] * into + first).sigmoid()
        out = 2 * (self.scales[1] * out + second).sigmoid()
        mixing = doubly_stochastic((self.scales[2] * across + third).view(*across.shape[:-1], n, n), rounds=5)
        answer = self.layer(torch.einsum("btn,btnd->btd", into, x))
        result: Tensor = torch.einsum("btmn,btnd->btmd", mixing, x) + out[..., None] * answer[..., None, :]
        return result


class HashedMemory(nn.Module):
    """Vectors looked up by hashes of the last tokens, let in by how well they fit (Cheng et al., "Conditional memory via scalable lookup",
    2026, section 2: Engram)."""

    multipliers: Tensor

    def __init__(self, width: int, orders: tuple[int, ...] = (2, 3), heads: int = 2, size: int = 31) -> None:
        super().__init__()
        self.orders, self.heads, self.size = orders, heads, size
        self.tables = nn.Embedding(len(orders) * heads * size, width // (len(orders) * heads))
        self.register_buffer("multipliers", torch.randint(0, 2**40, (len(orders), heads, max(orders))) * 2 + 1)
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(3))
        self.mix = nn.Conv1d(width, width, 4, groups=width, dilation=3)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        shifted = torch.stack([F.pad(ids, (k, 0))[:, : ids.shape[1]] for k in range(max(self.orders))], -1)
        rows = []
        for k, order in enumerate(self.orders):
            for head in range(self.heads):
                products = shifted[..., :order] * self.multipliers[k, head, :order]
                mixed = products[..., 0]
                for place in range(1, order):
                    mixed = torch.bitwise_xor(mixed, products[..., place])
                rows.append(mixed % self.size + (k * self.heads + head) * self.size)
        memory = self.tables(torch.stack(rows, -1)).flatten(-2)
        fit = (self.norms[0](x) * self.norms[1](self.key(memory))).sum(-1, keepdim=True) / math.sqrt(x.shape[-1])
        fit = (fit.abs().clamp_min(1e-6).sqrt() * fit.sign()).sigmoid()
        value = fit * self.value(memory)
        convolved = self.mix(F.pad(self.norms[2](value).transpose(1, 2), (9, 0))).transpose(1, 2)
        result: Tensor = F.silu(convolved) + value
        return result


class Remembering(nn.Module):
    """Two layers between constrained residual streams, and a memory by hashes before the second."""

    def __init__(self, width: int = 32, streams: int = 3) -> None:
        super().__init__()
        self.streams = streams
        self.embedding = nn.Embedding(96, width)
        self.memory = HashedMemory(width)
        self.layers = nn.ModuleList(
            ConstrainedConnections(
                nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)),
                width,
                streams,
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, 96, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids).unsqueeze(-2).repeat(1, 1, self.streams, 1)
        x = self.layers[0](x)
        x = x + self.memory(x.mean(-2), input_ids)[..., None, :]
        result: Tensor = self.head(self.layers[1](x).mean(-2))
        return result


@architecture
def hashed_memory() -> Example:
    return Remembering(), {"input_ids": torch.randint(0, 96, (2, 12))}


class ForgettingAttention(nn.Module):
    """Softmax attention whose scores fall with the gates passed since (Lin et al., "Forgetting transformer", 2025, section 3), of queries,
    keys and values that are sums of outer products of a head's and a feature's factors (Zhang et al., "Tensor product attention", 2025)."""

    def __init__(self, width: int, heads: int, size: int, ranks: tuple[int, int, int] = (3, 2, 2)) -> None:
        super().__init__()
        self.heads, self.size, self.ranks = heads, size, ranks
        self.over_heads = nn.ModuleList(nn.Linear(width, rank * heads, bias=False) for rank in ranks)
        self.over_size = nn.ModuleList(nn.Linear(width, rank * size, bias=False) for rank in ranks)
        self.forget = nn.Linear(width, heads)
        self.norm, self.gate = nn.GroupNorm(heads, heads * size), nn.Linear(width, heads * size)
        self.out = nn.Linear(heads * size, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            torch.einsum(
                "btrh,btrd->bhtd",
                a(x).view(batch, length, rank, self.heads),
                b(x).view(batch, length, rank, self.size),
            )
            / rank
            for a, b, rank in zip(self.over_heads, self.over_size, self.ranks, strict=True)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        kept = F.logsigmoid(self.forget(x)).transpose(1, 2).cumsum(-1)
        scores = q @ k.mT * math.sqrt(self.size) + kept[..., :, None] - kept[..., None, :]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        y = scores.masked_fill(~causal, float("-inf")).softmax(-1) @ v
        y = y.transpose(1, 2).reshape(batch * length, -1)
        y = self.norm(y).view(batch, length, -1) * self.gate(x).sigmoid()
        result: Tensor = self.out(y)
        return result


class DynamicTanh(nn.Module):
    """What takes a norm's place (Zhu et al., "Transformers without normalization", 2025)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.alpha * x) * self.weight + self.bias


class Forgetting(nn.Module):
    """Two blocks without norms, and heads for the next token and the one after it (DeepSeek V3's multi-token prediction)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(96, width)
        self.attentions = nn.ModuleList(ForgettingAttention(width, 4, 8) for _ in range(3))
        self.tanhs = nn.ModuleList(DynamicTanh(width) for _ in range(5))
        self.join = nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, 96, bias=False)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        known = self.embedding(input_ids)
        x = known
        for k in range(2):
            x = x + self.attentions[k](self.tanhs[k](x))
        later = self.join(torch.cat([self.tanhs[2](x[:, :-1]), self.tanhs[3](known[:, 1:])], -1))
        later = later + self.attentions[2](later)
        return self.head(self.tanhs[4](x)), self.head(self.tanhs[4](later))


@architecture
def forgetting_transformer() -> Example:
    return Forgetting(), {"input_ids": torch.randint(0, 96, (2, 9))}


class Chunking(nn.Module):
    """A network over chunks whose ends it finds itself, and their spread over the bytes again (Hwang et al., "H-Net: dynamic chunking", 2025,
    section 2.2)."""

    def __init__(self, width: int = 16, chunks: int = 6) -> None:
        super().__init__()
        self.chunks = chunks
        self.embedding = nn.Embedding(64, width)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.inner = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.residual, self.head = nn.Linear(width, width), nn.Linear(width, 64)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        length = x.shape[1]
        like = F.cosine_similarity(self.query(x[:, 1:]), self.key(x[:, :-1]), dim=-1)
        ends = F.pad(((1 - like) / 2).clamp(0, 1), (1, 0), value=1.0)
        cut = ends >= 0.5
        place = torch.arange(length, device=x.device)
        order = torch.argsort(place + (~cut).long() * length, dim=-1)[:, : self.chunks]
        picked = torch.gather(x, 1, order[..., None].expand(-1, -1, x.shape[-1]))
        weight = torch.gather(ends, 1, order).clamp(1e-4, 1 - 1e-4)
        absent = torch.arange(self.chunks, device=x.device) >= cut.sum(-1, keepdim=True)
        later = torch.ones(self.chunks, self.chunks, dtype=torch.bool, device=x.device).triu(1)
        z = self.inner(picked, src_mask=later, src_key_padding_mask=absent)
        state, smooth = torch.zeros_like(z[:, 0]), []
        for t in range(self.chunks):
            state = weight[:, t, None] * z[:, t] + (1 - weight[:, t, None]) * state
            smooth.append(state)
        owner = (cut.cumsum(-1) - 1).clamp(max=self.chunks - 1)
        spread = torch.stack(smooth, 1).gather(1, owner[..., None].expand(-1, -1, x.shape[-1]))
        sure = torch.where(cut, ends, 1 - ends)[..., None]
        result: Tensor = self.head(self.residual(x) + spread * sure)
        return result


@architecture
def dynamic_chunking() -> Example:
    return Chunking(), {"input_ids": torch.randint(0, 64, (2, 10))}


class EnergyTransformer(nn.Module):
    """A prediction found by going down the energy that a network gives it (Gladstone et al., "Energy-based transformers", 2025, section 3)."""

    def __init__(self, width: int = 16, thoughts: int = 2) -> None:
        super().__init__()
        self.thoughts = thoughts
        self.rate = nn.Parameter(torch.tensor(0.5))
        self.embedding = nn.Embedding(32, width)
        self.mix = nn.Linear(2 * width, 3 * width)
        self.energy = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 1)
        )

    def of(self, guess: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.mix(torch.cat([guess, context], -1)).chunk(3, -1)
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)[:, 0]
        result: Tensor = self.energy(guess + y).sum()
        return result

    def forward(self, input_ids: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        context = self.embedding(input_ids)
        slope = torch.func.grad_and_value(self.of)
        energy = guess.new_zeros(())
        for _ in range(self.thoughts):
            gradient, energy = slope(guess, context)
            guess = guess - self.rate * gradient
        return guess @ self.embedding.weight.mT, energy


@architecture
def energy_transformer() -> Example:
    return EnergyTransformer(), {"input_ids": torch.randint(0, 32, (2, 6)), "guess": torch.randn(2, 6, 16)}


class IndexedAttention(nn.Module):
    """Latent attention to the tokens that a small indexer finds (DeepSeek-AI, "DeepSeek-V3.2", 2025, section 2.1)."""

    def __init__(self, width: int = 32, heads: int = 4, rank: int = 16, best: int = 4, probes: int = 8) -> None:
        super().__init__()
        self.heads, self.best, self.probes = heads, best, probes
        self.query, self.latent = nn.Linear(width, heads * rank, bias=False), nn.Linear(width, rank, bias=False)
        self.probe, self.key = nn.Linear(width, probes * 8, bias=False), nn.Linear(width, 8, bias=False)
        self.weights = nn.Linear(width, probes, bias=False)
        self.norm, self.out = nn.RMSNorm(rank), nn.Linear(heads * rank, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        latent = self.norm(self.latent(x))
        probe = self.probe(x).view(batch, length, self.probes, 8)
        index = torch.einsum("bsjd,btd->bsjt", probe, self.key(x)).relu()
        index = torch.einsum("bsjt,bsj->bst", index, self.weights(x))
        later = torch.full((length, length), float("-inf"), device=x.device).triu(1)
        chosen = (index + later).topk(self.best, dim=-1).indices
        mask = torch.full_like(index, float("-inf")).scatter_(-1, chosen, 0.0) + later
        q = self.query(x).view(batch, length, self.heads, -1)
        scores = torch.einsum("bshr,btr->bhst", q, latent) / math.sqrt(q.shape[-1]) + mask[:, None]
        y = torch.einsum("bhst,btr->bshr", scores.softmax(-1), latent)
        result: Tensor = x + self.out(y.flatten(2))
        return result


@architecture
def indexed_attention() -> Example:
    return IndexedAttention(), {"x": torch.randn(2, 10, 32)}


class Equivariant(nn.Module):
    """Messages with scalars and vectors that turn with the atoms, summed where edges end; forces are minus the energy's slope."""

    def __init__(self, width: int = 12, waves: int = 6, cutoff: float = 4.0) -> None:
        super().__init__()
        self.width, self.waves, self.cutoff = width, waves, cutoff
        self.species = nn.Embedding(5, width)
        self.filters = nn.ModuleList(nn.Linear(waves, 3 * width) for _ in range(2))
        self.messages = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3 * width)) for _ in range(2)
        )
        self.mixes = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.updates = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 3 * width)) for _ in range(2)
        )
        self.out = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def energy(self, positions: Tensor, kinds: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        between = positions[source] - positions[target]
        distance = torch.linalg.vector_norm(between, dim=-1, keepdim=True)
        frequency = torch.arange(1, self.waves + 1, device=positions.device) * math.pi / self.cutoff
        envelope = 0.5 * (torch.cos(math.pi * distance / self.cutoff) + 1) * (distance < self.cutoff)
        waves = torch.sin(frequency * distance) / distance * envelope
        direction = (between / distance)[..., None]
        s = self.species(kinds)
        v = s.new_zeros(s.shape[0], 3, self.width)
        for filters, message, mix, update in zip(self.filters, self.messages, self.mixes, self.updates, strict=True):
            own, turned, kept = (message(s)[source] * filters(waves) * envelope).chunk(3, -1)
            vectors = v[source] * kept[:, None] + direction * turned[:, None]
            s = s.index_add(0, target, own)
            v = v.index_add(0, target, vectors)
            left, right = mix(v).chunk(2, -1)
            a, b, c = update(torch.cat([s, torch.sqrt(right.square().sum(1) + 1e-8)], -1)).chunk(3, -1)
            s = s + a + b * (left * right).sum(1)
            v = v + c[:, None] * left + torch.linalg.cross(left, right, dim=1) * 0.1
        result: Tensor = self.out(s).sum()
        return result

    def forward(self, positions: Tensor, kinds: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        slope, energy = torch.func.grad_and_value(self.energy)(positions, kinds, edges)
        return energy, -slope


@architecture
def equivariant_forces() -> Example:
    atoms = torch.arange(6)
    source, target = torch.meshgrid(atoms, atoms, indexing="ij")
    edges = torch.stack([source[source != target], target[source != target]])
    return Equivariant(), {"positions": torch.randn(6, 3) * 1.5, "kinds": torch.randint(0, 5, (6,)), "edges": edges}


class LogLinearAttention(nn.Module):
    """Linear attention with a state for each power of two of the past, each with its own weight (Guo et al., "Log-linear attention", 2025,
    section 3): the sum over a hierarchy of masks, with Mamba 2's decay."""

    def __init__(self, width: int = 16, heads: int = 2, levels: int = 4) -> None:
        super().__init__()
        self.heads, self.levels = heads, levels
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.weights, self.decay = nn.Linear(width, heads * levels), nn.Linear(width, heads)
        self.out = nn.Linear(width, width, bias=False)

    @staticmethod
    def level(length: int, device: torch.device) -> Tensor:
        """Of query t and key s: the highest bit in which they differ, as a Fenwick tree parts the past."""
        t = torch.arange(length, device=device)[:, None]
        s = torch.arange(length, device=device)[None, :]
        differ = torch.bitwise_xor(t, s)
        return torch.where(differ > 0, torch.floor(torch.log2(differ.clamp(min=1).float())).long() + 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.project(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        decay = F.softplus(self.decay(x)).transpose(1, 2).cumsum(-1)
        fall = (decay[..., None, :] - decay[..., :, None]).tril().exp().tril()
        of = F.softplus(self.weights(x)).view(batch, length, self.heads, self.levels).transpose(1, 2)
        level = self.level(length, x.device).expand(batch, self.heads, -1, -1)
        weight = torch.take_along_dim(of, level, dim=-1)
        y = (q @ k.transpose(-1, -2) * fall * weight) @ v
        result: Tensor = self.out(F.rms_norm(y.transpose(1, 2).reshape(batch, length, width), (width,)))
        return result


@architecture
def log_linear_attention() -> Example:
    return LogLinearAttention(), {"x": torch.randn(2, 8, 16)}


class MaskedDiffusion(nn.Module):
    """One step of a language model that fills in masked tokens, the surest first (Nie et al., "Large language diffusion models", 2025,
    section 2.4)."""

    def __init__(self, width: int = 32, mask: int = 63) -> None:
        super().__init__()
        self.mask = mask
        self.embedding = nn.Embedding(64, width)
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True),
            2,
            enable_nested_tensor=False,
        )
        self.head = nn.Linear(width, 64)

    def forward(self, tokens: Tensor, noise: Tensor, remaining: Tensor) -> Tensor:
        logits = self.head(self.layers(self.embedding(tokens)))
        noisy = logits.double().exp() / (-torch.log(noise.double())) ** 0.5
        guess = noisy.argmax(-1)
        sure = logits.softmax(-1).gather(-1, guess[..., None]).squeeze(-1)
        masked = tokens == self.mask
        sure = torch.where(masked, sure, float("-inf"))
        rank = sure.argsort(dim=-1, descending=True).argsort(dim=-1)
        chosen = (rank < remaining[:, None]) & masked
        return torch.where(chosen, guess, tokens)


@step
def masked_diffusion() -> Example:
    tokens = torch.randint(0, 63, (2, 10))
    tokens[:, 4:] = 63
    return MaskedDiffusion(), {
        "tokens": tokens,
        "noise": torch.rand(2, 10, 64) * 0.98 + 0.01,
        "remaining": torch.tensor([2, 3]),
    }


class Recursions(nn.Module):
    """One block for all depths, through which fewer tokens go each time: those that a router finds to need it (Bae et al.,
    "Mixture-of-recursions", 2025, section 2.2, the choice by experts)."""

    def __init__(self, width: int = 32, capacities: tuple[int, ...] = (12, 8, 4)) -> None:
        super().__init__()
        self.capacities = capacities
        self.embedding = nn.Embedding(64, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.routers = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in capacities)
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 64, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        here = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        for router, capacity in zip(self.routers, self.capacities, strict=True):
            now = x.gather(1, here[..., None].expand(-1, -1, x.shape[-1]))
            gate, chosen = torch.sigmoid(router(now)).squeeze(-1).topk(capacity, dim=-1)
            chosen, order = chosen.sort(dim=-1)
            gate = gate.gather(1, order)
            here = here.gather(1, chosen)
            places = here[..., None].expand(-1, -1, x.shape[-1])
            picked = x.gather(1, places)
            later = here[:, :, None] < here[:, None, :]
            done = self.block(picked, src_mask=later.repeat_interleave(4, 0))
            x = x.scatter_add(1, places, gate[..., None] * (done - picked))
        result: Tensor = self.head(self.norm(x))
        return result


@architecture
def mixture_of_recursions() -> Example:
    return Recursions(), {"input_ids": torch.randint(0, 64, (2, 12))}
