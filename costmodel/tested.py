"""Tests of tiles by data: what asking them takes, and how many pass, which nothing but the data says."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.costmodel.operations import Counts, count_body
from codesign.ir.core import Value
from codesign.ir.fold import Account
from codesign.ir.skipping import contributing
from codesign.ir.tensor import Compute, Fusion

VISITED = 0.5
"""Share of the tiles that pass, assumed. Documents that lie one after the other leave about one over their number; a mask that is spread over all
tiles leaves all of them."""

ASSUMED = f"of tiles that are tested by data, a share of {VISITED} is assumed to pass"


@dataclass(frozen=True)
class Tested:
    """The test of a step along a dim: `operations` per point of some dims, and per point of all of its `dims` what finds whether any passes.

    `folded`: steps may be left out only where the reductions along the dim are one pass.
    """

    dims: tuple[str, ...]
    operations: tuple[tuple[tuple[str, ...], Counts], ...]
    folded: bool


def tested(fusion: Fusion, account: Account | None) -> dict[str, Tested]:
    """The dims of a group along which data may leave out steps."""
    inside: dict[Value, Compute] = {compute.result: compute for compute in fusion.computes}
    stored = {dim.name for value in fusion.body.yields for dim in inside[value].dims}
    found: dict[str, Tested] = {}
    for dim in fusion.inner_dims():
        reductions = [compute for compute in fusion.computes if dim in {one.name for one in compute.reductions}]
        for folded in (False, True):
            if dim in stored or dim in found or (folded and (account is None or dim not in account.dims)):
                continue
            condition = contributing(reductions, dim, inside, folded=folded)
            if condition is not None:
                counts: dict[frozenset[str], Counts] = {}
                every = frozenset(fusion.dims()) & condition.variables()
                count_body(condition, every, counts)
                operations = tuple((tuple(sorted(used)), slots) for used, slots in counts.items())
                found[dim] = Tested(tuple(sorted(every)), operations, folded)
    return found
