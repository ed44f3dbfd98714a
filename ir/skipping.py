"""Conditions on data under which a step of a loop contributes something: where none of its points passes, its products need not be made.

    max(k) { select(%doc[i] == %doc[k] and k <= i, %s[i, k], -inf) }   %doc[i] == %doc[k] and k <= i
    max(k) { %s[i, k] + select(%mask[i, k], 0, -inf) }                 %mask[i, k]

Only what is cheap is asked: values from outside and what is worked out of them point by point, never a reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL
from codesign.ir.masks import NEVER, Conditions, Masks, neutral
from codesign.ir.scalar import Apply, Read, Scalar, apply
from codesign.ir.tensor import Compute


def contributing(
    computes: Iterable[Compute], dim: str, inside: Mapping[Value, Compute], *, folded: bool
) -> Scalar | None:
    """Under which condition on data a point along a dim may count in any of these reductions; None where that is not known, or always.

    `folded`: they go on in one pass (`codesign.ir.fold`), whose state a step without such a point leaves as it is. In loops of their own
    rows that are masked whole may want every step.
    """
    found: Scalar | None = NEVER
    masks = _OnData(inside)
    for compute in computes:
        value = neutral(compute)
        mine = None if value is None else masks.unless(compute.body, value)
        found = masks.either(found, mine)
    if found is None or found is NEVER or (masks.wanted and not folded):
        return None
    on_data = any(dim in read.variables() for read in found.reads())
    return found if on_data else None


class _OnData(Conditions):
    """Conditions on points that are cheap to work out."""

    def holds(self, node: Scalar, *, truth: bool) -> Scalar | None:
        if isinstance(node, Read) and node.source not in self.makers and node.dtype is BOOL:
            return self._cheap(node, truth=truth)
        return super().holds(node, truth=truth)

    def compares(self, node: Apply, *, truth: bool) -> Scalar | None:
        return self._cheap(node, truth=truth)

    def through(self, read: Read, ask: Callable[[Masks[Scalar], Scalar], Scalar | None]) -> Scalar | None:
        maker = self.pointwise(read)
        if maker is None:
            return None
        places = zip(maker.dims, read.indices, strict=True)
        return ask(self, maker.body) if all(place.variable == dim.name for dim, place in places) else None

    def _cheap(self, node: Scalar, *, truth: bool) -> Scalar | None:
        pending, seen = list(node.reads()), set[Value]()
        while pending:
            read = pending.pop()
            maker = self.makers.get(read.source)
            if maker is None or read.source in seen:
                continue
            if maker.reductions:
                return None
            seen.add(read.source)
            pending.extend(maker.body.reads())
        return node if truth else apply("not", node)
