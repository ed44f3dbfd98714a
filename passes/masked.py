"""What masks leave nothing of in a value that is stored is nothing to the sums that read it: they say so, and loops leave it out.

rewrite, where several read %p:
    %p = compute[i: M, j: N] { exp(select(j <= i, %s[i, j], -inf) - %m[i]) / %t[i] };   %r = compute[j: N, d: D] sum(i: M) { %p[i, j] * %g[i, d] }
    ->  %r = compute[j: N, d: D] sum(i: M) { select(j <= i, %p[i, j], 0) * %g[i, d] }

Attention's gradients are such sums of its weights: half of their steps go where no row sees what comes after it. What one alone reads is mostly
made in its reader's kernel, where the mask itself is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.analysis import contraction
from codesign.ir.core import Block, Module, Value
from codesign.ir.dtypes import BOOL
from codesign.ir.index import Bounds
from codesign.ir.masks import NEVER, Conditions, Masks
from codesign.ir.reach import some_everywhere
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply, select
from codesign.ir.tensor import Compute
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register

LONGEST = 16
"""Parts of a condition that a reader asks at most."""


@register
@dataclass(frozen=True)
class MaskedReads(FunctionPass, Pass):
    """Sums of products leave out what a mask by indices has made zero in a value that others read too."""

    name: ClassVar[str] = "masked-reads"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        makers = {op.result: op for op in block.ops if isinstance(op, Compute)}
        readers: dict[Value, int] = {}
        for op in block.ops:
            for value in op.uses():
                readers[value] = readers.get(value, 0) + 1
        conditions = dict[Value, Scalar | None]()
        for op in makers.values():
            form = contraction(op)
            if form is None:
                continue
            for read in op.body.reads():
                maker = makers.get(read.source)
                if maker is None or readers[read.source] < 2 or read.otherwise is not None:
                    continue
                if read.source not in conditions:
                    conditions[read.source] = zero_unless(maker, makers, module.bounds())
                condition = _at(conditions[read.source], maker, read)
                if condition is not None and condition.variables() & {dim.name for dim in op.reductions}:
                    op.body = op.body.rewrite(_masked(read, condition))


def _masked(read: Read, condition: Scalar) -> Callable[[Scalar], Scalar | None]:
    chosen = select(condition, read, Literal(0, read.dtype))
    return lambda node: chosen if node == read else None


def _at(condition: Scalar | None, maker: Compute, read: Read) -> Scalar | None:
    """A condition over the dims of a value where it is read; None where these are not dims of the reader there."""
    if condition is None:
        return None
    places = {dim.name: place for dim, place in zip(maker.dims, read.indices, strict=True)}
    if any(places[name].variable is None for name in condition.variables() if name in places):
        return None
    return condition.substitute(places)


def zero_unless(maker: Compute, makers: Mapping[Value, Compute], bounds: Bounds) -> Scalar | None:
    """The condition on its indices without which a value worked out point by point is zero; None where none is known.

    A value that is not zero in rows that are masked whole has none where there may be such rows.
    """
    if maker.reductions or maker.dtype is BOOL:
        return None
    masks = _ByIndices(makers)
    condition = masks.unless(maker.body, 0.0)
    names = {dim.name for dim in maker.dims}
    if condition is None or condition == NEVER or not condition.variables() & names:
        return None
    if sum(1 for _ in condition.walk()) > LONGEST:
        return None
    along = [dim for dim in maker.dims if dim.name in condition.variables()]
    inside = {value: op for value, op in makers.items() if not op.reductions}
    if masks.wanted:
        names, at = {dim.name for dim in along}, {dim.name: frozenset({dim.name}) for dim in maker.dims}
        if any(names <= found < at.keys() for found in _of_rows(maker.body, at, makers, set())):
            return None
        if not all(some_everywhere(maker, dim, inside, bounds) for dim in along):
            return None
    return condition


def _of_rows(
    body: Scalar,
    at: Mapping[str, frozenset[str]],
    makers: Mapping[Value, Compute],
    seen: set[tuple[Value, tuple[frozenset[str], ...]]],
) -> Iterator[frozenset[str]]:
    """The dims that each sum and maximum in an expression hangs on: what it goes over may be masked whole.

    `at`: the dims of the whole that each variable of the expression hangs on.
    """
    for read in body.reads():
        maker = makers.get(read.source)
        if maker is None:
            continue
        places = tuple(
            frozenset[str]().union(*(at.get(name, frozenset()) for name in place.variables())) for place in read.indices
        )
        if (read.source, places) in seen:
            continue
        seen.add((read.source, places))
        if maker.reductions:
            yield frozenset[str]().union(*places)
        else:
            yield from _of_rows(
                maker.body, dict(zip((dim.name for dim in maker.dims), places, strict=True)), makers, seen
            )


class _ByIndices(Conditions):
    """Conditions on indices alone."""

    def compares(self, node: Apply, *, truth: bool) -> Scalar | None:
        if node.reads() or not all(arg.dtype.is_integer for arg in node.args):
            return None
        return node if truth else apply("not", node)

    def through(self, read: Read, ask: Callable[[Masks[Scalar], Scalar], Scalar | None]) -> Scalar | None:
        maker = self.pointwise(read)
        if maker is None:
            return None
        found = ask(self, maker.body)
        if found is None or found == NEVER:
            return found
        return found.substitute({dim.name: place for dim, place in zip(maker.dims, read.indices, strict=True)})
