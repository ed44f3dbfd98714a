"""The fusion pass: partitions a function's computes into groups, each one kernel."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module
from codesign.ir.errors import CodesignError
from codesign.ir.tensor import Compute
from codesign.passes.context import Context, Pricer
from codesign.passes.fusion.graph import GroupGraph
from codesign.passes.fusion.policy import POLICIES, FusionSearch
from codesign.passes.fusion.pricing import RooflinePricer
from codesign.passes.manager import FunctionPass, Pass, register


@register
@dataclass(frozen=True)
class Fuse(FunctionPass, Pass):
    """Put every compute into a fusion group, merging groups while the predicted time falls.

    `policy`: who decides (none, greedy, or a registered one).
    """

    name: ClassVar[str] = "fuse"
    policy: str = "greedy"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        if not any(isinstance(op, Compute) for op in block.ops):
            return
        make = POLICIES.get(self.policy)
        if make is None:
            near = difflib.get_close_matches(self.policy, POLICIES, n=3, cutoff=0.3) or sorted(POLICIES)
            raise CodesignError(f"unknown fusion policy {self.policy!r}", hint=f"nearest: {', '.join(near)}")
        graph = GroupGraph(block, module.bounds())
        search = FusionSearch(graph, pricer_of(context))
        make().decide(search)
        graph.write(block)


def pricer_of(context: Context) -> Pricer:
    """The context's pricer, or the roofline of its machine at the context's sizes."""
    return context.pricer or RooflinePricer(context.target(), context.sizes)
