"""The error model: what the interval of a prediction is made of.

An interval begins as the residual of the regime that the kernel falls in, from rows held out of a calibration. Each way in which
what is predicted differs from what was measured (`distances.toml`) adds to it, independent of the others: the logarithms of
the factors are added in squares. The prediction itself always lies inside.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

Sides = tuple[float, float]
"""How far an interval reaches to the faster side and to the slower one, in the logarithm."""

DISTANCES = Path(__file__).resolve().parent.parent / "parameters" / "distances.toml"


@dataclass(frozen=True)
class Distance:
    """One way to differ from what was measured: what it adds to each side of a 90 % interval, by family of kernels or type of
    operands where that is known (`of`), and in words."""

    name: str
    spread: Sides
    why: str
    of: Mapping[str, Sides] = field(default_factory=dict)

    def widening(self, family: str, what: str = "") -> Widening:
        """What it adds to kernels of a family; `what` tells those apart that don't err together."""
        text = f"{self.why} ({what})" if what else self.why
        return Widening(f"{self.name} {what}".strip(), self.of.get(what, self.of.get(family, self.spread)), text)


@dataclass(frozen=True)
class Widening:
    """What widens an interval: a name, which all kernels have that err together by it, how far, and in words."""

    name: str
    spread: Sides
    why: str


@lru_cache(maxsize=1)
def _rows() -> dict[str, Any]:
    return tomllib.loads(DISTANCES.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def distances() -> dict[str, Distance]:
    """All ways to differ, by name."""
    rows = {name: row for name, row in _rows().items() if "spread" in row}
    return {
        name: Distance(
            name, _sides(row["spread"]), row["why"], {key: _sides(own) for key, own in row.get("of", {}).items()}
        )
        for name, row in rows.items()
    }


def _sides(figure: float | list[float]) -> Sides:
    """A figure of the file: one of both sides, or of the faster and the slower."""
    faster, slower = figure if isinstance(figure, list) else (figure, figure)
    return faster, slower


def common_share(family: str) -> float:
    """How much of the residual (of its square) kernels of a family have in common on one machine."""
    row = _rows()["residual"]
    return float(row.get("of", {}).get(family, row["common"]))


def holding(pair: tuple[float, float]) -> tuple[float, float]:
    """An interval's factors with the prediction itself inside: quantiles of a cell whose rows all err to one side leave
    it out, and a prediction outside of its own interval says two things at once."""
    low, high = pair
    return min(low, 1.0), max(high, 1.0)


def widened(pair: tuple[Any, Any], widenings: Iterable[Widening]) -> tuple[Any, Any]:
    """An interval's factors (numbers, or arrays of them) at some distances from what they were measured on."""
    low, high = np.minimum(pair[0], 1.0), np.maximum(pair[1], 1.0)
    spreads = [each.spread for each in widenings]
    if not spreads:
        return low, high
    faster, slower = (sum(side**2 for side in sides) for sides in zip(*spreads, strict=True))
    low, high = np.log(low), np.log(high)
    return np.exp(-np.sqrt(low * low + faster)), np.exp(np.sqrt(high * high + slower))
