"""Every partition that merging pairs can make, for small graphs."""

from __future__ import annotations

import math
from collections.abc import Hashable

from codesign.ir.errors import CodesignError
from codesign.passes.fusion.policy import FusionSearch, fusion_policy

MOST_GROUPS = 10
"""Groups of a block that may be searched so."""

MOST_PARTITIONS = 4096
"""Partitions that are looked at before the search gives up."""


@fusion_policy("exhaustive")
class ExhaustiveFusion:
    """The best of all partitions; CodesignError for a graph that has too many."""

    def decide(self, search: FusionSearch) -> None:
        groups = sum(1 for _ in search.graph.groups())
        if groups > MOST_GROUPS:
            raise CodesignError(
                f"exhaustive fusion takes {MOST_GROUPS} operations at most, this model has {groups}",
                hint="--fusion beam searches graphs of any size",
            )
        seen = {_signature(search)}
        pending = [search.branch()]
        best = pending[0]
        while pending:
            state = pending.pop()
            best = min(best, state, key=lambda one: one.standing)
            for node in list(state.graph.groups()):
                for first, second in list(state.neighbours(node)):
                    if (
                        first is not node
                        or math.isinf(state.offer(first, second).seconds)
                        or not state.allowed(first, second)
                    ):
                        continue
                    branch = state.branch()
                    left, right = (branch.graph.slots[one.place] for one in (first, second))
                    assert left is not None
                    assert right is not None
                    if branch.accept(left, right) is None or _signature(branch) in seen:
                        continue
                    seen.add(_signature(branch))
                    if len(seen) > MOST_PARTITIONS:
                        raise CodesignError(
                            f"exhaustive fusion: more than {MOST_PARTITIONS:,} partitions",
                            hint="--fusion beam searches graphs of any size",
                        )
                    pending.append(branch)
        search.take(best)


def _signature(search: FusionSearch) -> Hashable:
    """What is together, and how: a group follows from its members but for what was inlined on the way."""
    return frozenset((node.members, search.key(node)) for node in search.graph.groups())
