"""Which numbers torch draws: what a compiled model is compared with draws from the compiler's generator, as the compiled model does.

Dropout of other elements is as right, and every value after it differs. Draws are counted in the order in which the model makes them: the
nth of them has the nth stream, here and where a model is lowered (`lowering/random.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from codesign.frontend.arrays import from_torch_dtype
from codesign.frontend.lowering import sampling
from codesign.frontend.lowering.random import EXACT, whole_limits
from codesign.frontend.replacing import Replacing
from codesign.ir.draws import Distribution
from codesign.ir.dtypes import F32, I64
from codesign.ir.interpreter.draws import draw

_ATEN = torch.ops.aten


class Take(Protocol):
    """The next draw, of a result's shape if none is given: numbers in float32, "bits" in int64."""

    def __call__(self, distribution: Distribution, shape: Sequence[int] | None = None) -> torch.Tensor: ...


def drawn_alike() -> Replacing:
    """Within it torch's random operators take their numbers from this compiler's generator, from its first stream on."""
    streams = itertools.count(1)
    rules: dict[Any, Callable[..., Any]] = {func: partial(_drawn, streams, func, rule) for func, rule in _RULES.items()}
    return Replacing(rules | {func: partial(_rrelu, streams, func) for func in _RRELU})


def _drawn(
    streams: Iterator[int], func: Any, rule: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
) -> torch.Tensor:
    """What torch's operator gives, with numbers of the next stream."""
    result: torch.Tensor = func(*args, **kwargs)

    def take(distribution: Distribution, shape: Sequence[int] | None = None) -> torch.Tensor:
        kind = I64 if distribution == "bits" else F32
        if shape is None:
            shape = (*result.shape, 2) if result.is_complex() else result.shape
        numbers = torch.from_numpy(draw(distribution, next(streams), 0, tuple(shape), kind))
        if not result.is_complex():
            return numbers
        parts = numbers.to(result.dtype.to_real())  # both are drawn; the variance is that of their sum
        return torch.view_as_complex(parts * math.sqrt(0.5) if distribution == "normal" else parts)

    return result.copy_(rule(take, *args))


_RRELU = (_ATEN.rrelu_with_noise.default, _ATEN.rrelu_with_noise_.default)


def _rrelu(
    streams: Iterator[int],
    func: Any,
    x: torch.Tensor,
    noise: torch.Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *rest: Any,
) -> torch.Tensor:
    """Slopes are drawn for all numbers, and kept of those up to 0."""
    if not training:
        return func(x, noise, lower, upper, training, *rest)  # type: ignore[no-any-return]
    draws = torch.from_numpy(draw("uniform", next(streams), 0, tuple(x.shape), F32)).to(_compute(x))
    noise.copy_(torch.where(x > 0, 1.0, lower + (upper - lower) * draws))
    result = torch.where(x > 0, x, x * noise)
    return x.copy_(result) if func is _ATEN.rrelu_with_noise_.default else result


def _uniform(take: Take, *_: Any) -> torch.Tensor:
    return take("uniform")


def _normal(take: Take, *_: Any) -> torch.Tensor:
    return take("normal")


def _between(take: Take, x: torch.Tensor, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    first = complex(low, low) if x.is_complex() else low
    return first + (high - low) * take("uniform").to(_compute(x))


def _around(take: Take, x: torch.Tensor, mean: float = 0.0, deviation: float = 1.0) -> torch.Tensor:
    return mean + deviation * take("normal").to(_compute(x))


def _of_each(take: Take, mean: torch.Tensor | float, deviation: torch.Tensor | float = 1.0) -> torch.Tensor:
    of = [each for each in (mean, deviation) if isinstance(each, torch.Tensor)]
    return mean + deviation * take("normal").to(_compute(of[0]))


def _exponential(take: Take, x: torch.Tensor, rate: float = 1.0) -> torch.Tensor:
    return -torch.log1p(-take("uniform").to(_compute(x))) / rate


def _log_normal(take: Take, x: torch.Tensor, mean: float = 1.0, deviation: float = 2.0) -> torch.Tensor:
    return _around(take, x, mean, deviation).exp()


def _bernoulli(take: Take, x: torch.Tensor, p: torch.Tensor | float | None = None) -> torch.Tensor:
    chance = x if p is None else torch.as_tensor(p)
    return take("uniform") < chance.float()


def _geometric(take: Take, x: torch.Tensor, p: float) -> torch.Tensor:
    return (torch.log1p(-take("uniform").to(_compute(x))) / math.log1p(-p)).floor() + 1


def _cauchy(take: Take, x: torch.Tensor, median: float = 0.0, sigma: float = 1.0) -> torch.Tensor:
    return median + sigma * torch.tan(math.pi * (take("uniform").to(_compute(x)) - 0.5))


def _whole(take: Take, *limits: int) -> torch.Tensor:
    low, high = (0, limits[0]) if len(limits) == 1 else limits
    width = high - low
    if width <= EXACT:
        return (take("uniform") * width).floor().long() + low
    words = [take("bits").numpy().astype(np.uint64) for _ in range(1 if width <= 1 << 32 else 2)]
    whole = words[0] if len(words) == 1 else words[0] | (words[1] << np.uint64(32))
    rest = whole if width == 1 << 64 else whole % np.uint64(width)
    return torch.from_numpy(rest.view(np.int64)) + low


def _random(take: Take, x: torch.Tensor, *limits: int | None) -> torch.Tensor:
    least, most = whole_limits(from_torch_dtype(x.dtype))
    given = [most if limit is None else limit for limit in limits]
    return _whole(take, *(given or (least, most)))


def _order(take: Take, count: int) -> torch.Tensor:
    return take("bits").argsort(stable=True)


def _categories(take: Take, weights: torch.Tensor, count: int, replacement: bool = False) -> torch.Tensor:
    weights = weights.to(_compute(weights))
    if not replacement or count == 1:
        waited = -torch.log1p(-take("uniform", weights.shape).to(weights.dtype))
        paces = weights / waited.clamp(min=sampling.SHORTEST)
        return paces.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    whole = (weights / weights.amax(-1, keepdim=True) * 2.0**sampling.WEIGHT_BITS).long()
    sums, word, bits = whole.cumsum(-1), take("bits") >> 1, sampling.WORD_BITS
    total = sums[..., -1:]
    place = (total >> bits) * word + ((total & ((1 << bits) - 1)) * word >> bits)
    return (sums[..., None, :] <= place[..., None]).sum(-1)


def _events(take: Take, x: torch.Tensor, *_: Any) -> torch.Tensor:
    rate, chance = x.double(), take("uniform").double()
    proposals = take("uniform", (*x.shape, 2 * sampling.ROUNDS)).double()
    few = rate.clamp(max=sampling.FEW)[..., None]
    counts = torch.arange(sampling.COUNTS, dtype=torch.float64)
    sums = (few**counts * torch.exp(-(few + torch.lgamma(counts + 1)))).cumsum(-1)
    fewer = (sums <= chance[..., None]).sum(-1).double()
    many = rate.clamp(min=sampling.FEW)[..., None]
    width = 0.931 + 2.53 * many.sqrt()
    lean = -0.059 + 0.02483 * width
    side, height = proposals[..., ::2] - 0.5, 1 - proposals[..., 1::2]
    edge = 0.5 - side.abs()
    found = ((2 * lean / edge + width) * side + (many + 0.43)).floor()
    left = (height * (1.1239 + 1.1328 / (width - 3.4)) / (lean / (edge * edge) + width)).log()
    right = found * many.log() - many - torch.lgamma(found + 1)
    taken = (found >= 0) & (edge >= 2.0**-24) & (left <= right)
    first = taken.long().argmax(-1, keepdim=True)  # the first one where there is any
    return torch.where(rate < sampling.FEW, fewer, found.gather(-1, first)[..., 0])


def _compute(x: torch.Tensor) -> torch.dtype:
    """In which torch and we work with numbers of a tensor's dtype."""
    return x.dtype if x.is_complex() or x.dtype is torch.float64 else torch.float32


_RULES: dict[Any, Callable[..., torch.Tensor]] = {
    _ATEN.rand.default: _uniform,
    _ATEN.rand_like.default: _uniform,
    _ATEN.randn.default: _normal,
    _ATEN.randn_like.default: _normal,
    _ATEN.uniform_.default: _between,
    _ATEN.normal_.default: _around,
    _ATEN.normal.Tensor_Tensor: _of_each,
    _ATEN.normal.Tensor_float: _of_each,
    _ATEN.normal.float_Tensor: _of_each,
    _ATEN.exponential_.default: _exponential,
    _ATEN.log_normal_.default: _log_normal,
    _ATEN.bernoulli_.Tensor: _bernoulli,
    _ATEN.bernoulli.default: _bernoulli,
    _ATEN.bernoulli.p: _bernoulli,
    _ATEN.bernoulli_.float: lambda take, x, p=0.5: _bernoulli(take, x, p),  # torch leaves defaults out
    _ATEN.geometric_.default: _geometric,
    _ATEN.cauchy_.default: _cauchy,
    _ATEN.random_.default: _random,
    _ATEN.random_.to: _random,
    getattr(_ATEN.random_, "from"): _random,
    _ATEN.randperm.default: _order,
    _ATEN.multinomial.default: _categories,
    _ATEN.poisson.default: _events,
    _ATEN.randint.default: lambda take, high, _: _whole(take, high),
    _ATEN.randint.low: lambda take, low, high, _: _whole(take, low, high),
    _ATEN.randint_like.default: lambda take, _, high: _whole(take, high),
    _ATEN.randint_like.low_dtype: lambda take, _, low, high: _whole(take, low, high),
}
"""By operator what a result is made of; dropout is a product with `bernoulli_` where torch runs on a CPU."""
