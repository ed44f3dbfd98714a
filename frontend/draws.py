"""Which numbers torch draws: what a compiled model is compared with draws from the compiler's generator, as the compiled model does.

Dropout of other elements is as right, and every value after it differs. Draws are counted in the order in which the model makes them: the
nth of them has the nth stream, here and where a model is lowered (`lowering/random.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch

from codesign.frontend.replacing import Replacing
from codesign.ir.dtypes import F32
from codesign.ir.interpreter.draws import draw

_ATEN = torch.ops.aten
Distribution = Literal["uniform", "normal"]
Take = Callable[[Distribution], torch.Tensor]
"""The next draw, in float32, of a result's shape."""


def drawn_alike() -> Replacing:
    """Within it torch's random operators take their numbers from this compiler's generator, from its first stream on."""
    streams = itertools.count(1)
    return Replacing({func: partial(_drawn, streams, func, rule) for func, rule in _RULES.items()})


def _drawn(
    streams: Iterator[int], func: Any, rule: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
) -> torch.Tensor:
    """What torch's operator gives, with numbers of the next stream."""
    result: torch.Tensor = func(*args, **kwargs)

    def take(distribution: Distribution) -> torch.Tensor:
        return torch.from_numpy(draw(distribution, next(streams), 0, tuple(result.shape), F32))

    return result.copy_(rule(take, *args))


def _uniform(take: Take, *_: Any) -> torch.Tensor:
    return take("uniform")


def _normal(take: Take, *_: Any) -> torch.Tensor:
    return take("normal")


def _between(take: Take, x: torch.Tensor, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return low + (high - low) * take("uniform").to(_compute(x))


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


def _whole(take: Take, *limits: int) -> torch.Tensor:
    low, high = (0, limits[0]) if len(limits) == 1 else limits
    return (take("uniform") * (high - low)).floor().long() + low


def _compute(x: torch.Tensor) -> torch.dtype:
    """In which torch and we work with numbers of a tensor's dtype."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


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
    _ATEN.randint.default: lambda take, high, _: _whole(take, high),
    _ATEN.randint.low: lambda take, low, high, _: _whole(take, low, high),
    _ATEN.randint_like.default: lambda take, _, high: _whole(take, high),
    _ATEN.randint_like.low_dtype: lambda take, _, low, high: _whole(take, low, high),
}
"""By operator what a result is made of; dropout is a product with `bernoulli_` where torch runs on a CPU."""
