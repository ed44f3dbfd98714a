"""The greedy policy: what it merges first, and that a pair waits for those that may save more than it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from codesign.ir.location import UNKNOWN
from codesign.passes.fusion.graph import Node
from codesign.passes.fusion.group import Group
from codesign.passes.fusion.policy import FusionSearch, GreedyFusion, Offer


class Offers:
    """What pairs of nodes save by name: at the most, at the most as seen more closely (or not), and as priced. Merging two removes them."""

    def __init__(self, gains: dict[str, list[float]]) -> None:
        empty = Group((), {}, UNKNOWN)
        names = sorted({name for pair in gains for name in pair})
        self.nodes = {name: Node(None, empty, place, (), ()) for place, name in enumerate(names)}
        self.names = {node: name for name, node in self.nodes.items()}
        self.gains = gains
        self.merged: list[str] = []
        self.priced: list[str] = []

    @property
    def graph(self) -> Offers:
        return self

    def groups(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def neighbours(self, node: Node) -> Iterator[tuple[Node, Node]]:
        for pair in self.gains:
            if self.names.get(node, "") in pair:
                yield self.nodes[pair[0]], self.nodes[pair[1]]

    def most(self, first: Node, second: Node, *, beside: bool = False, closely: bool = False) -> float:
        left = self.gains[self.names[first] + self.names[second]]
        if closely and len(left) > 2:
            left.pop(0)
        return left[0]

    def offer(self, first: Node, second: Node, *, beside: bool = False, sure: bool = True) -> Offer:
        assert not beside
        pair = self.names[first] + self.names[second]
        self.priced.append(pair)
        del self.gains[pair][:-1]
        return Offer(0.0, self.gains[pair][0])

    def allowed(self, first: Node, second: Node) -> bool:
        gone = "".join(self.merged)
        return self.names[first] not in gone and self.names[second] not in gone

    def accept(self, first: Node, second: Node, *, beside: bool = False) -> Node:
        self.merged.append(self.names[first] + self.names[second])
        return Node(None, Group((), {}, UNKNOWN), 99, (), ())


def searched(gains: dict[str, list[float]]) -> Offers:
    search = Offers(gains)
    GreedyFusion().decide(cast(FusionSearch, cast(Any, search)))
    return search


def decided(gains: dict[str, list[float]]) -> list[str]:
    return searched(gains).merged


def test_the_greatest_gain_goes_first() -> None:
    assert decided({"ab": [1.0], "cd": [3.0], "ef": [2.0]}) == ["cd", "ef", "ab"]
    assert decided({"ab": [1.0], "bc": [3.0]}) == ["bc"]


def test_an_offer_that_is_worse_than_it_may_be_waits_for_better_ones() -> None:
    assert decided({"ab": [10.0, 1.0], "bc": [5.0], "de": [3.0]}) == ["bc", "de"]
    assert decided({"ab": [10.0, 1.0], "cd": [5.0]}) == ["cd", "ab"]


def test_an_offer_that_saves_nothing_is_dropped() -> None:
    assert decided({"ab": [10.0, -1.0], "cd": [5.0]}) == ["cd"]
    assert decided({"ab": [10.0, 0.0]}) == []
    assert decided({"ab": [0.0]}) == []


def test_a_pair_is_priced_when_none_may_save_more() -> None:
    search = searched({"ab": [10.0, 2.0, 1.0], "bc": [5.0]})
    assert search.merged == ["bc"]
    assert search.priced == ["bc"]
    assert decided({"ab": [10.0, 2.0, 1.0], "cd": [5.0], "ef": [1.5]}) == ["cd", "ef", "ab"]
    assert decided({"ab": [10.0, 2.0, 1.0], "cd": [5.0], "ef": [0.5]}) == ["cd", "ab", "ef"]
