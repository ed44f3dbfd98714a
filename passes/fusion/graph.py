"""The graph of groups and other ops of one block, kept in topological order while groups merge."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace

from codesign.ir.core import Block, Op, Value
from codesign.ir.index import Bounds
from codesign.ir.tensor import Compute, Fusion
from codesign.passes.fusion.group import Group, NotFusable, single
from codesign.passes.fusion.keys import group_key
from codesign.passes.fusion.merge import merge
from codesign.passes.fusion.twins import Merged, told_by_key


@dataclass(eq=False)
class Node:
    """A group, or an op that is no compute; `place` grows along every edge.

    `members`: the positions in the block of the ops that it is made of. `closed`: a search has decided on it.
    """

    op: Op | None
    group: Group | None
    place: int
    reads: tuple[Value, ...]
    gives: tuple[Value, ...]
    before: set[Node] = field(default_factory=set)
    after: set[Node] = field(default_factory=set)
    members: frozenset[int] = frozenset()
    closed: bool = False


class GroupGraph:
    """Nodes of a block, edges by value, and merging that keeps the graph acyclic."""

    def __init__(self, block: Block, outer: Bounds) -> None:
        self.outer = outer
        self.returned = set(block.yields)
        self.slots: list[Node | None] = []
        self.giver: dict[Value, Node] = {}
        self.users: dict[Value, set[Node]] = {}
        self.merged: dict[Hashable, Merged] = {}
        """By the key of the pair, what the first of equal pairs became."""
        for op in block.ops:
            group = single(op) if isinstance(op, Compute) else None
            here = len(self.slots)
            node = Node(op, group, here, op.uses(), tuple(op.results), members=frozenset({here}))
            self.slots.append(node)
            self._connect(node)

    def _connect(self, node: Node) -> None:
        for value in node.gives:
            self.giver[value] = node
        for value in node.reads:
            self.users.setdefault(value, set()).add(node)
            giver = self.giver.get(value)
            if giver is not None and giver is not node:
                giver.after.add(node)
                node.before.add(giver)

    def nodes(self) -> Iterator[Node]:
        """All nodes in topological order."""
        return (node for node in self.slots if node is not None)

    def groups(self) -> Iterator[Node]:
        """Nodes that are groups, in topological order."""
        return (node for node in self.nodes() if node.group is not None)

    def needed_outside(self, value: Value, members: tuple[Node, ...]) -> bool:
        """The value is returned, or used by a node that is not among the members."""
        return value in self.returned or any(user not in members for user in self.users.get(value, ()))

    def indirect_path(self, first: Node, second: Node) -> bool:
        """A path leads from first to second through another node, so that merging them would make a cycle."""
        return bool(self._between(first, second) & second.before)

    def _between(self, first: Node, second: Node) -> set[Node]:
        """Nodes reachable from first that come before second in the order."""
        seen: set[Node] = set()
        stack = [node for node in first.after if node is not second]
        while stack:
            node = stack.pop()
            if node in seen or node.place >= second.place:
                continue
            seen.add(node)
            stack.extend(node.after)
        return seen

    def pair_key(self, first: Node, second: Node) -> Hashable:
        """Equal for pairs of equal groups that are connected equally, and whose first group's values are needed equally."""
        assert first.group is not None
        assert second.group is not None
        place: dict[Value, int] = {value: -1 - i for i, value in enumerate(first.gives)}
        place.update({value: i for i, value in enumerate(first.reads)})
        links = tuple(place.get(value) for value in second.reads)
        needed = tuple(self.needed_outside(value, (first, second)) for value in first.gives)
        return group_key(first.group), group_key(second.group), links, needed

    def try_merge(self, first: Node, second: Node) -> Group:
        """The merged group of two nodes, without changing the graph; NotFusable says why there is none."""
        if first.group is None or second.group is None:
            raise NotFusable("an op that is no compute")
        key = self.pair_key(first, second)
        known = self.merged.get(key)
        twin = known.twin(first.group, second.group) if known is not None else None
        if twin is not None:
            return twin
        keep = {value for value in first.gives if self.needed_outside(value, (first, second))}
        result = merge(first.group, second.group, keep, self.outer)
        if known is None and told_by_key(first.group) and told_by_key(second.group):
            self.merged[key] = Merged(first.group, second.group, result)
        return result

    def put(self, first: Node, second: Node, group: Group) -> Node:
        """Replace two nodes by one with the merged group, keeping the order topological."""
        if second.place < first.place:  # siblings, of which earlier merges moved one
            first, second = second, first
        reachable = self._between(first, second)
        window = [node for node in self.slots[first.place : second.place + 1] if node is not None]
        early = [node for node in window if node not in reachable and node is not first and node is not second]
        late = [node for node in window if node in reachable]
        members = first.members | second.members
        merged = Node(None, group, 0, group.external, tuple(group.outputs), members=members)
        for old in (first, second):
            self._forget(old)
        places = [node.place for node in window]
        for place, node in zip(places, [*early, merged, *late], strict=False):
            self.slots[place] = node
            node.place = place
        self.slots[places[-1]] = None
        self._connect(merged)
        for value in merged.gives:
            for user in self.users.get(value, ()):
                if user is not merged:
                    merged.after.add(user)
                    user.before.add(merged)
        return merged

    def clone(self) -> GroupGraph:
        """The same graph with nodes of its own, over the same groups."""
        twins = {node: replace(node, before=set(), after=set()) for node in self.nodes()}
        for node, twin in twins.items():
            twin.before.update(twins[other] for other in node.before)
            twin.after.update(twins[other] for other in node.after)
        other = copy(self)
        other.slots = [None if node is None else twins[node] for node in self.slots]
        other.giver = {value: twins[node] for value, node in self.giver.items() if node in twins}
        other.users = {value: {twins[node] for node in users} for value, users in self.users.items()}
        return other

    @property
    def partition(self) -> frozenset[frozenset[int]]:
        """Which ops are together."""
        return frozenset(node.members for node in self.groups() if len(node.members) > 1)

    def _forget(self, node: Node) -> None:
        for value in node.reads:
            self.users[value].discard(node)
        for other in node.before:
            other.after.discard(node)
        for other in node.after:
            other.before.discard(node)
        self.slots[node.place] = None

    def write(self, block: Block) -> None:
        """Put a fusion for every group into the block, in place of its computes."""
        ops: list[Op] = []
        mapping: dict[Value, Value] = {}
        for node in self.nodes():
            if node.group is None:
                assert node.op is not None
                if mapping:
                    node.op.replace(mapping)
                ops.append(node.op)
                continue
            fusion: Fusion = node.group.fusion()
            if mapping:
                fusion.replace(mapping)
            mapping.update(zip(node.group.outputs, fusion.results, strict=True))
            ops.append(fusion)
        block.ops = ops
        block.yields = tuple(mapping.get(value, value) for value in block.yields)
