"""Small models with their losses, each with inputs for one training step: what people train, at sizes of a few dozen elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Example = tuple[nn.Module, tuple[Tensor, ...]]
"""A model whose result is its loss, and the inputs of one step."""

MODELS: dict[str, Callable[[], Example]] = {}
"""Every model by name; calling one makes it anew with its own weights."""


def example(make: Callable[[], Example]) -> Callable[[], Example]:
    MODELS[make.__name__] = make
    return make


class Step(nn.Module):
    """`loss(parts["model"](first input), other inputs)`; the function may use any of the parts."""

    def __init__(self, loss: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.loss(self, *inputs)


def classes(count: int, *shape: int) -> Tensor:
    return torch.randint(count, shape)


def cross_entropy(m: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(m.model(x), y)


def squares(m: Any, x: Tensor) -> Tensor:
    return m.model(x).square().mean()


# -- dense -----------------------------------------------------------------------------------------------------------
@example
def mlp() -> Example:
    return Step(cross_entropy, model=nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))), (
        torch.randn(4, 6),
        classes(3, 4),
    )


@example
def mlp_of_many_activations() -> Example:
    kinds = [nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.Hardswish(), nn.Mish(), nn.ELU(), nn.Softplus()]
    return Step(squares, model=nn.Sequential(*(p for kind in kinds for p in (nn.Linear(4, 4), kind)))), (
        torch.randn(3, 4),
    )


@example
def mlp_with_batch_norm() -> Example:
    body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.LeakyReLU(), nn.Linear(8, 3))
    return Step(lambda m, x, y: F.mse_loss(m.model(x), y), model=body), (torch.randn(5, 6), torch.randn(5, 3))


@example
def mlp_in_bfloat16() -> Example:
    body = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).bfloat16()
    return Step(lambda m, x: m.model(x).float().square().mean(), model=body), (torch.randn(5, 6).bfloat16(),)


@example
def highway() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        gate = torch.sigmoid(m.gate(x))
        return (gate * F.relu(m.model(x)) + (1 - gate) * x).pow(2).sum()

    return Step(loss, model=nn.Linear(6, 6), gate=nn.Linear(6, 6)), (torch.randn(4, 6),)


@example
def gated_linear() -> Example:
    return Step(lambda m, x, y: F.l1_loss(F.glu(m.model(x)), y), model=nn.Linear(5, 8)), (
        torch.randn(4, 5),
        torch.randn(4, 4),
    )


@example
def swiglu() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        return m.down(F.silu(m.gate(x)) * m.up(x)).square().mean()

    return Step(loss, gate=nn.Linear(6, 8, False), up=nn.Linear(6, 8, False), down=nn.Linear(8, 6, False)), (
        torch.randn(2, 3, 6),
    )


@example
def rms_norm() -> Example:
    return Step(lambda m, x: m.model(m.norm(x)).square().mean(), norm=nn.RMSNorm(6), model=nn.Linear(6, 4)), (
        torch.randn(2, 3, 6),
    )


@example
def weight_tied() -> Example:
    def loss(m: Any, ids: Tensor) -> Tensor:
        hidden = torch.tanh(m.model(m.table(ids)))
        return F.cross_entropy(F.linear(hidden, m.table.weight).flatten(0, 1), ids.flatten())

    return Step(loss, table=nn.Embedding(7, 5), model=nn.Linear(5, 5)), (classes(7, 2, 4),)


@example
def with_buffers() -> Example:
    class Standardised(nn.Module):
        mean: Tensor
        scale: Tensor
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.randn(5))
            self.register_buffer("scale", torch.rand(5) + 0.5)
            self.register_buffer("seen", torch.zeros(5))
            self.model = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.seen.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
            return self.model((x - self.mean) / self.scale).square().mean()

    return Standardised(), (torch.randn(4, 5),)


# -- losses ------------------------------------------------------------------------------------------------------------
@example
def label_smoothing() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(m.model(x), y, label_smoothing=0.1)

    return Step(loss, model=nn.Linear(5, 4)), (torch.randn(6, 5), classes(4, 6))


@example
def weighted_and_ignored() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return F.cross_entropy(m.model(x), y, weight=w, ignore_index=1)

    return Step(loss, model=nn.Linear(5, 4)), (torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 1, 2]), torch.rand(4))


@example
def soft_targets() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        logits = m.model(x)
        return F.cross_entropy(logits, y) + F.kl_div(logits.log_softmax(-1), y, reduction="batchmean")

    return Step(loss, model=nn.Linear(5, 4)), (torch.randn(6, 5), torch.randn(6, 4).softmax(-1))


@example
def regression_losses() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        out = m.model(x)
        return F.mse_loss(out, y) + F.l1_loss(out, y) + F.huber_loss(out, y) + F.smooth_l1_loss(out, y, beta=0.5)

    return Step(loss, model=nn.Linear(5, 3)), (torch.randn(6, 5), torch.randn(6, 3))


@example
def binary_losses() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        out = m.model(x)
        return F.binary_cross_entropy_with_logits(out, y) + F.binary_cross_entropy(torch.sigmoid(out), y)

    return Step(loss, model=nn.Linear(5, 3)), (torch.randn(6, 5), torch.rand(6, 3))


@example
def contrastive() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        a, b = F.normalize(m.model(x), dim=-1), F.normalize(m.model(y), dim=-1)
        logits = a @ b.T / 0.1
        labels = torch.arange(logits.shape[0])
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    return Step(loss, model=nn.Linear(5, 4)), (torch.randn(6, 5), torch.randn(6, 5))


@example
def triplet() -> Example:
    def loss(m: Any, a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        return F.triplet_margin_loss(m.model(a), m.model(p), m.model(n))

    return Step(loss, model=nn.Linear(5, 4)), (torch.randn(6, 5), torch.randn(6, 5), torch.randn(6, 5))


@example
def siamese() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        near = F.cosine_similarity(m.model(x), m.model(y))
        return (1 - near[:3]).sum() + F.relu(near[3:] - 0.2).sum()

    return Step(loss, model=nn.Sequential(nn.Linear(5, 4), nn.Tanh())), (torch.randn(6, 5), torch.randn(6, 5))


# -- images ------------------------------------------------------------------------------------------------------------
@example
def cnn() -> Example:
    body = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3 * 3 * 3, 3)
    )
    return Step(cross_entropy, model=body), (torch.randn(2, 2, 6, 6), classes(3, 2))


@example
def cnn_of_one_dim() -> Example:
    body = nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, dilation=2), nn.GELU(), nn.AvgPool1d(2))
    return Step(squares, model=body), (torch.randn(2, 2, 12),)


@example
def cnn_of_three_dims() -> Example:
    body = nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(2 * 1 * 1 * 2, 2))
    return Step(squares, model=body), (torch.randn(1, 1, 3, 3, 5),)


@example
def resnet_block() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.n1(m.c1(x)))
        y = m.n2(m.c2(y)) + m.short(x)
        return F.adaptive_avg_pool2d(F.relu(y), 1).square().mean()

    parts = {
        "c1": nn.Conv2d(2, 4, 3, 2, 1, bias=False),
        "n1": nn.BatchNorm2d(4),
        "c2": nn.Conv2d(4, 4, 3, 1, 1, bias=False),
        "n2": nn.BatchNorm2d(4),
        "short": nn.Conv2d(2, 4, 1, 2),
    }
    return Step(loss, **parts), (torch.randn(2, 2, 5, 5),)


@example
def unet_piece() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        high = F.relu(m.down(x))
        low = F.relu(m.middle(F.max_pool2d(high, 2)))
        back = m.up(torch.cat([F.interpolate(low, scale_factor=2, mode="nearest"), high], 1))
        return F.cross_entropy(back, y)

    parts = {"down": nn.Conv2d(1, 2, 3, 1, 1), "middle": nn.Conv2d(2, 3, 3, 1, 1), "up": nn.Conv2d(5, 2, 1)}
    return Step(loss, **parts), (torch.randn(1, 1, 4, 4), classes(2, 1, 4, 4))


@example
def diffusion_block() -> Example:
    def loss(m: Any, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-torch.arange(4.0))
        y = m.c1(F.silu(m.n1(x))) + m.time(torch.cat([angles.sin(), angles.cos()], -1))[:, :, None, None]
        return F.mse_loss(m.c2(F.silu(m.n2(y))) + x, noise)

    parts = {
        "n1": nn.GroupNorm(2, 4),
        "c1": nn.Conv2d(4, 4, 3, padding=1),
        "time": nn.Linear(8, 4),
        "n2": nn.GroupNorm(2, 4),
        "c2": nn.Conv2d(4, 4, 3, padding=1),
    }
    return Step(loss, **parts), (torch.randn(2, 4, 3, 3), torch.rand(2), torch.randn(2, 4, 3, 3))


@example
def transposed_autoencoder() -> Example:
    body = nn.Sequential(
        nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(2, 1, 3, 2, 1, output_padding=1), nn.Sigmoid()
    )
    return Step(lambda m, x: F.mse_loss(m.model(x), x), model=body), (torch.rand(2, 1, 4, 4),)


@example
def grouped_transposed() -> Example:
    return Step(squares, model=nn.ConvTranspose1d(4, 6, 3, 2, 1, groups=2, dilation=2)), (torch.randn(2, 4, 5),)


@example
def mobilenet_block() -> Example:
    body = nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False),
        nn.BatchNorm2d(6),
        nn.Hardswish(),
        nn.Conv2d(6, 3, 1, bias=False),
    )
    return Step(squares, model=body), (torch.randn(2, 3, 5, 5),)


@example
def squeeze_excite() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        share = F.hardsigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))
        return (x * share).square().mean()

    return Step(loss, down=nn.Conv2d(4, 2, 1), up=nn.Conv2d(2, 4, 1)), (torch.randn(2, 4, 3, 3),)


@example
def convnext_block() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.mix(x).permute(0, 2, 3, 1))
        y = m.down(F.gelu(m.up(y))).permute(0, 3, 1, 2)
        return (x + y).square().mean()

    parts = {
        "mix": nn.Conv2d(4, 4, 3, padding=1, groups=4),
        "norm": nn.LayerNorm(4),
        "up": nn.Linear(4, 8),
        "down": nn.Linear(8, 4),
    }
    return Step(loss, **parts), (torch.randn(1, 4, 4, 4),)


@example
def reflected_upsampled() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        y = F.interpolate(m.model(F.pad(x, (1, 1, 1, 1), mode="reflect")), scale_factor=2, mode="bilinear")
        return F.smooth_l1_loss(y, torch.zeros_like(y))

    return Step(loss, model=nn.Conv2d(1, 2, 3)), (torch.randn(1, 1, 4, 4),)


@example
def instance_norm() -> Example:
    body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), nn.PReLU(), nn.AdaptiveAvgPool2d(2))
    return Step(squares, model=body), (torch.randn(2, 2, 5, 5),)


@example
def spatial_transformer() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        theta = m.model(x.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, [2, 1, 4, 4], align_corners=False)
        return F.grid_sample(x, grid, align_corners=False).square().mean()

    return Step(loss, model=nn.Linear(16, 6)), (torch.randn(2, 1, 4, 4),)


@example
def vision_transformer() -> Example:
    def loss(m: Any, x: Tensor, y: Tensor) -> Tensor:
        patches = m.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([m.token.weight[None].expand(x.shape[0], -1, -1), patches], 1) + m.place.weight
        return F.cross_entropy(m.head(m.model(tokens)[:, 0]), y)

    parts = {
        "patch": nn.Conv2d(1, 8, 2, 2),
        "token": nn.Embedding(1, 8),
        "place": nn.Embedding(5, 8),
        "model": nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True),
        "head": nn.Linear(8, 3),
    }
    return Step(loss, **parts), (torch.randn(2, 1, 4, 4), classes(3, 2))


@example
def mixer() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        x = x + m.tokens(m.n1(x).transpose(1, 2)).transpose(1, 2)
        return (x + m.channels(m.n2(x))).mean(1).square().sum()

    parts = {"n1": nn.LayerNorm(6), "tokens": nn.Linear(4, 4), "n2": nn.LayerNorm(6), "channels": nn.Linear(6, 6)}
    return Step(loss, **parts), (torch.randn(2, 4, 6),)


@example
def variational_autoencoder() -> Example:
    def loss(m: Any, x: Tensor, noise: Tensor) -> Tensor:
        mean, log_var = m.encode(x).chunk(2, -1)
        back = m.decode(mean + noise * torch.exp(0.5 * log_var))
        divergence = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1).mean()
        return F.binary_cross_entropy_with_logits(back, x) + divergence

    return Step(loss, encode=nn.Linear(6, 4), decode=nn.Linear(2, 6)), (torch.rand(5, 6), torch.randn(5, 2))


# -- sequences -----------------------------------------------------------------------------------------------------------
@example
def transformer_encoder() -> Example:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    return Step(squares, model=layer), (torch.randn(2, 4, 8),)


@example
def transformer_decoder() -> Example:
    layer = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)
    return Step(lambda m, x, y: m.model(x, y).square().mean(), model=layer), (
        torch.randn(2, 3, 8),
        torch.randn(2, 4, 8),
    )


class Attention(nn.Module):
    """Projections around scaled dot-product attention with the options given."""

    def __init__(self, heads: int = 2, shared: int = 2, **options: Any) -> None:
        super().__init__()
        self.heads, self.shared, self.options = heads, shared, options
        self.q, self.k, self.v = nn.Linear(8, heads * 4), nn.Linear(8, shared * 4), nn.Linear(8, shared * 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (count, 4)).transpose(1, 2)
            for part, count in ((self.q, self.heads), (self.k, self.shared), (self.v, self.shared))
        )
        return F.scaled_dot_product_attention(q, k, v, mask, **self.options).square().mean()


@example
def attention() -> Example:
    return Attention(), (torch.randn(2, 5, 8),)


@example
def causal_attention() -> Example:
    return Attention(is_causal=True), (torch.randn(2, 5, 8),)


@example
def masked_attention() -> Example:
    return Attention(), (torch.randn(2, 5, 8), torch.rand(2, 1, 5, 5) < 0.7)


@example
def biased_attention() -> Example:
    return Attention(scale=0.3), (torch.randn(2, 5, 8), torch.randn(5, 5).requires_grad_())


@example
def grouped_query_attention() -> Example:
    return Attention(4, 2, is_causal=True, enable_gqa=True), (torch.randn(2, 5, 8),)


@example
def llama_block() -> Example:
    def rotated(x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] / 10.0 ** torch.arange(2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)

    def loss(m: Any, x: Tensor) -> Tensor:
        q, k, v = (part(m.n1(x)).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (m.q, m.k, m.v))
        k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        scores = rotated(q) @ rotated(k).transpose(-1, -2) / 2
        scores = scores.masked_fill(torch.ones(3, 3, dtype=torch.bool).triu(1), float("-inf"))
        x = x + m.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        y = m.n2(x)
        return (x + m.down(F.silu(m.gate(y)) * m.up(y))).square().mean()

    sizes = {"q": (8, 8), "k": (8, 4), "v": (8, 4), "o": (8, 8), "gate": (8, 12), "up": (8, 12), "down": (12, 8)}
    parts: dict[str, nn.Module] = {name: nn.Linear(*size, bias=False) for name, size in sizes.items()}
    return Step(loss, n1=nn.RMSNorm(8), n2=nn.RMSNorm(8), **parts), (torch.randn(2, 3, 8),)


@example
def mixture_of_experts() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        shares, chosen = m.router(x).softmax(-1).topk(2, -1)
        every = torch.stack([expert(x) for expert in m.experts], 1)
        picked = every.gather(1, chosen[..., None].expand(-1, -1, 6))
        return (picked * shares[..., None]).sum(1).square().mean()

    return Step(loss, router=nn.Linear(6, 3), experts=nn.ModuleList(nn.Linear(6, 6) for _ in range(3))), (
        torch.randn(4, 6),
    )


@example
def positional_encodings() -> Example:
    def loss(m: Any, ids: Tensor) -> Tensor:
        x = m.words(ids) + m.places(torch.arange(ids.shape[1]))
        return m.norm(x).cumsum(1).square().mean()

    return Step(loss, words=nn.Embedding(9, 4, padding_idx=0), places=nn.Embedding(5, 4), norm=nn.LayerNorm(4)), (
        classes(9, 2, 5),
    )


@example
def embedding_classifier() -> Example:
    def loss(m: Any, ids: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(m.head(m.words(ids).mean(1)), y)

    words = nn.Embedding(9, 4, padding_idx=2, scale_grad_by_freq=True)
    return Step(loss, words=words, head=nn.Linear(4, 3)), (classes(9, 4, 5), classes(3, 4))


@example
def recommender() -> Example:
    def loss(m: Any, dense: Tensor, ids: Tensor, offsets: Tensor, y: Tensor) -> Tensor:
        rows = torch.stack([m.dense(dense), m.one(ids, offsets), m.two(ids, offsets)], 1)
        pairs = (rows @ rows.transpose(1, 2)).flatten(1)
        return F.binary_cross_entropy_with_logits(m.head(pairs).squeeze(1), y)

    parts = {
        "dense": nn.Linear(3, 4),
        "one": nn.EmbeddingBag(9, 4, mode="sum"),
        "two": nn.EmbeddingBag(9, 4, mode="mean"),
        "head": nn.Linear(9, 1),
    }
    inputs = (torch.randn(3, 3), classes(9, 7), torch.tensor([0, 2, 2]), torch.rand(3))
    return Step(loss, **parts), inputs


@example
def weighted_bags() -> Example:
    def loss(m: Any, ids: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
        one = m.one(ids, offsets, shares)
        return (one * m.two(ids, offsets)).square().mean()

    inputs = (classes(9, 7), torch.tensor([0, 2, 2]), torch.rand(7).requires_grad_())
    return Step(
        loss, one=nn.EmbeddingBag(9, 4, mode="sum", padding_idx=1), two=nn.EmbeddingBag(9, 4, mode="max")
    ), inputs


@example
def graph_network() -> Example:
    def loss(m: Any, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        messages = F.relu(m.message(torch.cat([x[source], x[target]], -1)))
        sums = torch.zeros(5, 4).index_add(0, target, messages)
        sums = sums.scatter_add(0, target[:, None].expand(-1, 4), messages)
        return m.update(torch.cat([x, sums], -1)).square().mean()

    return Step(loss, message=nn.Linear(6, 4), update=nn.Linear(7, 2)), (
        torch.randn(5, 3),
        classes(5, 8),
        classes(5, 8),
    )


@example
def lstm() -> Example:
    return Step(lambda m, x: m.model(x)[0].square().mean(), model=nn.LSTM(3, 4, batch_first=True)), (
        torch.randn(2, 3, 3),
    )


@example
def gru() -> Example:
    return Step(lambda m, x: m.model(x)[1].square().mean(), model=nn.GRU(3, 4, bidirectional=True)), (
        torch.randn(2, 2, 3),
    )


@example
def recurrent_cells() -> Example:
    def loss(m: Any, x: Tensor) -> Tensor:
        h, c = m.long(x)
        return (m.gated(x, h) + m.plain(x, c)).square().mean()

    return Step(loss, long=nn.LSTMCell(3, 4), gated=nn.GRUCell(3, 4), plain=nn.RNNCell(3, 4)), (torch.randn(2, 3),)


# -- from transformers -------------------------------------------------------------------------------------------------------
@example
def gpt2() -> Example:
    transformers = __import__("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=8, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0
    )
    config.use_cache = False
    return Step(lambda m, ids: m.model(ids, labels=ids).loss, model=transformers.GPT2LMHeadModel(config)), (
        classes(11, 2, 5),
    )


@example
def bert() -> Example:
    transformers = __import__("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=8,
        intermediate_size=16,
        vocab_size=11,
        max_position_embeddings=8,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    return Step(lambda m, ids: m.model(ids, labels=ids).loss, model=transformers.BertForMaskedLM(config)), (
        classes(11, 2, 5),
    )
