"""Canonicalization: one simplest form for equal computations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module
from codesign.ir.dtypes import BOOL, I64
from codesign.ir.index import Bounds, Index
from codesign.ir.scalar import Apply, Literal, Scalar, apply, cast
from codesign.ir.tensor import Compute, Scan, Scatter
from codesign.passes.algebra import Rewriting, integer_range, simplify_scalar
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register


@register
@dataclass(frozen=True)
class Canonicalize(FunctionPass, Pass):
    """Simplify scalar algebra, casts, selects and comparisons of indices, index expressions under bounds, and unit reductions.

    `signed_zeros`: keep the difference between 0.0 and -0.0, which a division shows (x + 0.0 stays).
    """

    name: ClassVar[str] = "canonicalize"
    signed_zeros: bool = True

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        outer = module.bounds()
        for op in block.ops:
            if isinstance(op, Compute):
                canonicalize_compute(op, outer, self.signed_zeros)
            elif isinstance(op, (Scan, Scatter)):
                rewriting = Rewriting(outer.with_extents(op.extents()), self.signed_zeros)
                op.body = simplify_scalar(op.body, rewriting)
                if isinstance(op, Scatter):
                    op.target = tuple(simplify_index(i, rewriting) for i in op.target)


def simplify_index(expression: Index, rewriting: Rewriting) -> Index:
    """An index expression simplified, the data reads inside it included."""
    if expression.data():
        expression = expression.substitute({}, lambda scalar: simplify_scalar(scalar, rewriting))
    return rewriting.index(expression)


def canonicalize_compute(op: Compute, outer: Bounds, signed_zeros: bool = True) -> None:
    """Simplify one compute in place; its result's type does not change."""
    drop_empty_reduction(op)
    drop_unit_reductions(op)
    op.body = simplify_scalar(op.body, Rewriting(op.bounds(outer), signed_zeros))
    if not op.reductions:
        op.body = drop_final_cast(op)
        op.accumulate = op.body.dtype


def drop_final_cast(op: Compute) -> Scalar:
    """`compute f16 { f16(x) }  ->  compute f16 { x }`: the compute itself converts to its dtype."""
    body = op.body
    if isinstance(body, Apply) and body.function == "cast" and body.dtype is op.dtype:
        return body.args[0]
    return body


def drop_empty_reduction(op: Compute) -> None:
    """`sum(k: 0) { f(k) }  ->  0`: the monoid's identity (argmax and argmin have none)."""
    if not any(dim.extent == 0 for dim in op.reductions) or op.monoid in ("argmax", "argmin"):
        return
    dtype = op.accumulate
    if op.monoid in ("any", "all"):
        op.body = Literal(op.monoid == "all", BOOL)
    elif op.monoid in ("sum", "prod"):
        op.body = Literal(0 if op.monoid == "sum" else 1, dtype)
    elif dtype.is_float:
        op.body = Literal(-math.inf if op.monoid == "max" else math.inf, dtype)
    else:
        least, greatest = integer_range(dtype) if dtype.is_integer else (0, 1)
        op.body = Literal(least if op.monoid == "max" else greatest, dtype)
    op.reductions, op.monoid, op.accumulate = (), None, op.body.dtype


def drop_unit_reductions(op: Compute) -> None:
    """`sum(k: 1, r: 3) { f(k, r) }  ->  sum(r: 3) { f(0, r) }`; without a dim left it is no reduction any more."""
    unit = [dim.name for dim in op.reductions if dim.extent == 1]
    if not unit:
        return
    op.body = op.body.substitute(dict.fromkeys(unit, 0))
    op.reductions = tuple(dim for dim in op.reductions if dim.name not in unit)
    if op.reductions:
        return
    if op.monoid in ("argmax", "argmin"):
        op.body = Literal(0, I64)
    elif op.monoid in ("any", "all"):
        op.body = op.body if op.body.dtype is BOOL else apply("ne", op.body, Literal(0, op.body.dtype))
    else:
        op.body = cast(op.body, op.accumulate)
    op.monoid = None
    op.accumulate = op.body.dtype
