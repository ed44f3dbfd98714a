"""Policies that choose the partition: which groups to merge, by predicted seconds.

A policy sees candidates (pairs of groups that one kernel could do) through a `FusionSearch`, which builds and prices a merge only
once per structure, and merges by calling `accept`. Register a policy with `fusion_policy`.
"""

from __future__ import annotations

import difflib
import heapq
import importlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from codesign.ir.analysis import contraction
from codesign.ir.core import Value
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.tensor import Fusion
from codesign.ir.tiling.strands import nests
from codesign.passes.context import LimitedPricer, Pricer
from codesign.passes.fusion.graph import GroupGraph, Node
from codesign.passes.fusion.group import Group, NotFusable
from codesign.passes.fusion.keys import group_key
from codesign.passes.fusion.room import peak_bytes


@dataclass(frozen=True)
class Offer:
    """What merging a pair would bring: predicted seconds of the merged group and of the two apart, or why it can't be.

    `sure`: the merged group takes these seconds; else these at the least, and no fewer than the two apart.
    """

    seconds: float
    apart: float
    reason: str = ""
    sure: bool = True

    @property
    def gain(self) -> float:
        """Seconds saved; minus infinity when the pair can't be merged."""
        return self.apart - self.seconds if math.isfinite(self.seconds) else -math.inf


@dataclass(frozen=True)
class Tried:
    """What a pair would become, not priced yet: the op that is priced, the key of its group, and seconds of the two `apart`."""

    fusion: Fusion
    key: str
    apart: float


@dataclass(frozen=True)
class Merge:
    """Two groups that became one, by the last values that they give; so often in the block."""

    first: str
    second: str
    offer: Offer
    count: int = 1


@dataclass
class FusionSearch:
    """The state of a search: the graph of groups, and prices and offers by structure."""

    graph: GroupGraph
    pricer: Pricer
    prices: dict[Hashable, float] = field(default_factory=dict)
    offers: dict[Hashable, Offer] = field(default_factory=dict)
    steps: list[tuple[int, int]] = field(default_factory=list)
    """Places of the groups that were merged, in order."""
    largest: int = 64
    """Members that a group may have at most."""
    chain: int = 2
    """Matrix products that may feed each other in one group (attention has two): cost models are not validated beyond it."""
    memory: float = math.inf
    """Bytes of the machine's memory."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    made: dict[Hashable, Merge] = field(default_factory=dict)
    """The merges that were accepted, equal ones once."""
    below: LimitedPricer | None = None
    """The pricer, for who only wants to know prices below a limit."""
    least: Pricer | None = None
    """Seconds that no schedule of a group beats, sooner known than its price."""
    tried: dict[Hashable, tuple[Tried, float]] = field(default_factory=dict)
    """What pairs that have no offer yet would become, and what that takes at the least."""

    @property
    def merges(self) -> int:
        """How many merges were accepted."""
        return len(self.steps)

    def key(self, node: Node) -> str:
        """Structural key of a node's group."""
        assert node.group is not None
        return group_key(node.group)

    def seconds(self, group: Group, key: Hashable) -> float:
        """Predicted seconds of a group, asked of the pricer once per structure; infinite for what it can't lower."""
        return self.prices[key] if key in self.prices else self._asked(group.fusion(), key)

    def _asked(self, fusion: Fusion, key: Hashable) -> float:
        """Predicted seconds of an op by the key of its group."""
        if key not in self.prices:
            try:
                self.prices[key] = self.pricer(fusion)
            except UnsupportedError:
                self.prices[key] = math.inf
        return self.prices[key]

    def node_seconds(self, node: Node) -> float:
        """Predicted seconds of a node's group."""
        assert node.group is not None
        return self.seconds(node.group, self.key(node))

    def offer(self, first: Node, second: Node, *, beside: bool = False, sure: bool = True) -> Offer:
        """What merging the pair brings (not whether the graph allows it: see `allowed`).

        `beside`: their programs may only lie side by side in one kernel; else they are to share a loop nest. Not `sure`: what an offer
        that saves nothing is about is not worked out to its end.
        """
        key = (self.pair_key(first, second), beside)
        found = self.offers.get(key)
        if found is None or (sure and not found.sure):
            tried, least = self.tried.pop(key, (None, 0.0))
            merged = tried or self._try(first, second, beside)
            found = self.offers[key] = merged if isinstance(merged, Offer) else self._priced(merged, least, sure)
        return found

    def most(self, first: Node, second: Node, *, beside: bool = False, closely: bool = False) -> float:
        """Seconds that merging the pair can save: what it saves where that is known, else those of the two apart, or beside each other of
        the one that takes less; `closely`, less what the merged group takes at the least."""
        key = (self.pair_key(first, second), beside)
        known = self.offers.get(key)
        if known is not None:
            return known.gain
        if not closely or self.least is None:
            apart = self.node_seconds(first), self.node_seconds(second)
            return min(apart) if beside else sum(apart)
        if key not in self.tried:
            merged = self._try(first, second, beside)
            if isinstance(merged, Offer):
                self.offers[key] = merged
                return merged.gain
            self.tried[key] = merged, self._least(merged)
        tried, least = self.tried[key]
        return tried.apart - least

    def _least(self, merged: Tried) -> float:
        """Seconds that the merged group takes at the least."""
        assert self.least is not None
        try:
            return self.prices[merged.key] if merged.key in self.prices else self.least(merged.fusion)
        except UnsupportedError:
            return math.inf

    def _try(self, first: Node, second: Node, beside: bool) -> Tried | Offer:
        """What the pair would become, or the offer that says why it can't be merged."""
        apart = self.node_seconds(first) + self.node_seconds(second)
        assert first.group is not None
        assert second.group is not None
        if len(first.group.computes) + len(second.group.computes) > self.largest:
            return Offer(math.inf, apart, f"more than {self.largest} members")
        try:
            merged = self.graph.try_merge(first, second)
        except NotFusable as reason:
            return Offer(math.inf, apart, str(reason))
        given = len(nests(first.group.computes)), len(nests(second.group.computes))
        if beside != (len(nests(merged.computes)) > max(given)):
            return Offer(math.inf, apart, "their programs share loops" if beside else "they share no loop")
        depth = chain_length(merged)
        if depth > self.chain:
            return Offer(math.inf, apart, f"{depth} matrix products in a chain, limit {self.chain}")
        return Tried(merged.fusion(), group_key(merged), apart)

    def _priced(self, merged: Tried, least: float, sure: bool) -> Offer:
        """The offer of what a pair would become, which takes so much at the least."""
        fusion, key, apart = merged.fusion, merged.key, merged.apart
        if sure or self.below is None or key in self.prices:
            return Offer(self._asked(fusion, key), apart)
        if least >= apart:
            return Offer(least, apart, sure=False)
        try:
            seconds = self.below(fusion, apart)
        except UnsupportedError:
            seconds = math.inf
        if seconds < apart or math.isinf(seconds):
            self.prices[key] = seconds
        return Offer(seconds, apart, sure=key in self.prices)

    def pair_key(self, first: Node, second: Node) -> Hashable:
        """Equal for pairs that become the same where they are merged."""
        return self.graph.pair_key(first, second)

    def allowed(self, first: Node, second: Node) -> bool:
        """Both are still in the graph, and merging them makes no cycle."""
        slots = self.graph.slots
        if slots[first.place] is not first or slots[second.place] is not second:
            return False
        if (
            second.place < first.place
        ):  # earlier merges moved one: they may still be siblings, not consumer and producer
            return second not in first.before and not self.graph.indirect_path(second, first)
        return not self.graph.indirect_path(first, second)

    def accept(self, first: Node, second: Node, *, beside: bool = False) -> Node | None:
        """Merge the pair, which was offered so; None when it turns out that it can't be."""
        try:
            merged = self.graph.try_merge(first, second)
        except NotFusable:
            return None
        self.steps.append((first.place, second.place))
        key = self.pair_key(first, second)
        known = self.made.get(key)
        names = (first.gives[-1].name, second.gives[-1].name)
        self.made[key] = (
            replace(known, count=known.count + 1) if known else Merge(*names, self.offer(first, second, beside=beside))
        )
        return self.graph.put(first, second, merged)

    def branch(self) -> FusionSearch:
        """A search that goes its own way from here, with what prices and offers are known in common."""
        return replace(self, graph=self.graph.clone(), steps=list(self.steps), made=dict(self.made))

    def take(self, other: FusionSearch) -> None:
        """Go on from where a branch arrived."""
        self.graph, self.steps, self.made = other.graph, other.steps, other.made

    @property
    def total(self) -> float:
        """Predicted seconds of all groups."""
        return sum(self.node_seconds(node) for node in self.graph.groups())

    @property
    def standing(self) -> tuple[float, float]:
        """What a search makes least: the bytes that the memory lacks, then seconds."""
        lacks = 0.0 if math.isinf(self.memory) else max(peak_bytes(self.graph, self.sizes) - self.memory, 0.0)
        return lacks, self.total

    def neighbours(self, node: Node) -> Iterator[tuple[Node, Node]]:
        """Pairs (earlier, later) of the node with its producers and consumers, groups that feed the same consumer, and groups that
        read what it reads; always in the same order.
        """
        found: set[Node] = {*node.before, *node.after}
        if len(node.after) <= _MANY:
            for consumer in node.after:
                if len(consumer.before) <= _MANY:
                    found.update(consumer.before)
        for value in node.reads:
            users = self.graph.users.get(value, ())
            if len(users) <= _MANY:
                found.update(users)
        for other in sorted(found, key=lambda one: one.place):
            if other.group is not None and other is not node:
                yield (other, node) if other.place < node.place else (node, other)


_MANY = 8
"""Siblings through a value with more readers than this are not tried in pairs."""


def chain_length(group: Group) -> int:
    """Most matrix products of the group of which each needs the one before."""
    depth: dict[Value, int] = {}
    for op in group.computes:
        longest = max((depth.get(value, 0) for value in op.operands()), default=0)
        depth[op.result] = longest + (contraction(op) is not None)
    return max(depth.values(), default=0)


class FusionPolicy(Protocol):
    """Decides the partition by merging groups of the search until it is content."""

    def decide(self, search: FusionSearch) -> None: ...


POLICIES: dict[str, Callable[[], FusionPolicy]] = {}


def fusion_policy(name: str) -> Callable[[Callable[[], FusionPolicy]], Callable[[], FusionPolicy]]:
    """Decorator: registers a policy under a name for `fuse{policy=name}`."""

    def enter(make: Callable[[], FusionPolicy]) -> Callable[[], FusionPolicy]:
        POLICIES[name] = make
        return make

    return enter


def _made(name: str, factory: Any) -> FusionPolicy:
    policy = factory()
    if not callable(getattr(policy, "decide", None)):
        raise CodesignError(
            f"fusion policy {name!r} has no method decide", hint="see codesign.passes.fusion.policy.FusionPolicy"
        )
    return cast(FusionPolicy, policy)


def policy_named(name: str) -> FusionPolicy:
    """A policy by its registered name, by entry point `codesign.fusion_policies`, or as `package.module:Class`."""
    if name in POLICIES:
        return POLICIES[name]()
    found = {point.name: point for point in entry_points(group="codesign.fusion_policies")}
    try:
        if name in found:
            return _made(name, found[name].load())
        if ":" in name:
            module, _, attribute = name.partition(":")
            return _made(name, getattr(importlib.import_module(module), attribute))
    except CodesignError:
        raise
    except Exception as error:  # a file of the user's may fail in any way
        raise CodesignError(f"fusion policy {name!r} can't be loaded: {error}") from error
    known = sorted({*POLICIES, *found})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
    raise CodesignError(f"unknown fusion policy {name!r}", hint=f"nearest: {', '.join(near)}, or package.module:Class")


@fusion_policy("none")
class NoFusion:
    """Every compute is a kernel of its own."""

    def decide(self, search: FusionSearch) -> None:
        return


@fusion_policy("greedy")
class GreedyFusion:
    """Merge the pair that saves most predicted seconds, again and again, while any saves.

    Pairs without reductions come first, then element-wise work on the result of a reduction, then the rest: a chain of element-wise
    ops should be whole before it is placed, and it costs least where its operand is still on chip and already narrow. What only a
    reduction reads is priced in both places, with its producers and there, and goes there first where that saves more.
    `tiers`: how many of these kinds of pairs are merged at all.
    """

    def __init__(self, tiers: int = 3) -> None:
        self.tiers = tiers

    def decide(self, search: FusionSearch) -> None:
        def tier(first: Node, second: Node) -> int | None:
            found = 0 if _belongs_to_reader(search, first, second) else _tier(first, second)
            return found if found < self.tiers else None

        merge_best_first(search, tier)


def merge_best_first(search: FusionSearch, tier: Callable[[Node, Node], int | None], *, beside: bool = False) -> None:
    """Merge the pair of the lowest tier that saves most, again and again, while any saves; no pair of tier None."""
    ticket = itertools.count()
    heap: list[tuple[int, float, int, Node, Node]] = []

    def push(first: Node, second: Node) -> None:
        most = search.most(first, second, beside=beside)
        level = tier(first, second) if most > 0 else None
        if level is not None:
            heapq.heappush(heap, (level, -most, next(ticket), first, second))

    for node in list(search.graph.groups()):
        for first, second in search.neighbours(node):
            if first is node:  # each pair once
                push(first, second)
    while heap:
        level, negative, place, first, second = heapq.heappop(heap)
        if not search.allowed(first, second):
            continue
        now = search.most(first, second, beside=beside, closely=True)
        if now >= -negative:  # priced only now, and users may have changed since it was pushed
            now = search.offer(first, second, beside=beside, sure=False).gain
        if now <= 0:
            continue
        if now < -negative:
            heapq.heappush(heap, (level, -now, place, first, second))
            continue
        merged = search.accept(first, second, beside=beside)
        if merged is not None:
            for pair in search.neighbours(merged):
                push(*pair)


def lay_side_by_side(search: FusionSearch) -> None:
    """Give groups one launch whose programs have no loops in common, last of all: it forecloses every other way to merge them."""
    merge_best_first(search, lambda first, second: 0, beside=True)


def _tier(first: Node, second: Node) -> int:
    """0: neither reduces; 1: the second is element-wise work on the first's result; 2: all other pairs."""
    return 2 if _reduces(second) else 1 if _reduces(first) else 0


def _belongs_to_reader(search: FusionSearch, first: Node, second: Node) -> bool:
    """Whether the first is element-wise work that only the second reads, a reduction, and saves more there than with any producer.

    Not so of a matrix product, each tile of which would do it again.
    """
    if _reduces(first) or not _reduces(second) or (second.group is not None and chain_length(second.group)):
        return False
    if any(search.graph.needed_outside(value, (first, second)) for value in first.gives):
        return False
    own = search.most(first, second, closely=True)
    if own > 0:
        own = search.offer(first, second, sure=False).gain
    producers = (one for one in first.before if one.group is not None and search.allowed(one, first))
    return own > 0 and all(
        search.most(one, first, closely=True) < own or search.offer(one, first, sure=False).gain < own
        for one in producers
    )


def _reduces(node: Node) -> bool:
    return node.group is not None and any(op.reductions for op in node.group.computes)
