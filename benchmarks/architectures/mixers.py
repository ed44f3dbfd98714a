"""What mixes the tokens of a sequence without attention's table of scores, in plain torch from what the papers say."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import Example, architecture


class GatedDeltaNet(nn.Module):
    """A state that forgets by a gate and corrects what it answers to a key (Yang et al., "Gated delta networks", 2024, section 3.3). In a
    chunk the corrections are the solution of a triangular system."""

    def __init__(self, width: int = 32, heads: int = 2, chunk: int = 4) -> None:
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.short = nn.Conv1d(3 * width, 3 * width, 4, groups=3 * width, bias=False)
        self.write, self.forget = nn.Linear(width, heads), nn.Linear(width, heads)
        self.rates = nn.Parameter(torch.rand(heads))
        self.gate, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(width // heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        mixed = F.silu(self.short(F.pad(self.project(x).transpose(1, 2), (3, 0)))).transpose(1, 2)
        q, k, v = mixed.view(batch, length // self.chunk, self.chunk, 3, self.heads, -1).permute(3, 1, 0, 4, 2, 5)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        fall = -self.rates.exp() * F.softplus(self.forget(x))
        beta, fall = (
            t.view(batch, -1, self.chunk, self.heads).permute(1, 0, 3, 2) for t in (self.write(x).sigmoid(), fall)
        )
        state = x.new_zeros(batch, self.heads, q.shape[-1], q.shape[-1])
        chunks = []
        for n in range(q.shape[0]):
            past = fall[n].cumsum(-1)
            decay = (past[..., :, None] - past[..., None, :]).tril().exp().tril()
            system = beta[n][..., None] * (decay * (k[n] @ k[n].mT)).tril(-1)
            wrong = beta[n][..., None] * (v[n] - past.exp()[..., None] * (k[n] @ state))
            right = torch.linalg.solve_triangular(
                system + torch.eye(self.chunk, device=x.device), wrong, upper=False, unitriangular=True
            )
            chunks.append(past.exp()[..., None] * (q[n] @ state) + (decay * (q[n] @ k[n].mT)) @ right)
            last = past[..., -1:]
            state = last.exp()[..., None] * state + ((last - past).exp()[..., None] * k[n]).mT @ right
        y = self.norm(torch.stack(chunks, 1).permute(0, 1, 3, 2, 4).reshape(batch, length, self.heads, -1))
        result: Tensor = self.out(y.flatten(2) * F.silu(self.gate(x)))
        return result


@architecture
def gated_deltanet() -> Example:
    return GatedDeltaNet(), {"x": torch.randn(2, 12, 32)}


class TestTimeTraining(nn.Module):
    """A linear model for each head that is trained while it reads, by batches of tokens (Sun et al., "Learning to (learn at test time)", 2024,
    section 2: TTT-Linear)."""

    def __init__(self, width: int = 32, heads: int = 2, batch: int = 4) -> None:
        super().__init__()
        size = width // heads
        self.heads, self.batch = heads, batch
        self.norm, self.project = nn.LayerNorm(width), nn.Linear(width, 3 * width, bias=False)
        self.start = nn.Parameter(torch.randn(heads, size, size) * 0.02)
        self.scale, self.shift = nn.Parameter(torch.ones(heads, size)), nn.Parameter(torch.zeros(heads, size))
        self.rate = nn.Linear(width, heads)
        self.after, self.out = nn.LayerNorm(width), nn.Linear(width, width, bias=False)

    @staticmethod
    def answer(weight: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return x + F.layer_norm(x @ weight, x.shape[-1:]) * scale + shift

    def loss(self, weight: Tensor, key: Tensor, value: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return (self.answer(weight, key, scale, shift) - value).square().mean()

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        known = self.norm(x)
        q, k, v = self.project(known).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        rate = self.rate(known).sigmoid().transpose(1, 2)
        slope = torch.func.grad(self.loss)
        for dims in ((None, 0, 0, None, None), (0, 0, 0, 0, 0), (0, 0, 0, None, None)):  # tokens, heads, sequences
            slope = torch.func.vmap(slope, dims)
        weight = self.start.expand(batch, -1, -1, -1)
        answers = []
        for begin in range(0, length, self.batch):
            now = slice(begin, begin + self.batch)
            steps = slope(weight, k[:, :, now], v[:, :, now], self.scale, self.shift)
            trained = weight[:, :, None] - (rate[:, :, now, None, None] * steps).cumsum(2)
            scale, shift = self.scale[:, None, None], self.shift[:, None, None]
            answers.append(self.answer(trained, q[:, :, now, None], scale, shift).squeeze(-2))
            weight = trained[:, :, -1]
        y = torch.cat(answers, 2).transpose(1, 2).reshape(batch, length, width)
        result: Tensor = x + self.out(self.after(y))
        return result


@architecture
def test_time_training() -> Example:
    return TestTimeTraining(), {"x": torch.randn(2, 8, 32)}


class Hyena(nn.Module):
    """Long convolutions and gates in turn; the filters are a network of the position, applied by Fourier transforms (Poli et al., "Hyena
    hierarchy", 2023, section 3)."""

    def __init__(self, width: int = 16, order: int = 2, waves: int = 3, hidden: int = 16) -> None:
        super().__init__()
        self.width, self.order, self.waves = width, order, waves
        self.project = nn.Linear(width, (order + 1) * width)
        self.short = nn.Conv1d((order + 1) * width, (order + 1) * width, 3, groups=(order + 1) * width)
        self.first = nn.Linear(2 * waves + 1, hidden)
        self.second, self.third = nn.Linear(hidden, hidden), nn.Linear(hidden, order * width, bias=False)
        self.decay = nn.Parameter(torch.linspace(0.3, 1.5, width))
        self.bias = nn.Parameter(torch.randn(order, width))
        self.out = nn.Linear(width, width)

    def filters(self, length: int, device: torch.device) -> Tensor:
        t = torch.linspace(0, 1, length, device=device)[:, None]
        angle = 2 * math.pi * t * torch.linspace(1e-4, self.waves - 1, self.waves, device=device)
        wave = torch.exp(-1j * angle)
        h = torch.sin(10 * self.first(torch.cat([t, wave.real, wave.imag], -1)))
        h = self.third(torch.sin(10 * self.second(h))).view(length, self.order, self.width)
        h = h * torch.exp(-t * self.decay.abs())[:, None]
        result: Tensor = (h / h.abs().sum(0, keepdim=True)).permute(1, 2, 0)
        return result

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mixed = self.short(F.pad(self.project(x).transpose(1, 2), (2, 0)))
        *gates, v = mixed.split(self.width, 1)
        for h, bias, gate in zip(self.filters(length, x.device), self.bias, reversed(gates), strict=True):
            spectrum = torch.fft.rfft(h, n=2 * length) * torch.fft.rfft(v, n=2 * length)
            v = gate * (torch.fft.irfft(spectrum, n=2 * length)[..., :length] + v * bias[:, None])
        result: Tensor = self.out(v.transpose(1, 2))
        return result


@architecture
def hyena() -> Example:
    return Hyena(), {"x": torch.randn(2, 12, 16)}


class GatedLinearAttention(nn.Module):
    """Linear attention whose state fades by a gate for each feature, chunk by chunk (Yang et al., "Gated linear attention", 2024, section 4)."""

    def __init__(self, width: int = 32, heads: int = 2, chunk: int = 4) -> None:
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.query, self.key = nn.Linear(width, width // 2, bias=False), nn.Linear(width, width // 2, bias=False)
        self.value, self.gate = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.fade = nn.Sequential(nn.Linear(width, 4, bias=False), nn.Linear(4, width // 2))
        self.norm, self.out = nn.RMSNorm(width // heads), nn.Linear(width, width, bias=False)

    def chunks(self, t: Tensor) -> Tensor:
        return t.view(t.shape[0], -1, self.chunk, self.heads, t.shape[2] // self.heads).permute(0, 3, 1, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        fade = self.chunks(F.logsigmoid(self.fade(x)) / 16).cumsum(-2)
        q, k, v = self.chunks(self.query(x)), self.chunks(self.key(x)), self.chunks(self.value(x))
        q = q * q.shape[-1] ** -0.5 * fade.exp()
        last = fade[..., -1:, :]
        added = (k * (last - fade).exp()).mT @ v
        state, states = torch.zeros_like(added[:, :, 0]), []
        for n in range(added.shape[2]):
            states.append(state)
            state = last[:, :, n].exp().mT * state + added[:, :, n]
        within = (q @ (k * (-fade).exp()).mT).tril()
        y = self.norm(within @ v + q @ torch.stack(states, 2)).permute(0, 2, 3, 1, 4).reshape_as(x)
        result: Tensor = self.out(y * F.silu(self.gate(x)))
        return result


@architecture
def gated_linear_attention() -> Example:
    return GatedLinearAttention(), {"x": torch.randn(2, 16, 32)}


class Mamba3(nn.Module):
    """A state space whose inputs enter by the trapezoid rule, whose states turn by angles that depend on the data, and that takes several
    inputs at once (Lahoti et al., "Mamba-3", 2026, section 3), in its form as a product with a table of decays."""

    def __init__(self, width: int = 32, heads: int = 4, states: int = 8, rank: int = 2) -> None:
        super().__init__()
        self.heads, self.states, self.rank = heads, states, rank
        self.sizes = [width, width, *[rank * states] * 2, heads, heads, states // 2]
        self.project = nn.Linear(width, sum(self.sizes), bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(states) for _ in range(2))
        self.biases = nn.ParameterList(nn.Parameter(torch.randn(heads, rank, states) * 0.1) for _ in range(2))
        self.spread = nn.Parameter(torch.rand(2, heads, rank, width // heads))
        self.rates, self.step, self.skip = (nn.Parameter(torch.rand(heads)) for _ in range(3))
        self.out = nn.Linear(width, width, bias=False)

    @staticmethod
    def turned(x: Tensor, angle: Tensor) -> Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        c, s = angle.cos(), angle.sin()
        return torch.stack([even * c - odd * s, even * s + odd * c], -1).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        z, v, b, c, step, trust, angle = self.project(x).split(self.sizes, -1)
        step = F.softplus(step + self.step)
        fall = (-self.rates.exp() * step).transpose(1, 2)
        turn = (step[..., None] * angle[:, :, None]).cumsum(1)[..., None, :]
        b, c = (
            self.turned(norm(t.view(batch, length, 1, self.rank, -1)) + bias, turn)
            for t, norm, bias in zip((b, c), self.norms, self.biases, strict=True)
        )
        v = v.view(batch, length, self.heads, 1, -1)
        into = v * self.spread[0]
        past = fall.cumsum(-1)
        decay = (past[..., :, None] - past[..., None, :]).tril().exp().tril()
        share = (trust.sigmoid() * step).transpose(1, 2)
        before = F.pad(((1 - trust.sigmoid()) * step).transpose(1, 2)[..., 1:], (0, 1))
        weight = decay * share[..., None, :] + (decay * before[..., None, :]).tril(-1)
        scores = torch.einsum("bthrn,bshqn->bhtrsq", c, b) * weight[..., :, None, :, None]
        y = torch.einsum("bhtrsq,bshqp->bthrp", scores, into)
        y = ((y + self.skip[:, None, None] * into) * self.spread[1]).sum(3).flatten(2)
        result: Tensor = self.out(y * F.silu(z))
        return result


@architecture
def mamba3() -> Example:
    return Mamba3(), {"x": torch.randn(2, 10, 32)}
