"""Beam search over partitions: group after group in order, each grown by any of its neighbours or left, the best few ways kept."""

from __future__ import annotations

from codesign.passes.fusion.graph import Node
from codesign.passes.fusion.policy import FusionSearch, GreedyFusion, fusion_policy

WIDTH = 4
"""Partitions that are kept at each step."""

SMALL = 24
"""Groups up to which the search begins with every op apart; of larger graphs element-wise chains are made whole first."""


@fusion_policy("beam")
class BeamFusion:
    """The best of what greedy finds and of a sweep that keeps several partitions, merges that cost at first among them."""

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width

    def decide(self, search: FusionSearch) -> None:
        greedy = search.branch()
        GreedyFusion().decide(greedy)
        start = search.branch()
        if sum(1 for _ in start.graph.groups()) > SMALL:
            GreedyFusion(tiers=1).decide(start)
        found = [greedy]
        for swept in self._sweep(start):
            GreedyFusion().decide(swept)  # what no group could take while it grew
            found.append(swept)
        search.take(min(found, key=lambda one: one.standing))

    def _sweep(self, start: FusionSearch) -> list[FusionSearch]:
        states = [(start.total, start)]
        while any(_open(state) is not None for _, state in states):
            children: list[tuple[float, int, FusionSearch, tuple[Node, Node] | None]] = []
            for seconds, state in states:
                node = _open(state)
                children.append((seconds, len(children), state, None))
                for first, second in () if node is None else list(state.neighbours(node)):
                    gain = state.offer(first, second).gain
                    if not (first.closed or second.closed) and gain > -seconds and state.allowed(first, second):
                        children.append((seconds - gain, len(children), state, (first, second)))
            states = self._best(children)
        return [state for _, state in states]

    def _best(
        self, children: list[tuple[float, int, FusionSearch, tuple[Node, Node] | None]]
    ) -> list[tuple[float, FusionSearch]]:
        """The best children, each partition once; a state goes on itself as the one that leaves its open group as it is."""
        kept: list[tuple[float, FusionSearch, FusionSearch, tuple[int, int] | None]] = []
        seen = set()
        for seconds, _, state, pair in sorted(children, key=lambda child: child[:2]):
            if len(kept) == self.width:
                break
            partition = state.graph.partition
            if pair is not None:
                both = pair[0].members | pair[1].members
                partition = frozenset({both, *(part for part in partition if not part <= both)})
            place = None if pair is None else (pair[0].place, pair[1].place)
            node = _open(state)
            signature = (partition, pair is None, None if node is None else node.place)
            if signature not in seen:
                seen.add(signature)
                kept.append((seconds, state.branch(), state, place))
        found: list[tuple[float, FusionSearch]] = []
        for seconds, branch, _, place in kept:
            if place is None:
                node = _open(branch)
                if node is not None:
                    node.closed = True
                found.append((seconds, branch))
                continue
            first, second = (branch.graph.slots[at] for at in place)
            if first is not None and second is not None and branch.accept(first, second) is not None:
                found.append((seconds, branch))
        return found


def _open(search: FusionSearch) -> Node | None:
    """The first group that is not decided on."""
    return next((node for node in search.graph.groups() if not node.closed), None)
