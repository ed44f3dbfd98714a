"""More architectures of papers of 2024 to 2026, and one that all of the kind rest on, in plain torch from what the papers say."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import STEPS, Example, architecture, step
from benchmarks.architectures.training import itself, step_of


class Feeding(nn.Module):
    """A gated network between norm and sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(self.norm(x)).chunk(2, -1)
        result: Tensor = self.down(F.silu(gate) * up)
        return result


class Attending(nn.Module):
    """Causal attention with its norm and its projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.RMSNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.project(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        result: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return result


class MixtureOfDepths(nn.Module):
    """Blocks that only the tokens with the largest weights of a router go through (Raposo et al., "Mixture-of-depths", 2024, section 3)."""

    def __init__(self, width: int = 32, capacity: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.capacity = capacity
        self.embedding = nn.Embedding(96, width)
        self.attentions = nn.ModuleList(Attending(width, 4) for _ in range(depth))
        self.networks = nn.ModuleList(Feeding(width) for _ in range(depth))
        self.routers = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(depth))
        self.head = nn.Linear(width, 96, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for router, attention, network in zip(self.routers, self.attentions, self.networks, strict=True):
            weight, chosen = torch.topk(router(x).squeeze(-1), self.capacity, dim=1)
            chosen, order = torch.sort(chosen, dim=1)
            weight = torch.gather(weight, 1, order)
            index = chosen[..., None].expand(-1, -1, x.shape[-1])
            picked = torch.gather(x, 1, index)
            mask = chosen[:, :, None] >= chosen[:, None, :]
            within = attention(picked, mask[:, None])
            change = within + network(picked + within)
            x = torch.scatter_add(x, 1, index, change * weight[..., None])
        result: Tensor = self.head(x)
        return result


@architecture
def mixture_of_depths() -> Example:
    return MixtureOfDepths(), {"input_ids": torch.randint(0, 96, (2, 10))}


class QuantisedAutoencoder(nn.Module):
    """Images as grids of the nearest vectors of a book (van den Oord et al., "Neural discrete representation learning", 2017, section 3)."""

    def __init__(self, width: int = 16, book: int = 24) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, 8, 1)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(8, width, 3, 1, 1), nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1),
        )  # fmt: skip
        self.book = nn.Embedding(book, 8)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.encoder(images).permute(0, 2, 3, 1)
        flat = z.reshape(-1, z.shape[-1])
        distance = (
            flat.square().sum(1, keepdim=True) - 2 * flat @ self.book.weight.t() + self.book.weight.square().sum(1)
        )
        nearest = distance.argmin(1)
        coded = self.book(nearest).view_as(z)
        loss = F.mse_loss(coded, z.detach()) + 0.25 * F.mse_loss(z, coded.detach())
        passed = z + (coded - z).detach()
        picture = self.decoder(passed.permute(0, 3, 1, 2))
        used = F.one_hot(nearest, self.book.num_embeddings).float().mean(0)
        perplexity = torch.exp(-(used * torch.log(used + 1e-10)).sum())
        return picture, loss + F.mse_loss(picture, images), perplexity


@architecture
def vq_vae() -> Example:
    return QuantisedAutoencoder(), {"images": torch.randn(2, 3, 16, 16)}


def unit(x: Tensor, dim: int = -1) -> Tensor:
    return F.normalize(x, dim=dim)


class NormalisedBlock(nn.Module):
    """A block whose states and weights lie on a sphere (Loshchilov et al., "nGPT", 2024, section 2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.gate, self.down = (
            nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False),
            nn.Linear(2 * width, width, bias=False),
        )  # fmt: skip
        self.rates = nn.Parameter(torch.full((2, width), width**-0.5))
        self.sharpness = nn.Parameter(torch.full((heads, self.size), width**-0.5))
        self.scales = nn.Parameter(torch.ones(2, 2 * width))

    def turned(self, x: Tensor) -> Tensor:
        half = self.size // 2
        place = torch.arange(x.shape[-2], device=x.device)[:, None]
        angle = place * 10000.0 ** (-torch.arange(half, device=x.device) / half)
        low, high = x.chunk(2, -1)
        return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], -1)

    def forward(self, h: Tensor) -> Tensor:
        width = h.shape[-1]
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        sharp = (self.sharpness * width**0.5)[:, None]
        q, k = unit(self.turned(q)) * sharp, unit(self.turned(k)) * sharp
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.size**0.5)
        rates = (self.rates * 0.05 * width**0.5).abs()
        h = unit(h + rates[0] * (unit(self.out(y.transpose(1, 2).flatten(2))) - h))
        up, gate = self.up(h) * self.scales[0], self.gate(h) * self.scales[1] * width**0.5
        return unit(h + rates[1] * (unit(self.down(up * F.silu(gate))) - h))


class Normalised(nn.Module):
    """Two blocks on the sphere, and the loss of the next tokens."""

    def __init__(self, width: int = 32, vocabulary: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(NormalisedBlock(width, 4) for _ in range(2))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.scale = nn.Parameter(torch.ones(vocabulary))
        for name, weight in self.named_parameters():
            weight.data = on_sphere(name, weight.data)

    def forward(self, input_ids: Tensor) -> Tensor:
        h = self.embedding(input_ids)
        for block in self.blocks:
            h = block(h)
        logits = self.head(h)[:, :-1] * self.scale * h.shape[-1] ** 0.5
        return F.cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten())


def on_sphere(name: str, weight: Tensor) -> Tensor:
    """A matrix of nGPT with every vector along the width of length one; its scales as they are."""
    if not name.endswith(".weight"):
        return weight
    return unit(weight, 0 if ".out." in name or ".down." in name else -1)


@architecture
def ngpt() -> Example:
    return Normalised(), {"input_ids": torch.randint(0, 64, (2, 8))}


STEPS["ngpt_training"] = lambda: step_of(*ngpt(), loss=itself, after=on_sphere)


class BytePatches(nn.Module):
    """Bytes in patches that end where the next byte is hard to tell: patches ask their bytes, and bytes their patches (Pagnoni et al., "Byte
    latent transformer", 2024, sections 2 and 3)."""

    def __init__(self, width: int = 32, patches: int = 6, threshold: float = 3.9) -> None:
        super().__init__()
        self.patches, self.threshold = patches, threshold
        self.judge = nn.Sequential(nn.Embedding(64, 16), nn.Linear(16, 64))
        self.embedding, self.hashes = nn.Embedding(64, width), nn.Embedding(101, width)
        self.encoder, self.inner, self.decoder = (Attending(width, 4) for _ in range(3))
        self.ask, self.answer = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.ask_back, self.answer_back = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.head = nn.Linear(width, 64)

    def forward(self, bytes_in: Tensor) -> tuple[Tensor, Tensor]:
        judged: Any = torch.distributions.Categorical(logits=self.judge(bytes_in))
        starts = F.pad(judged.entropy()[:, :-1] > self.threshold, (1, 0), value=True)
        owner = (starts.cumsum(1) - 1).clamp(max=self.patches - 1)
        grams = bytes_in.unfold(1, 3, 1)
        hashed = (grams * torch.tensor([1, 257, 66049], device=grams.device)).sum(-1) % 101
        x = self.embedding(bytes_in) + F.pad(self.hashes(hashed), (0, 0, 2, 0))
        x = x + self.encoder(x)
        mine = owner[:, None, :] == torch.arange(self.patches, device=x.device)[:, None]
        largest = torch.full((x.shape[0], self.patches, x.shape[2]), -1e4, device=x.device)
        largest = largest.scatter_reduce(1, owner[..., None].expand_as(x), x, "amax")
        used = mine.any(-1, keepdim=True)
        largest = torch.where(used, largest, 0)
        key, value = self.answer(x).chunk(2, -1)
        scores = (self.ask(largest) @ key.mT / math.sqrt(key.shape[-1])).masked_fill(~mine, -1e9)
        patch = largest + torch.where(used, scores.softmax(-1) @ value, 0)
        patch = patch + self.inner(patch)
        key, value = self.answer_back(patch).chunk(2, -1)
        earlier = torch.arange(self.patches, device=x.device) < owner[..., None]
        scores = (self.ask_back(x) @ key.mT / math.sqrt(key.shape[-1])).masked_fill(~earlier, -1e9)
        back = torch.where(earlier.any(-1, keepdim=True), scores.softmax(-1) @ value, 0)
        x = x + back
        return self.head(x + self.decoder(x)), starts


@architecture
def byte_patches() -> Example:
    return BytePatches(), {"bytes_in": torch.randint(0, 64, (2, 12))}


class AlternatingUpdates(nn.Module):
    """A layer of Gemma 3n (Google, 2025): of several copies of the state one is computed and the others follow (Baykal et al., "Alternating
    updates", 2023); embeddings of the layer's own come in at its end, and a branch of low rank runs beside attention."""

    def __init__(self, width: int, copies: int, own: int, active: int) -> None:
        super().__init__()
        self.copies, self.active = copies, active
        self.route_norm, self.route = nn.RMSNorm(width), nn.Linear(width, copies, bias=False)
        self.predict, self.correct = (
            nn.Linear(copies, copies * copies, bias=False),
            nn.Linear(copies, copies, bias=False),
        )
        self.attention, self.network = Attending(width, 4), Feeding(width)
        self.low = nn.Sequential(nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False), nn.RMSNorm(width))
        self.scale = nn.Parameter(torch.ones(width))
        self.own_gate, self.own_out = nn.Linear(width, own, bias=False), nn.Linear(own, width, bias=False)
        self.own_norm = nn.RMSNorm(width)

    def modes(self, x: Tensor) -> Tensor:
        result: Tensor = torch.tanh(self.route(self.route_norm(x) / x.shape[-1]))
        return result

    def forward(self, states: Tensor, own: Tensor) -> Tensor:
        mixing = self.predict(self.modes(states[self.active])).unflatten(-1, (self.copies, self.copies))
        predicted = states + (states.permute(1, 2, 3, 0) @ mixing.mT).permute(3, 0, 1, 2)
        x = predicted[self.active]
        x = (x + self.attention(x) + x + self.low(x)) / math.sqrt(2)
        x = x + self.network(x)
        gain = (self.correct(self.modes(x)) + 1).permute(2, 0, 1)[..., None]
        corrected = predicted + (x - predicted[self.active]) * gain
        first = F.gelu(self.own_gate(corrected[self.active] * self.scale), approximate="tanh") * own
        rest: Tensor = corrected.clone()
        rest[1:] += self.own_norm(self.own_out(first))
        return rest


class Nested(nn.Module):
    """Two layers over four copies, which start and end with the size of the first."""

    def __init__(self, width: int = 32, copies: int = 4, own: int = 8, depth: int = 2) -> None:
        super().__init__()
        self.depth = depth
        self.embedding, self.own = nn.Embedding(96, width), nn.Embedding(96, depth * own)
        self.own_from, self.own_norm = nn.Linear(width, depth * own, bias=False), nn.RMSNorm(own)
        self.into, self.back = (
            nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(copies - 1)) for _ in range(2)
        )
        self.layers = nn.ModuleList(AlternatingUpdates(width, copies, own, active=0) for _ in range(depth))
        self.norm = nn.RMSNorm(width)

    @staticmethod
    def as_large(x: Tensor, like: Tensor) -> Tensor:
        size, wanted = (t.square().mean(-1, keepdim=True).sqrt() for t in (x, like))
        return x * wanted / size.clamp(min=1e-5)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids) * self.embedding.embedding_dim**0.5
        own = self.own_norm(self.own_from(x).unflatten(-1, (self.depth, -1)))
        own = (own + self.own(input_ids).unflatten(-1, (self.depth, -1))) / math.sqrt(2)
        states = torch.stack([x, *(self.as_large(f(x), x) for f in self.into)])
        for n, layer in enumerate(self.layers):
            states = layer(states, own[:, :, n])
        last = torch.stack(
            [states[0], *(self.as_large(f(s), states[0]) for f, s in zip(self.back, states[1:], strict=True))]
        )
        logits = self.norm(last.mean(0)) @ self.embedding.weight.mT
        return torch.tanh(logits / 30) * 30


@architecture
def alternating_updates() -> Example:
    return Nested(), {"input_ids": torch.randint(0, 96, (2, 9))}


class MeanVelocity(nn.Module):
    """The loss of a network that tells the mean velocity between two times, whose target is its own derivative along the path (Geng et al.,
    "Mean flows", 2025, section 4, algorithm 1)."""

    def __init__(self, size: int = 8, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.into, self.time, self.out = nn.Linear(size, width), nn.Linear(2 * width, width), nn.Linear(width, size)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.modulations = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))

    def waves(self, t: Tensor) -> Tensor:
        angle = t[:, None] * torch.exp(torch.arange(self.width // 2, device=t.device) * (-4.0 / self.width)) * 10
        return torch.cat([angle.cos(), angle.sin()], -1)

    def velocity(self, z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        known = F.silu(self.time(torch.cat([self.waves(t), self.waves(t - r)], -1)))
        x = self.into(z)
        for block, modulation in zip(self.blocks, self.modulations, strict=True):
            scale, shift, gate = modulation(known).chunk(3, -1)
            x = x + gate * F.silu(block(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift))
        result: Tensor = self.out(x)
        return result

    def forward(self, data: Tensor, noise: Tensor, r: Tensor, t: Tensor) -> Tensor:
        z = (1 - t)[:, None] * data + t[:, None] * noise
        path = noise - data
        derived: Any = torch.func.jvp(self.velocity, (z, r, t), (path, torch.zeros_like(r), torch.ones_like(t)))
        mean, slope = derived
        error = mean - (path - (t - r)[:, None] * slope).detach()
        squared = error.square().sum(-1)
        result: Tensor = ((squared + 1e-3) ** -1.0).detach() * squared
        return result.mean()


@architecture
def mean_flow() -> Example:
    t = torch.rand(6)
    return MeanVelocity(), {"data": torch.randn(6, 8), "noise": torch.randn(6, 8), "r": t * torch.rand(6), "t": t}


STEPS["mean_flow_training"] = lambda: step_of(*mean_flow(), loss=itself)


class Muon(nn.Module):
    """The step of an optimiser that makes the momentum of a matrix orthogonal by five rounds of a quintic (Jordan et al., "Muon", 2024)."""

    def forward(self, weight: Tensor, gradient: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        momentum = torch.lerp(momentum, gradient, 0.05)
        x = torch.lerp(gradient, momentum, 0.95).bfloat16()
        tall = x.shape[-2] > x.shape[-1]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            square = x @ x.mT
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        x = x.mT if tall else x
        grown = max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5
        return weight * (1 - 0.02 * 0.1) - 0.02 * grown * x.type_as(weight), momentum


@step
def muon() -> Example:
    return Muon(), {name: torch.randn(2, 48, 32) for name in ("weight", "gradient", "momentum")}


class Latents(nn.Module):
    """An answer and a latent made better in turn by one small network, which says when it is done (Jolicoeur-Martineau, "Less is more:
    recursive reasoning with tiny networks", 2025, section 4)."""

    def __init__(self, width: int = 16, tokens: int = 9, rounds: int = 2, inner: int = 3) -> None:
        super().__init__()
        self.rounds, self.inner = rounds, inner
        self.embedding = nn.Embedding(12, width)
        self.answer, self.latent = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.tokens, self.network = Feeding(tokens), Feeding(width)
        self.head, self.done = nn.Linear(width, 12, bias=False), nn.Linear(width, 1)

    def improved(self, x: Tensor) -> Tensor:
        x = x + self.tokens(x.mT).mT
        return F.rms_norm(x + self.network(x), x.shape[-1:])

    def forward(self, puzzle: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(puzzle)
        y, z = self.answer.expand_as(x), self.latent.expand_as(x)
        for _ in range(self.rounds):
            for _ in range(self.inner):
                z = self.improved(x + y + z)
            y = self.improved(y + z)
        return self.head(y), self.done(y.mean(1))


@architecture
def tiny_recursion() -> Example:
    return Latents(), {"puzzle": torch.randint(0, 12, (2, 9))}


class BlockAttention(nn.Module):
    """Attention to a token's own block and to those whose mean key fits its query best (Lu et al., "Mixture of block attention", 2025,
    section 2.2)."""

    def __init__(self, width: int = 32, heads: int = 4, block: int = 4, best: int = 2) -> None:
        super().__init__()
        self.heads, self.block, self.best = heads, block, best
        self.norm = nn.RMSNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        q, k, v = self.project(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        means = k.unflatten(2, (-1, self.block)).mean(3)
        place = torch.arange(length, device=x.device)
        own = place[:, None] // self.block
        blocks = torch.arange(means.shape[2], device=x.device)
        gate = torch.einsum("bhtd,bhnd->bhtn", q, means)
        gate = gate.masked_fill(blocks > own, -torch.inf).masked_fill(blocks == own, torch.inf)
        chosen = torch.zeros_like(gate, dtype=torch.bool).scatter(-1, gate.topk(self.best, -1).indices, True)
        mask = chosen.repeat_interleave(self.block, -1) & (place[:, None] >= place)
        y = F.scaled_dot_product_attention(q, k, v, mask)
        result: Tensor = x + self.out(y.transpose(1, 2).flatten(2))
        return result


@architecture
def block_attention() -> Example:
    return BlockAttention(), {"x": torch.randn(2, 12, 32)}
