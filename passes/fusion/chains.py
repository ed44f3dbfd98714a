"""Dynamic programming over chains: the best cut of each straight line of producers and consumers into kernels."""

from __future__ import annotations

import math

from codesign.passes.fusion.graph import Node
from codesign.passes.fusion.policy import FusionSearch, GreedyFusion, fusion_policy

LONGEST = 16
"""Groups of a chain that are looked at together."""


@fusion_policy("dp")
class ChainFusion:
    """Chains are cut best, then greedy merges what branches; or greedy alone, where that is better."""

    def decide(self, search: FusionSearch) -> None:
        greedy, cut = search.branch(), search.branch()
        GreedyFusion().decide(greedy)
        for chain in chains(cut):
            for first, last in _best_cut(cut, chain):
                _merge(cut, [chain[i] for i in range(first, last + 1)])
        GreedyFusion().decide(cut)
        search.take(min(greedy, cut, key=lambda one: one.standing))


def chains(search: FusionSearch) -> list[list[Node]]:
    """Runs of groups of which each is the only consumer of the one before, and that its only producer among groups."""
    found: list[list[Node]] = []
    taken: set[Node] = set()
    for node in search.graph.groups():
        if node in taken:
            continue
        chain = [node]
        while len(chain) < LONGEST and (after := _follower(chain[-1])) is not None and after not in taken:
            chain.append(after)
        if len(chain) > 1:
            taken.update(chain)
            found.append(chain)
    return found


def _follower(node: Node) -> Node | None:
    if len(node.after) != 1:
        return None
    (after,) = node.after
    alone = sum(one.group is not None for one in after.before) == 1
    return after if after.group is not None and alone else None


def _best_cut(search: FusionSearch, chain: list[Node]) -> list[tuple[int, int]]:
    """The first and last positions of the parts that are merged."""
    count = len(chain)
    price = [[math.inf] * count for _ in chain]
    for first in range(count):
        price[first][first] = search.node_seconds(chain[first])
        branch = search.branch()
        nodes = [branch.graph.slots[node.place] for node in chain]
        whole = nodes[first]
        for last in range(first + 1, count):
            follower = nodes[last]
            if whole is None or follower is None or branch.offer(whole, follower).reason:
                break
            price[first][last] = branch.offer(whole, follower).seconds
            whole = branch.accept(whole, follower)
    best: list[tuple[float, int]] = [(0.0, 0)]  # seconds of the first so many, and where their last part begins
    for last in range(count):
        best.append(min((best[first][0] + price[first][last], first) for first in range(last + 1)))
    parts: list[tuple[int, int]] = []
    end = count
    while end:
        first = best[end][1]
        if end - first > 1:
            parts.append((first, end - 1))
        end = first
    return parts


def _merge(search: FusionSearch, nodes: list[Node]) -> None:
    whole: Node | None = nodes[0]
    for node in nodes[1:]:
        whole = None if whole is None else search.accept(whole, node)
