"""Folding of views: computes that only rearrange elements vanish into the indices of their readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Value
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Bounds, Index
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.scalar import literal as make_literal
from codesign.ir.tensor import Compute, Scan, Scatter
from codesign.passes.algebra import Rewriting, in_range, simplify_scalar
from codesign.passes.canonicalize import simplify_index
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register

CHEAP = 4.0
"""Issue slots of a function of indices up to which it is worked out wherever it is read; a drawn number, say, takes more."""


@register
@dataclass(frozen=True)
class FoldViews(FunctionPass, Pass):
    """Inline views, broadcasts, literals and index values into the bodies that read them.

    A view reads one element of one tensor (perhaps chosen by conditions on the indices) at indices that do not depend on data.
    Views that are returned, or used by ops without a body, stay as they are.
    """

    name: ClassVar[str] = "fold-views"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        outer = module.bounds()
        views: dict[Value, Compute] = {}
        for op in block.ops:
            if isinstance(op, Compute):
                if any(value in views for value in op.operands()):
                    op.body = simplify_scalar(inline(op.body, views, op.bounds(outer)), Rewriting(op.bounds(outer)))
                if is_view(op):
                    views[op.result] = op
            elif isinstance(op, (Scan, Scatter)) and any(value in views for value in op.operands()):
                bounds = outer.with_extents(op.extents())
                op.body = simplify_scalar(inline(op.body, views, bounds), Rewriting(bounds))
                if isinstance(op, Scatter):
                    op.target = tuple(
                        simplify_index(inline_index(i, views, bounds), Rewriting(bounds)) for i in op.target
                    )


def is_view(op: Compute) -> bool:
    """The compute only rearranges elements of at most one tensor, or holds literals and index values."""
    if op.reductions:
        return False
    sources: set[Value] = set()
    reads = 0
    for node in op.body.walk():
        if isinstance(node, Read):
            sources.add(node.source)
            reads += 1
            if any(i.data() for i in node.indices):
                return False
        elif isinstance(node, Apply) and not _index_arithmetic(node):
            return False
    return len(sources) <= 1 and reads <= 2


def _index_arithmetic(node: Apply) -> bool:
    """A select, or cheap work on values that hold no tensor's element."""
    if node.function == "select":
        return not node.args[0].reads()
    row = FUNCTIONS[node.function]
    return not node.reads() and row.unit in ("free", "alu", "fma", "integer") and row.cost <= CHEAP


def inline(body: Scalar, producers: Mapping[Value, Compute], bounds: Bounds) -> Scalar:
    """The body with reads of element-wise producers replaced by what the producers compute there.

    `%v[e] -> b(e)` for `%v = compute {b(dims)}`; a guarded read becomes `select(e inside, b(e), otherwise)`, with every read
    inside b made safe where e is outside.
    """

    def change(node: Scalar) -> Scalar | None:
        if isinstance(node, Read) and node.source in producers:
            return inlined_read(node, producers[node.source], bounds)
        return None

    return body.rewrite(change)


def inline_index(expression: Index, producers: Mapping[Value, Compute], bounds: Bounds) -> Index:
    """An index expression whose data reads go through producers."""
    if not expression.data():
        return expression
    return expression.substitute({}, lambda scalar: inline(scalar, producers, bounds))


def inlined_read(node: Read, producer: Compute, bounds: Bounds) -> Scalar:
    """What the producer computes at the indices of a read of it."""
    places = {dim.name: i for dim, i in zip(producer.dims, node.indices, strict=True)}
    body = producer.body.substitute(places)
    if node.otherwise is None:
        return cast(body, producer.dtype)
    conditions = [
        (i, dim.extent)
        for dim, i in zip(producer.dims, node.indices, strict=True)
        if not in_range(i, dim.extent, bounds)
    ]
    if isinstance(body, Read) and body.dtype is producer.dtype:
        own = producer.body
        if isinstance(own, Read) and all(_covered(own, dim.name, dim.extent) for dim in producer.dims):
            if body.otherwise is None or body.otherwise == node.otherwise:
                return Read(body.source, body.indices, node.otherwise)
    safe = made_safe(body, bounds)
    result: Scalar = cast(safe, producer.dtype)
    for i, extent in conditions:
        result = select(inside(i, extent, bounds), result, node.otherwise)
    return result


def _covered(read: Read, name: str, extent: Index) -> bool:
    """`name` alone indexes one dimension of the same size, so that being outside of one is being outside of the other."""
    return any(i.variable == name and size == extent for i, size in zip(read.indices, read.source.shape, strict=True))


def inside(i: Index, extent: Index, bounds: Bounds) -> Scalar:
    """The condition `0 <= i < extent` without the side that always holds."""
    conditions: list[Scalar] = []
    if not i.proves_at_least(0, bounds):
        conditions.append(apply("ge", IndexValue(i), make_literal(0)))
    if not i.proves_less(extent, bounds):
        conditions.append(apply("lt", IndexValue(i), IndexValue(extent)))
    if not conditions:
        return make_literal(True)
    return conditions[0] if len(conditions) == 1 else apply("and", *conditions)


def made_safe(body: Scalar, bounds: Bounds) -> Scalar:
    """The body with an `otherwise` on each read that is not proven to stay inside its tensor."""

    def change(node: Scalar) -> Scalar | None:
        if not isinstance(node, Read) or node.otherwise is not None:
            return None
        if all(in_range(i, size, bounds) for i, size in zip(node.indices, node.source.shape, strict=True)):
            return None
        return Read(node.source, node.indices, Literal(0, node.dtype))

    return body.rewrite(change)
