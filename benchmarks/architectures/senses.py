"""What sees, hears and places things: video, scenes, points and speech, from papers of 2024 to 2026, in plain torch from what they say."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.architectures import Example, architecture, step


def turned(x: Tensor, places: Tensor) -> Tensor:
    """Pairs of the last dim turned by angles: equal parts for each coordinate of a place."""
    count = places.shape[-1]
    half = x.shape[-1] // (2 * count)
    rates = 100.0 ** (-torch.arange(half, device=x.device) / half)
    angle = (places[..., None] * rates).flatten(-2)
    low, high = x.chunk(2, -1)
    return torch.cat([low * angle.cos() - high * angle.sin(), low * angle.sin() + high * angle.cos()], -1)


class PlacedBlock(nn.Module):
    """A block of a transformer whose queries and keys are turned by where in the video their tokens are."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        q, k, v = self.project(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(turned(q, places[:, None]), turned(k, places[:, None]), v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        result: Tensor = x + self.network(self.norms[1](x))
        return result


class VideoEncoder(nn.Module):
    """Tubelets of a video, all of them or those that are kept."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.tubelets = nn.Conv3d(3, width, (2, 4, 4), (2, 4, 4))
        self.blocks = nn.ModuleList(PlacedBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def places(kept: Tensor, side: int) -> Tensor:
        frame = torch.div(kept, side * side, rounding_mode="floor")
        return torch.stack([frame, kept // side % side, kept % side], -1)

    def forward(self, video: Tensor, kept: Tensor | None = None) -> Tensor:
        x = self.tubelets(video)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        if kept is None:
            kept = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        else:
            x = torch.gather(x, 1, kept[..., None].expand(-1, -1, x.shape[-1]))
        for block in self.blocks:
            x = block(x, self.places(kept, side))
        result: Tensor = self.norm(x)
        return result


class VideoPrediction(nn.Module):
    """Tokens of hidden parts of a video told from those that are seen, as a slow copy of the encoder has them (Assran et al., "V-JEPA 2", 2025,
    section 2). A step moves the copy."""

    def __init__(self, width: int = 24, heads: int = 2, inner: int = 12, slow: float = 0.99) -> None:
        super().__init__()
        self.slow = slow
        self.encoder = VideoEncoder(width, heads, depth=2)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.into, self.out = nn.Linear(width, inner), nn.Linear(inner, width)
        self.hidden = nn.Parameter(torch.randn(inner) * 0.02)
        self.predictor, self.norm = PlacedBlock(inner, heads=1), nn.LayerNorm(inner)

    def forward(self, video: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        with torch.no_grad():
            for mine, its in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
                mine.lerp_(its, 1 - self.slow)
            wanted = self.target(video)
            wanted = F.layer_norm(wanted, wanted.shape[-1:])
            wanted = torch.gather(wanted, 1, hidden[..., None].expand(-1, -1, wanted.shape[-1]))
        x = self.into(self.encoder(video, seen))
        x = torch.cat([x, self.hidden.expand(*hidden.shape, -1)], 1)
        side = video.shape[-1] // 4
        x = self.predictor(x, VideoEncoder.places(torch.cat([seen, hidden], 1), side))
        predicted = self.out(self.norm(x)[:, seen.shape[1] :])
        return F.l1_loss(predicted, wanted)


@step
def video_prediction() -> Example:
    order = torch.stack([torch.randperm(18) for _ in range(2)])
    return VideoPrediction(), {"video": torch.randn(2, 3, 4, 12, 12), "seen": order[:, :6], "hidden": order[:, 6:]}


class Splats(nn.Module):
    """A picture of a scene of soft ellipsoids with bounded kernels, laid over each other from front to back (Liu et al., "Deformable beta
    splatting", 2025, section 3, on Kerbl et al., "3D Gaussian splatting", 2023, section 4)."""

    def __init__(self, count: int = 24, size: int = 8) -> None:
        super().__init__()
        self.size = size
        self.centres = nn.Parameter(torch.randn(count, 3) * 0.5)
        self.turns, self.scales = nn.Parameter(torch.randn(count, 4)), nn.Parameter(torch.randn(count, 3) * 0.3 - 1.5)
        self.shapes, self.opacities = nn.Parameter(torch.randn(count)), nn.Parameter(torch.randn(count))
        self.colours = nn.Parameter(torch.randn(count, 4, 3) * 0.3)

    def covariances(self) -> Tensor:
        w, x, y, z = F.normalize(self.turns, dim=-1).unbind(-1)
        rotation = torch.stack(
            [
                1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
            ],
            -1,
        ).reshape(-1, 3, 3)  # fmt: skip
        root = rotation * self.scales.exp()[:, None]
        return root @ root.mT

    def forward(self, view: Tensor, focal: Tensor) -> Tensor:
        around, shift = view[:3, :3], view[:3, 3]
        seen = self.centres @ around.T + shift
        x, y, depth = seen.unbind(-1)
        near = depth.clamp(min=0.1)
        zero = torch.zeros_like(x)
        jacobian = torch.stack(
            [torch.stack([focal / near, zero, -focal * x / near**2], -1),
             torch.stack([zero, focal / near, -focal * y / near**2], -1)], 1
        )  # fmt: skip
        flat = jacobian @ around
        flat = flat @ self.covariances() @ flat.mT + 0.3 * torch.eye(2, device=x.device)
        middle = focal * seen[:, :2] / near[:, None] + self.size / 2

        away = F.normalize(self.centres + around.T @ shift, dim=-1)
        basis = torch.cat([torch.full_like(away[:, :1], 0.2821), 0.4886 * away], -1)
        colour = (torch.einsum("nb,nbc->nc", basis, self.colours) + 0.5).relu()

        order = depth.argsort()
        flat, middle, colour = flat[order], middle[order], colour[order]
        strength = self.opacities.sigmoid()[order] * (depth[order] > 0.2)
        grid = torch.arange(self.size, device=x.device) + 0.5
        pixels = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)
        offset = pixels[:, :, None] - middle
        distance = torch.einsum("hwni,nij,hwnj->hwn", offset, torch.linalg.inv(flat), offset)
        kernel = (1 - distance / 9).clamp(min=0) ** (4 * self.shapes[order].exp())
        alpha = (strength * kernel).clamp(max=0.99)
        alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
        through = torch.cumprod(1 - alpha, -1)
        weight = alpha * torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1)
        return weight @ colour + through[..., -1:] * torch.ones(3, device=x.device)


@architecture
def beta_splatting() -> Example:
    view = torch.eye(4)
    view[2, 3] = 3.0
    return Splats(), {"view": view, "focal": torch.tensor(9.0)}


class SerialisedPoints(nn.Module):
    """Points of a cloud in the order of a curve through space: attention within pieces of the curve, then one point for each cell (Wu et al.,
    "Point transformer V3", 2024, section 4, the encoder of "Sonata", 2025)."""

    def __init__(self, width: int = 16, heads: int = 2, piece: int = 8, bits: int = 4) -> None:
        super().__init__()
        self.heads, self.piece, self.bits = heads, piece, bits
        self.embedding = nn.Linear(6, width)
        self.near = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.projects = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.pool, self.head = nn.Linear(width, 2 * width), nn.Linear(3 * width, 5)

    def code(self, cell: Tensor) -> Tensor:
        """Places along a Z curve: the bits of the coordinates in turn."""
        code = torch.zeros_like(cell[..., 0])
        for bit in range(self.bits):
            for axis in range(3):
                code |= ((cell[..., axis] >> bit) & 1) << (3 * bit + axis)
        return code

    def attend(self, x: Tensor, order: Tensor, n: int) -> Tensor:
        x = self.norms[n](x)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.numel(), device=x.device)
        pieces = self.projects[n](x)[order].view(-1, self.piece, 3, self.heads, x.shape[-1] // self.heads)
        q, k, v = pieces.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.outs[n](y.transpose(1, 2).reshape(-1, x.shape[-1])[back])
        return result

    def forward(self, points: Tensor, colours: Tensor) -> Tensor:
        cell = ((points - points.amin(0)) / 0.25).long().clamp(0, 2**self.bits - 1)
        first, second = self.code(cell).argsort(stable=True), self.code(cell.flip(-1)).argsort(stable=True)
        x = self.embedding(torch.cat([points, colours], -1))
        x = x + self.near(points - (cell + 0.5) * 0.25)
        x = x + self.attend(x, first, 0)
        x = x + self.attend(x, second, 1)
        x = x + self.network(self.norms[2](x))

        parents, owner, count = torch.unique(self.code(cell >> 2), return_inverse=True, return_counts=True)
        wide = self.pool(self.norms[3](x))
        largest = torch.zeros(parents.shape[0], wide.shape[1]).index_reduce(0, owner, wide, "amax", include_self=False)
        share = count[owner].float() / points.shape[0]
        result: Tensor = self.head(torch.cat([x, largest[owner] * share[:, None]], -1))
        return result


@architecture
def serialised_points() -> Example:
    return SerialisedPoints(), {"points": torch.rand(48, 3) * 3, "colours": torch.rand(48, 3)}


class Snake(nn.Module):
    """x + sin(ax)^2 / a, each channel with its a."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.a * x).sin().square() / (self.a + 1e-9)


class CausalConv(nn.Module):
    """A convolution that sees only what came before."""

    def __init__(self, into: int, out: int, size: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.before = dilation * (size - 1) - (stride - 1)
        self.conv = weight_norm(nn.Conv1d(into, out, size, stride, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (self.before, 0)))
        return result


class SpeechCodec(nn.Module):
    """Speech as a few numbers a frame: a causal encoder, rounding to a grid and a second book for what is left, and a decoder that says the
    spectrum of each frame (the parts of Mimi, Vocos and "Finite scalar quantization" as of TS3-Codec and WavTokenizer, 2024 and 2025)."""

    levels: Tensor
    window: Tensor

    def __init__(self, width: int = 12, hop: int = 8, levels: tuple[int, ...] = (7, 5, 5)) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("levels", torch.tensor(levels))
        self.register_buffer("window", torch.hann_window(4 * hop))
        self.encoder = nn.Sequential(
            CausalConv(1, width, 7), Snake(width), CausalConv(width, width, 3, dilation=3), Snake(width),
            CausalConv(width, 2 * width, 4, stride=2), Snake(2 * width), CausalConv(2 * width, len(levels) + 4, 8, stride=4),
        )  # fmt: skip
        self.book = nn.Embedding(16, 4)
        self.into = nn.Conv1d(len(levels) + 4, 2 * width, 7, padding=3)
        self.depthwise = nn.Conv1d(2 * width, 2 * width, 7, padding=3, groups=2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.network = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, 2 * width))
        self.scale = nn.Parameter(torch.full((2 * width,), 0.5))
        self.head = nn.Linear(2 * width, 2 * (2 * hop + 1))

    def gridded(self, z: Tensor) -> tuple[Tensor, Tensor]:
        half = (self.levels - 1) / 2
        bounded = torch.tanh(z) * half
        rounded = bounded + (bounded.round() - bounded).detach()
        places = F.pad(self.levels.cumprod(0)[:-1], (1, 0), value=1)
        index = ((bounded.round() + half).long() * places).sum(-1)
        return rounded / half, index

    def booked(self, z: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.cdist(z, self.book.weight.expand(z.shape[0], -1, -1)).argmin(-1)
        found = self.book(index)
        return z + (found - z).detach(), index

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        z = self.encoder(wave[:, None]).transpose(1, 2)
        coarse, first = self.gridded(z[..., :3])
        fine, second = self.booked(z[..., 3:])
        x = self.into(torch.cat([coarse, fine], -1).transpose(1, 2))
        y = self.norm(self.depthwise(x).transpose(1, 2))
        x = x.transpose(1, 2) + self.scale * self.network(y)
        size, phase = self.head(x).transpose(1, 2).chunk(2, 1)
        spectrum = torch.polar(size.exp().clamp(max=100.0), phase)
        edge = spectrum[..., -1:]
        heard = torch.istft(
            torch.cat([spectrum, edge], -1), 4 * self.hop, self.hop, window=self.window, length=wave.shape[-1]
        )
        had, got = (
            torch.stft(t, 4 * self.hop, self.hop, window=self.window, return_complex=True).abs() for t in (wave, heard)
        )
        return heard, F.l1_loss(got.clamp(min=1e-5).log(), had.clamp(min=1e-5).log()), torch.stack([first, second], -1)


@architecture
def speech_codec() -> Example:
    t = torch.arange(128) / 16000
    return SpeechCodec(), {"wave": torch.sin(2 * math.pi * torch.tensor([[440.0], [1300.0]]) * t)}
