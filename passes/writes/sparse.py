"""Selects that keep all of a tensor but one place along a dim, as writes into that place.

rewrite, where the result is the new value of the caller's %k and nobody wants the old one:
    %r = compute[i: N, j: M] { select(i == f(j), g(j), %k[i, j]) }   ->   %r = scatter set %k over (j: M) at [f(j), j] { g(j) }
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Value, tensor_type
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import Apply, IndexValue, Read, Scalar
from codesign.ir.tensor import Compute, Scatter
from codesign.passes.algebra import Rewriting, simplify_scalar
from codesign.passes.cleanup import remove_dead
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register
from codesign.passes.views import inline
from codesign.passes.writes.memory import Ownership, updates_of

Makers = Mapping[Value, Compute]

PLACES = 32
"""Bits of an integer from which on it holds every place along a dim."""


@register
@dataclass(frozen=True)
class SparseWrites(FunctionPass, Pass):
    """Make `torch.where(torch.arange(n) == position, new, cache)`, where it is the cache's new value, a write of the new elements alone."""

    name: ClassVar[str] = "sparse-writes"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        updates = updates_of(module, block)
        for position, target in updates.items():
            makers = {op.result: op for op in block.ops if isinstance(op, Compute) and not op.reductions}
            op = _made(block.yields[position], makers)
            write = None if op is None else _as_write(op, makers, module.bounds())
            if op is None or write is None:
                continue
            owned = Ownership(block, updates)
            root = owned.root(write.init)
            if root is owned.updated(target) and owned.last[root] <= owned.place[op]:
                _replace(block, op, write, position)
                remove_dead(block)


def _made(value: Value, makers: Makers) -> Compute | None:
    """What makes a value, copies aside."""
    op = makers.get(value)
    while op is not None and isinstance(op.body, Read) and op.body.source in makers:
        own = op.body.otherwise is None and op.body.indices == _own(op) and op.body.source.type == op.result.type
        if not own:
            break
        op = makers[op.body.source]
    return op


def _own(op: Compute) -> tuple[Index, ...]:
    return tuple(index(dim.name) for dim in op.dims)


def _as_write(op: Compute, makers: Makers, outer: Bounds) -> Scatter | None:
    """The write of the chosen elements; None where the compute is no choice of one place along some dims."""
    body = op.body
    if not isinstance(body, Apply) or body.function != "select":
        return None
    condition, new, old = body.args
    condition = _worked_out(condition, makers, op.bounds(outer))
    function = "eq"
    if isinstance(condition, Apply) and condition.function == "ne":
        function, new, old = "ne", old, new
    kept = isinstance(old, Read) and old.otherwise is None and old.indices == _own(op)
    if not isinstance(old, Read) or not kept or tensor_type(old.source) != tensor_type(op.result):
        return None
    places = _places(condition, function, {dim.name for dim in op.dims})
    if places is None or new.variables() & places.keys():
        return None
    dims = [dim for dim in op.dims if dim.name not in places]
    target = [places.get(dim.name, index(dim.name)) for dim in op.dims]
    return Scatter("set", old.source, dims, target, new, name=op.result.name, location=op.location)


def _worked_out(condition: Scalar, makers: Makers, bounds: Bounds) -> Scalar:
    """A condition in terms of what element-wise work starts from."""
    while any(read.source in makers for read in condition.reads()):
        condition = inline(condition, makers, bounds)
    return simplify_scalar(condition, Rewriting(bounds))


def _places(condition: Scalar, function: str, names: set[str]) -> dict[str, Index] | None:
    """The one place along each of some dims that a condition says; None for other conditions."""
    terms, places = [condition], dict[str, Index]()
    while terms:
        term = terms.pop()
        if isinstance(term, Apply) and term.function == "and" and function == "eq":
            terms.extend(term.args)
            continue
        found = _place(term, function, names)
        if found is None or found[0] in places:
            return None
        places[found[0]] = found[1]
    given = {name for place in places.values() for name in place.variables()}
    return None if given & places.keys() else places


def _place(term: Scalar, function: str, names: set[str]) -> tuple[str, Index] | None:
    """A dim and the place along it that equals a number without it."""
    if not isinstance(term, Apply) or term.function != function:
        return None
    for side, other in (term.args, term.args[::-1]):
        if not isinstance(side, IndexValue) or side.dtype.bits < PLACES or isinstance(other, IndexValue):
            continue
        used = side.index.variables() & names
        if len(used) == 1:
            (name,) = used
            if side.index.coefficient(name) == 1 and name not in other.variables():
                return name, other.as_index() - (side.index - name)
    return None


def _replace(block: Block, op: Compute, write: Scatter, position: int) -> None:
    block.ops = [write if other is op else other for other in block.ops]
    for other in block.ops:
        other.replace({op.result: write.result})
    changed = {op.result: write.result, block.yields[position]: write.result}
    block.yields = tuple(changed.get(value, value) for value in block.yields)
