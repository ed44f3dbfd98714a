"""Partitions that were decided before: a block of the same structure is merged in the same steps, and nothing is searched."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Protocol

from codesign.ir.core import Block, Value
from codesign.passes.fusion.graph import GroupGraph
from codesign.passes.fusion.group import NotFusable
from codesign.passes.fusion.keys import group_key

Steps = list[tuple[int, int]]
"""Merges in order: the places of both groups in the graph as the merges before have left it."""


class Kept(Protocol):
    """Plain data of earlier runs by kind and key."""

    def get(self, kind: str, key: str) -> Any: ...

    def put(self, kind: str, key: str, data: Any) -> None: ...


def block_key(block: Block, graph: GroupGraph, *facts: object) -> str:
    """Equal for blocks of equal ops that are connected equally, under equal facts; ops that are no computes take no part in merging, and
    are told by their kind and operands."""
    places: dict[Value, int] = {}

    def place(value: Value) -> int:
        return places.setdefault(value, len(places))

    parts: list[Any] = [[[place(value), str(value.type)] for value in block.args]]
    for node in graph.nodes():
        name = group_key(node.group) if node.group is not None else node.op.opcode if node.op is not None else ""
        parts.append([name, [place(value) for value in node.reads], [[place(v), str(v.type)] for v in node.gives]])
    parts.append([place(value) for value in block.yields])
    return hashlib.sha256(json.dumps([parts, [str(fact) for fact in facts]]).encode()).hexdigest()


def replayed(graph: GroupGraph, steps: object) -> bool:
    """Merge a fresh graph in these steps; False, and the graph is of no more use, where they are not steps of this graph."""
    if not isinstance(steps, list):
        return False
    for step in steps:
        if not (isinstance(step, list | tuple) and len(step) == 2 and all(isinstance(place, int) for place in step)):
            return False
        if not all(0 <= place < len(graph.slots) for place in step):
            return False
        first, second = (graph.slots[place] for place in step)
        if first is None or second is None or first is second:
            return False
        try:
            graph.put(first, second, graph.try_merge(first, second))
        except NotFusable:
            return False
    return True
