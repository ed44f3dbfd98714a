"""Conditions on data under which a step of a loop contributes something: where none of its points passes, its products need not be made.

    max(k) { select(%doc[i] == %doc[k] and k <= i, %s[i, k], -inf) }   %doc[i] == %doc[k] and k <= i
    max(k) { %s[i, k] + select(%mask[i, k], 0, -inf) }                 %mask[i, k]

Only what is cheap is asked: values from outside and what is worked out of them point by point, never a reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL
from codesign.ir.masks import Masks, neutral
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply
from codesign.ir.tensor import Compute

NEVER = Literal(False, BOOL)


def contributing(
    computes: Iterable[Compute], dim: str, inside: Mapping[Value, Compute], *, folded: bool
) -> Scalar | None:
    """Under which condition on data a point along a dim may count in any of these reductions; None where that is not known, or always.

    `folded`: they go on in one pass (`codesign.ir.fold`), whose state a step without such a point leaves as it is. In loops of their own
    rows that are masked whole may want every step.
    """
    found: Scalar | None = NEVER
    masks = _Conditions(inside)
    for compute in computes:
        value = neutral(compute)
        mine = None if value is None else masks.unless(compute.body, value)
        found = masks.either(found, mine)
    if found is None or found is NEVER or (masks.wanted and not folded):
        return None
    on_data = any(dim in read.variables() for read in found.reads())
    return found if on_data else None


class _Conditions(Masks[Scalar]):
    """Conditions on points; `wanted`: what is masked whole gets another value than what is left out."""

    nowhere = NEVER

    def __init__(self, inside: Mapping[Value, Compute]) -> None:
        super().__init__()
        self.inside = inside
        self.wanted = False

    def both(self, a: Scalar | None, b: Scalar | None) -> Scalar | None:
        if a is None or b is None:
            return b if a is None else a
        return NEVER if NEVER in (a, b) else a if a == b else apply("and", a, b)

    def either(self, a: Scalar | None, b: Scalar | None) -> Scalar | None:
        if a is None or b is None:
            return None
        return b if a == NEVER else a if b in (NEVER, a) else apply("or", a, b)

    def at_least_once(self, part: Scalar | None) -> Scalar | None:
        self.wanted = self.wanted or (part is not None and part != NEVER)
        return part

    def hardly(self) -> Scalar | None:
        return None

    def holds(self, node: Scalar, *, truth: bool) -> Scalar | None:
        if isinstance(node, Read) and node.source not in self.inside and node.dtype is BOOL:
            return self._cheap(node, truth=truth)
        return super().holds(node, truth=truth)

    def compares(self, node: Apply, *, truth: bool) -> Scalar | None:
        return self._cheap(node, truth=truth)

    def through(self, read: Read, ask: Callable[[Masks[Scalar], Scalar], Scalar | None]) -> Scalar | None:
        maker = self.inside.get(read.source)
        if maker is None or maker.reductions or read.otherwise is not None:
            return None
        places = zip(maker.dims, read.indices, strict=True)
        return ask(self, maker.body) if all(place.variable == dim.name for dim, place in places) else None

    def _cheap(self, node: Scalar, *, truth: bool) -> Scalar | None:
        pending, seen = list(node.reads()), set[Value]()
        while pending:
            read = pending.pop()
            maker = self.inside.get(read.source)
            if maker is None or read.source in seen:
                continue
            if maker.reductions:
                return None
            seen.add(read.source)
            pending.extend(maker.body.reads())
        return node if truth else apply("not", node)
