"""Why each edge of the graph was fused or not: seconds on both sides, and what forbids it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from codesign.ir.tensor import Fusion
from codesign.passes.fusion.graph import Node
from codesign.passes.fusion.group import NotFusable
from codesign.passes.fusion.policy import FusionSearch

Why = Callable[[Fusion], str]
"""What bounds a group at its best schedule, or what no schedule of it fits."""


@dataclass(frozen=True)
class Edge:
    """A producer and a consumer by name, as the tensor IR has them, `count` times alike.

    `kernels`: what the plan calls the kernels that the two are in, one where they are together; empty where these are not known.
    `seconds`: of the two as one kernel, infinite where they can't be one. `apart`: of the two as they were. `reason`: what forbids it, or
    what bounds the one kernel.
    """

    first: str
    second: str
    fused: bool
    seconds: float
    apart: float
    reason: str
    count: int = 1
    kernels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data; seconds are None where the two can't be one kernel."""
        return {**asdict(self), "seconds": self.seconds if math.isfinite(self.seconds) else None}

    def __str__(self) -> str:
        times = f" (x {self.count})" if self.count > 1 else ""
        if not math.isfinite(self.seconds):
            return f"{self._named()}: apart, {self.reason}{times}"
        bound = f", {self.reason}" if self.reason else ""
        pair = f"{self.seconds * 1e6:.2f} us fused against {self.apart * 1e6:.2f} us"
        return f"{self._named()}: {'fused' if self.fused else 'apart'}, {pair}{bound}{times}"

    def _named(self) -> str:
        where = f" ({'in ' if self.fused else ''}{' -> '.join(self.kernels)})" if self.kernels else ""
        return f"%{self.first} -> %{self.second}{where}"


def in_kernels(found: Sequence[Edge], kernel_of: Mapping[str, str]) -> list[Edge]:
    """Edges with the kernels that they ended in. `kernel_of`: the kernel that gives each value by name; what was fused away is where the
    consumer is that it was fused into."""
    into = {edge.first: edge.second for edge in found if edge.fused}

    def kernel(value: str) -> str:
        seen: set[str] = set()
        while value not in kernel_of and value in into and value not in seen:
            seen.add(value)
            value = into[value]
        return kernel_of.get(value, "")

    def placed(edge: Edge) -> Edge:
        names = (kernel(edge.second),) if edge.fused else (kernel(edge.first), kernel(edge.second))
        return replace(edge, kernels=names) if all(names) else edge

    return [placed(edge) for edge in found]


def edges(search: FusionSearch, why: Why | None = None) -> list[Edge]:
    """The merges that were made, then each producer and consumer that stayed apart; equal pairs once."""
    made = (Edge(m.first, m.second, True, m.offer.seconds, m.offer.apart, "", m.count) for m in search.made.values())
    left: dict[Hashable, Edge] = {}
    for first in search.graph.groups():
        for second in sorted(first.after, key=lambda one: one.place):
            if second.group is None:
                continue
            between = not search.allowed(first, second)
            key = (search.pair_key(first, second), between)
            known = left.get(key)
            left[key] = (
                _left(search, first, second, between, why) if known is None else replace(known, count=known.count + 1)
            )
    return [*made, *left.values()]


def _left(search: FusionSearch, first: Node, second: Node, between: bool, why: Why | None) -> Edge:
    offer = search.offer(first, second)
    seconds, reason = offer.seconds, offer.reason
    if between:
        seconds, reason = math.inf, "another op lies between them"
    elif not reason and why is not None:
        reason = _asked(search, first, second, why)
    if not math.isfinite(seconds):
        reason = reason or "no schedule fits"
    return Edge(first.gives[-1].name, second.gives[-1].name, False, seconds, offer.apart, reason)


def _asked(search: FusionSearch, first: Node, second: Node, why: Why) -> str:
    try:
        return why(search.graph.try_merge(first, second).fusion())
    except NotFusable as reason:
        return str(reason)
