"""The memory that a partition needs: what lies in memory between its groups, at the most at once."""

from __future__ import annotations

from collections.abc import Mapping

from codesign.ir.core import Value
from codesign.ir.types import TensorType
from codesign.passes.fusion.graph import GroupGraph
from codesign.passes.memory import value_bytes


def peak_bytes(graph: GroupGraph, sizes: Mapping[str, int]) -> float:
    """Bytes that lie in memory at the most at once when the groups run in the graph's order, with what comes from outside and is returned.

    Symbols without a value count as one.
    """
    last: dict[Value, int] = {}
    nodes = list(graph.nodes())
    for step, node in enumerate(nodes):
        last.update(dict.fromkeys(node.reads, step))
        for value in node.gives:
            last.setdefault(value, step)
    given = {value for node in nodes for value in node.gives}
    live = sum(_bytes(value, sizes) for value in last if value not in given)
    peak = live
    ends: dict[int, list[Value]] = {}
    for value, step in last.items():
        if value in given and value not in graph.returned:
            ends.setdefault(step, []).append(value)
    for step, node in enumerate(nodes):
        live += sum(_bytes(value, sizes) for value in node.gives)
        peak = max(peak, live)
        live -= sum(_bytes(value, sizes) for value in ends.get(step, ()))
    return peak


def _bytes(value: Value, sizes: Mapping[str, int]) -> float:
    if not isinstance(value.type, TensorType):
        return 0.0
    names = {name for size in value.shape for name in size.variables()}
    return float(value_bytes(value, {**dict.fromkeys(names, 1), **sizes}))
