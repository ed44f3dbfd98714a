"""Operations of scalar expressions, by the dims that they depend on."""

from __future__ import annotations

from collections.abc import Mapping

from codesign.ir.analysis import dependence, slot_of
from codesign.ir.core import Value
from codesign.ir.dtypes import DType
from codesign.ir.filled import Filled
from codesign.ir.functions import Unit
from codesign.ir.index import Bounds
from codesign.ir.reach import Reach
from codesign.ir.scalar import Apply, Scalar
from codesign.ir.tensor import Compute

Counts = dict[tuple[Unit, str], float]
"""Issue slots of a point by unit and name of the dtype."""


def count_body(
    body: Scalar, domain: frozenset[str], counts: dict[frozenset[str], Counts], *, product_of: bool = False
) -> None:
    """Add the operations of an expression by the dims that they depend on; of a matrix product, those of its factors on the way into the unit."""
    factors = body.children() if product_of else ()
    for node, used in dependence(body, domain):
        if not isinstance(node, Apply) or (product_of and node is body):
            continue
        if node.function == "cast" and any(_wraps(factor, node) for factor in factors):
            continue  # a conversion on the way into the tensor unit is the unit's own
        unit, kind, cost = slot_of(node)
        if unit != "free":
            count(counts.setdefault(used, {}), unit, kind, cost)


def spared(
    compute: Compute, inside: Mapping[Value, Compute], reach: Mapping[str, Reach], *, product_of: bool
) -> dict[frozenset[str], Counts]:
    """Operations that a compute does not need where all is reached along the dims that masks cut."""
    domain = frozenset(dim.name for dim in compute.domain)
    known: Filled | None = None
    for name in sorted(domain & reach.keys()):
        known = Filled.of(name, reach[name], Bounds().with_extents(compute.extents()), inside, known)
    body = compute.body if known is None else known.scalar(compute.body)
    if known is None or not known.used:
        return {}
    counts: dict[frozenset[str], Counts] = {}
    left: dict[frozenset[str], Counts] = {}
    count_body(compute.body, domain, counts, product_of=product_of)
    count_body(body, domain, left, product_of=product_of)
    for used, found in left.items():
        for (unit, dtype), cost in found.items():
            mine = counts.setdefault(used, {})
            mine[unit, dtype] = mine.get((unit, dtype), 0.0) - cost
    fewer = {used: {slot: cost for slot, cost in found.items() if cost} for used, found in counts.items()}
    return {used: found for used, found in fewer.items() if found}


def count(counts: Counts, unit: Unit, dtype: DType, cost: float) -> None:
    counts[unit, dtype.name] = counts.get((unit, dtype.name), 0.0) + cost


def _wraps(outer: Scalar, inner: Scalar) -> bool:
    while isinstance(outer, Apply) and outer.function == "cast":
        if outer == inner:
            return True
        outer = outer.args[0]
    return False
