"""Fusion as a search: policies find what they promise, memory is kept to, and each edge says why it is as it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.index import Bounds
from codesign.ir.scalar import Apply
from codesign.ir.tensor import Fusion
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.fuse import Fuse
from codesign.passes.fusion.beam import BeamFusion
from codesign.passes.fusion.chains import ChainFusion, chains
from codesign.passes.fusion.exhaustive import ExhaustiveFusion
from codesign.passes.fusion.explain import edges
from codesign.passes.fusion.graph import GroupGraph, Node
from codesign.passes.fusion.keys import group_key
from codesign.passes.fusion.policy import FusionPolicy, FusionSearch, GreedyFusion, policy_named
from codesign.passes.fusion.pricing import RooflinePricer
from codesign.passes.fusion.room import peak_bytes
from codesign.passes.planning import Choices, plan_module
from tests.passes import models

Pricer = Callable[[Fusion], float]
SEARCHES: dict[str, Callable[[], FusionPolicy]] = {
    "beam": BeamFusion,
    "dp": ChainFusion,
    "exhaustive": ExhaustiveFusion,
}


def searched(module: Module, pricer: Pricer, policy: FusionPolicy, memory: float = math.inf) -> FusionSearch:
    clean = optimize(module, pipeline=CLEAN_UP)
    search = FusionSearch(GroupGraph(clean.main.body, Bounds()), pricer, memory=memory)
    policy.decide(search)
    return search


def work(fusion: Fusion) -> int:
    return sum(isinstance(node, Apply) for compute in fusion.computes for node in compute.body.walk())


def chain(*functions: str) -> Module:
    b = models.Builder()
    value = b.input(64, 64)
    for function in functions:
        value = b.pointwise(function, value)
    return b.module(value)


def roofline(fusion: Fusion) -> float:
    return RooflinePricer(load_machine("h100_sxm"))(fusion)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_merge_that_costs_at_first_is_found(name: str) -> None:
    """Two of the three ops together are dear, all three are cheap."""
    prices = {1: 1.0, 2: 2.5, 3: 0.5}
    module = chain("exp", "tanh", "neg")
    assert searched(module, lambda fusion: prices[work(fusion)], GreedyFusion()).total == 3.0
    assert searched(module, lambda fusion: prices[work(fusion)], SEARCHES[name]()).total == 0.5


SMALL: dict[str, Callable[[], Module]] = {
    "softmax": models.softmax,
    "chain": lambda: chain("exp", "tanh", "neg", "erf"),
    "large softmax": lambda: models.softmax(4096, 1 << 16),
}


@pytest.mark.parametrize("name", SMALL)
def test_beam_is_as_good_as_looking_at_all_partitions(name: str) -> None:
    """By the roofline's prices, and by prices that hang on how much is together in no order."""
    for pricer in (
        roofline,
        lambda fusion: 1.0 + (work(fusion) * 7 % 5),
        lambda fusion: (work(fusion) * 11 % 8) / 4.0 + 0.5,
    ):
        every = searched(SMALL[name](), pricer, ExhaustiveFusion())
        assert searched(SMALL[name](), pricer, BeamFusion(width=8)).total == pytest.approx(every.total)
        assert every.total <= searched(SMALL[name](), pricer, GreedyFusion()).total


@pytest.mark.parametrize("model", [models.mlp, models.layer_norm])
def test_no_search_is_worse_than_greedy(model: Callable[[], Module]) -> None:
    greedy = searched(model(), roofline, GreedyFusion()).total
    for policy in (BeamFusion(), ChainFusion()):
        assert searched(model(), roofline, policy).total <= greedy * (1 + 1e-12)


class Pricing(FusionSearch):
    """A search that prices each pair when it comes up, not when it is its turn."""

    def most(self, first: Node, second: Node, *, beside: bool = False, closely: bool = False) -> float:
        return self.offer(first, second, beside=beside).gain


@pytest.mark.parametrize("model", [models.mlp, models.layer_norm, models.softmax, models.attention])
@pytest.mark.parametrize("salt", [0, 7, 11])
def test_pairs_priced_in_their_turn_are_merged_as_if_all_were_priced_at_once(
    model: Callable[[], Module], salt: int
) -> None:
    """By the roofline's prices, and by prices in no order; with fewer groups priced, and fewer yet with what they take at the least."""
    asked: list[int] = [0, 0, 0]
    totals = []
    for turn in range(3):

        def pricer(fusion: Fusion, turn: int = turn) -> float:
            asked[turn] += 1
            return roofline(fusion) if not salt else (work(fusion) * salt % 8) / 4.0 + 0.5

        def least(fusion: Fusion) -> float:
            return 0.8 * roofline(fusion) if not salt else (work(fusion) * salt % 8) / 4.0

        graph = GroupGraph(optimize(model(), pipeline=CLEAN_UP).main.body, Bounds())
        search = (FusionSearch, Pricing)[turn % 2](graph, pricer, least=least if turn == 2 else None)
        GreedyFusion().decide(search)
        totals.append(search.total)
    assert totals[0] == totals[1] == totals[2]
    assert asked[2] <= asked[0] <= asked[1]


@pytest.mark.parametrize("model", [models.mlp, models.layer_norm, models.softmax, models.attention])
def test_what_groups_call_their_dims_decides_nothing(
    model: Callable[[], Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither how far names were counted before, nor their order."""
    found = []
    for numbers in (range(10**7), range(10**6, 10**7), range(10**7, 0, -1)):
        monkeypatch.setattr("codesign.passes.fusion.group._counter", iter(numbers))
        search = FusionSearch(GroupGraph(optimize(model(), pipeline=CLEAN_UP).main.body, Bounds()), roofline)
        GreedyFusion().decide(search)
        found.append((search.steps, [group_key(node.group) for node in search.graph.groups() if node.group]))
    assert found[0] == found[1] == found[2]
    assert found[0][0]


def test_exhaustive_search_of_a_large_graph_is_refused() -> None:
    with pytest.raises(CodesignError, match=r"exhaustive fusion takes 10 operations at most, this model has \d+.*beam"):
        searched(models.attention(), roofline, ExhaustiveFusion())


def test_chains_are_lines_of_single_consumers() -> None:
    b = models.Builder()
    x = b.input(8, 8)
    first = b.pointwise("exp", x)
    second = b.pointwise("tanh", first)
    both = b.pointwise("add", b.pointwise("neg", second), b.pointwise("sin", second))
    search = FusionSearch(GroupGraph(b.module(b.pointwise("erf", both)).main.body, Bounds()), roofline)
    assert [[node.gives[0].name for node in line] for line in chains(search)] == [["v0", "v1"], ["v4", "v5"]]


def test_a_partition_that_fits_is_taken_before_a_faster_one() -> None:
    module = chain("exp", "tanh", "neg")
    tensor = 64 * 64 * 4

    def pricer(fusion: Fusion) -> float:
        return float(work(fusion)) ** 2  # apart is faster

    free = searched(module, pricer, ExhaustiveFusion())
    assert free.total == 3.0
    assert peak_bytes(free.graph, {}) == 3 * tensor  # the input is the caller's, and stays
    for policy in (ExhaustiveFusion(), BeamFusion()):
        tight = searched(module, pricer, policy, memory=2 * tensor)
        assert peak_bytes(tight.graph, {}) == 2 * tensor
        assert tight.total == 9.0


def test_edges_say_why() -> None:
    search = searched(models.mlp(512, 1024, 1024, 1024), roofline, GreedyFusion())
    found = edges(search, lambda fusion: "bound by tensor")
    together = [edge for edge in found if edge.fused]
    (apart,) = [edge for edge in found if not edge.fused]
    assert together
    assert all(edge.seconds < edge.apart for edge in together)
    assert apart.seconds >= apart.apart
    assert str(apart).endswith("bound by tensor")
    assert "apart, " in str(apart)
    assert " us fused against " in str(apart)


def test_what_no_schedule_fits_is_named() -> None:
    limit = "shared memory: needs 294,912 B, limit 232,448 B"

    def pricer(fusion: Fusion) -> float:
        return 1.0 if work(fusion) < 2 else math.inf

    search = searched(chain("exp", "tanh"), pricer, GreedyFusion())
    (edge,) = edges(search, lambda fusion: limit)
    assert str(edge) == f"%{edge.first} -> %{edge.second}: apart, {limit}"
    assert edge.to_json()["seconds"] is None


@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
def test_the_price_while_fusing_is_the_time_reported(machine: str) -> None:
    module = models.mlp(32, 64, 128, 64)
    for policy in ("none", "beam"):
        planned = plan_module(module, load_machine(machine), Choices(fusion=policy, explain_fusion=True, budget=64))
        fresh = {name: planned.tuner.price(info.fusion) for name, info in planned.kernels.items()}
        assert fresh == pytest.approx({name: info.tuned.seconds for name, info in planned.kernels.items()}, rel=1e-12)
        assert planned.edges
        for edge in planned.edges:
            assert set(edge.kernels) <= set(planned.kernels)
            assert len(edge.kernels) == (1 if edge.fused else 2), str(edge)


def test_policies_by_name() -> None:
    assert {type(policy_named(name)) for name in ("beam", "dp", "exhaustive")} == {
        BeamFusion, ChainFusion, ExhaustiveFusion,
    }  # fmt: skip
    context = Context(pricer=lambda fusion: 1.0)
    fused = Fuse(policy="exhaustive", explain=True).run(optimize(chain("exp", "tanh"), pipeline=CLEAN_UP), context)
    del fused
    assert [edge.fused for edge in context.fusion] == [True]
