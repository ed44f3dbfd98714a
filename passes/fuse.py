"""The fusion pass: partitions a function's computes into groups, each one kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module
from codesign.ir.errors import CodesignError, blamed
from codesign.ir.index import Bounds
from codesign.ir.tensor import Compute
from codesign.passes.context import Context, Pricer
from codesign.passes.fusion import beam, chains, exhaustive  # noqa: F401 (policies by name)
from codesign.passes.fusion.explain import edges
from codesign.passes.fusion.graph import GroupGraph
from codesign.passes.fusion.kept import block_key, replayed
from codesign.passes.fusion.policy import FusionSearch, lay_side_by_side, policy_named
from codesign.passes.fusion.pricing import RooflinePricer
from codesign.passes.manager import FunctionPass, Pass, register
from codesign.passes.schedule.tuner import Tuner
from codesign.passes.writes.memory import updates_of
from codesign.passes.writes.place import write_in_groups, write_values_apart

OWN = frozenset({"none", "greedy", "beam", "dp", "exhaustive"})
"""Policies whose decisions are kept between runs: of others it is not known whether they changed."""


@register
@dataclass(frozen=True)
class Fuse(FunctionPass, Pass):
    """Put every compute into a fusion group, merging groups while the predicted time falls.

    `policy`: who decides (none, greedy, beam, dp, exhaustive, a registered one, or package.module:Class). `prices`: seconds of a group
    "tuned" over its schedules, or the quick "roofline"; a context with a pricer of its own overrides it. `chain`: matrix products that may feed each
    other in one group. `beside`: groups that share no loop may get one launch, their programs side by side. `explain`: leave in the context why
    each producer and consumer are together or apart.
    """

    name: ClassVar[str] = "fuse"
    after_fusion: ClassVar[bool] = True
    policy: str = "greedy"
    prices: str = "tuned"
    chain: int = 2
    beside: bool = True
    explain: bool = False

    def __post_init__(self) -> None:
        if self.chain < 0:
            raise CodesignError(f"fuse: chain={self.chain}: a number of products, 0 or more")

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        write_values_apart(block, module.bounds())
        if not any(isinstance(op, Compute) for op in block.ops):
            write_in_groups(block, updates_of(module, block))
            return
        policy = policy_named(self.policy)
        pricer = pricer_of(context, self.prices, module.bounds())
        graph = GroupGraph(block, module.bounds())
        kept = context.kept if not self.explain and self.policy in OWN else None
        key = block_key(block, graph, self.policy, self.prices, self.chain, self.beside) if kept is not None else ""
        before = kept.get("fusion", key) if kept is not None else None
        if before is None or not replayed(graph, before):
            graph = graph if before is None else GroupGraph(block, module.bounds())
            memory = context.target().levels[0].capacity_bytes.value or math.inf
            search = FusionSearch(
                graph,
                pricer,
                chain=self.chain,
                memory=memory,
                sizes=context.sizes,
                below=context.below,
                least=context.least,
            )
            with blamed(f"fusion policy {self.policy!r}", policy):
                policy.decide(search)
            if self.beside and self.policy != "none":
                lay_side_by_side(search)
            graph = search.graph
            if self.explain:
                context.fusion.extend(edges(search, context.why))
            if kept is not None:
                kept.put("fusion", key, search.steps)
        graph.write(block)
        write_in_groups(block, updates_of(module, block))


def pricer_of(context: Context, prices: str, bounds: Bounds) -> Pricer:
    """The context's pricer, or one made for its machine at its sizes, which the context keeps."""
    if context.pricer is None:
        if prices == "tuned":
            context.pricer = Tuner(context.target(), sizes=context.sizes, bounds=bounds).price
        elif prices == "roofline":
            context.pricer = RooflinePricer(context.target(), context.sizes)
        else:
            raise CodesignError(f"unknown prices {prices!r}", hint="prices: tuned, roofline")
    return context.pricer
