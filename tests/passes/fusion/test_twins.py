"""A merge like an earlier one gives what merging anew would: the same computes over the pair's own values, names and places."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from codesign.costmodel.machine import load_machine
from codesign.frontend import capture
from codesign.ir.structure import structural_hash
from codesign.passes import optimize
from codesign.passes.fusion.graph import GroupGraph, Node
from codesign.passes.fusion.group import Group
from codesign.passes.fusion.merge import merge
from codesign.passes.fusion.policy import FusionSearch, lay_side_by_side, policy_named
from codesign.passes.fusion.pricing import RooflinePricer
from codesign.passes.writes.place import write_values_apart

CLEAN = "canonicalize,constant-fold,fold-views,canonicalize,cse,dce"


class Layer(nn.Module):
    """Norms, a gated product whose halves are views, and attention over heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.LayerNorm(width)])
        self.mix, self.up, self.down = nn.Linear(width, width), nn.Linear(width, 4 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        heads = self.mix(self.norms[0](x)).view(batch, length, 2, -1).transpose(1, 2)
        scores = (heads @ heads.mT).softmax(-1) @ heads
        x = x + scores.transpose(1, 2).reshape(batch, length, width)
        gate, value = self.up(self.norms[1](x)).chunk(2, -1)
        result: torch.Tensor = x + self.down(nn.functional.silu(gate) * value)
        return result


class Rows(nn.Module):
    """Rows chosen by numbers that are themselves read at positions from data."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = x.abs().sum(-1).long() % 5
        result: torch.Tensor = (x * self.table[chosen] + self.table[chosen, chosen % 4].unsqueeze(-1)).tanh()
        return result


class Compared(GroupGraph):
    """Merges everything both ways."""

    known = 0

    def try_merge(self, first: Node, second: Node) -> Group:
        before = self.merged.get(self.pair_key(first, second))
        found = super().try_merge(first, second)
        assert first.group is not None
        assert second.group is not None
        keep = {value for value in first.gives if self.needed_outside(value, (first, second))}
        anew = merge(first.group, second.group, keep, self.outer)
        self.known += before is not None
        assert structural_hash(found.fusion()) == structural_hash(anew.fusion())
        assert (found.external, list(found.outputs)) == (anew.external, list(anew.outputs))
        assert _places(found) == _places(anew)
        return found


def _places(group: Group) -> list[object]:
    return [group.location, *((op.result.name, op.location) for op in group.computes)]


@pytest.mark.parametrize("kind", [Layer, Rows])
def test_equal_layers_merge_as_the_first_did(kind: type[Layer] | type[Rows]) -> None:
    torch.manual_seed(0)
    module = capture(nn.Sequential(*(kind(8) for _ in range(3))), (torch.randn(2, 4, 8),)).module
    clean = optimize(module, pipeline=CLEAN)
    write_values_apart(clean.main.body, clean.bounds())
    graph = Compared(clean.main.body, clean.bounds())
    search = FusionSearch(graph, RooflinePricer(load_machine("h100_sxm"), {}))
    policy_named("greedy").decide(search)
    lay_side_by_side(search)
    assert graph.known > search.merges / 2
