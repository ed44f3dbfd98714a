"""The interval of a sum of times.

An interval is made of parts: what the model's fit leaves open, and what widened it. Times that share a part err together, so it adds up;
the rest is each time's own and adds in squares. A time that is taken several times errs the same way each time. The sum itself always
lies inside, and its interval is never wider than the sum of the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """One part of an interval: the factors on the time that it alone would leave open, and how much of it (of its square) all times
    that have a part of this name share."""

    low: float
    high: float
    common: float = 1.0


@dataclass(frozen=True)
class Time:
    """Seconds with their interval. `shared`: of the squares of the ways down to `low` and up to `high`, the shares that other times have in
    common with this one, by name. Times of one `name` are one and the same."""

    seconds: float = 0.0
    low: float = 0.0
    high: float = 0.0
    shared: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    name: str = ""


def time_of_parts(seconds: float, low: float, high: float, parts: Mapping[str, Part], name: str = "") -> Time:
    """A time whose interval is made of some parts, each independent of the others."""
    down = {key: math.log(min(part.low, 1.0)) ** 2 for key, part in parts.items()}
    up = {key: math.log(max(part.high, 1.0)) ** 2 for key, part in parts.items()}
    whole = (sum(down.values()) or 1.0, sum(up.values()) or 1.0)
    shared = {
        key: (part.common * down[key] / whole[0], part.common * up[key] / whole[1]) for key, part in parts.items()
    }
    return Time(seconds, low, high, {key: pair for key, pair in shared.items() if any(pair)}, name)


def total(times: Iterable[tuple[Time, float]]) -> Time:
    """The sum of times, each so many times."""
    alike: dict[str, tuple[Time, float]] = {}
    for position, (time, count) in enumerate(times):
        key = time.name or f"#{position}"
        alike[key] = (time, count + alike.get(key, (time, 0.0))[1])
    parts = list(alike.values())
    seconds = sum(time.seconds * count for time, count in parts)
    sides = []
    for side in (0, 1):
        ways = [(time.shared, count * abs((time.low, time.high)[side] - time.seconds)) for time, count in parts]
        sides.append(_side(ways, side))
    (down, of_down), (up, of_up) = sides
    shared = {key: (of_down.get(key, 0.0), of_up.get(key, 0.0)) for key in {**of_down, **of_up}}
    return Time(seconds, seconds - down, seconds + up, shared)


def _side(ways: list[tuple[Mapping[str, tuple[float, float]], float]], side: int) -> tuple[float, dict[str, float]]:
    """How far the sum's interval reaches to one side, and the shares of its square that are shared."""
    own, shared = 0.0, dict[str, float]()
    for shares, way in ways:
        own += way**2 * max(1.0 - sum(pair[side] for pair in shares.values()), 0.0)
        for key, pair in shares.items():
            shared[key] = shared.get(key, 0.0) + way * math.sqrt(pair[side])
    square = own + sum(way**2 for way in shared.values())
    return math.sqrt(square), {key: way**2 / square for key, way in shared.items() if square}
