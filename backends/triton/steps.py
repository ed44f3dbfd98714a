"""Quotients that decide a step: whole numbers that are taken of them, and orders among them.

`/` of float32 is off by up to two units in the last place in what Triton makes for NVIDIA GPUs (`div.full.f32`, and one product with a rounded
reciprocal where the divisor is a number): 49 / 49 may be less than 1, whose floor is 0. Where no step follows, nobody sees it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Set

from codesign.ir.core import Op, Value
from codesign.ir.index import Index
from codesign.ir.scalar import Apply, Literal, Read, Scalar
from codesign.ir.tile import Kernel, Load, Map, Reduce, Store

WHOLE = frozenset({"floor", "ceil", "trunc", "round", "floordiv", "truncdiv", "mod", "fmod"})
ORDERS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def before_steps(kernel: Kernel) -> Set[int]:
    """The ids of the nodes, in the bodies of a kernel's operations, whose last bit decides a step; through element-wise operations, not through
    reductions, which round by themselves."""
    found: set[int] = set()
    decided: set[Value] = set()
    for op in reversed(list(kernel.body.walk())):
        whole = isinstance(op, Map) and op.result in decided
        for scalar in _scalars(op):
            if whole and isinstance(op, Map) and scalar is op.body:
                found.add(id(scalar))
            for node in reversed(list(scalar.walk())):  # users before what they use
                if id(node) in found or is_step(node):
                    found.update(id(child) for child in node.children())
                if id(node) in found and isinstance(node, Read):
                    decided.add(node.source)
    return found


def is_step(node: Scalar) -> bool:
    """Whether a node's value jumps where an operand passes some number."""
    if not isinstance(node, Apply) or not node.args[0].dtype.is_float:
        return False
    if node.function in ORDERS:  # the sign of a quotient and whether it is finite are right in any case
        return not any(isinstance(arg, Literal) and (arg.value == 0 or math.isinf(arg.value)) for arg in node.args)
    return node.function in WHOLE or (node.function == "cast" and node.dtype.kind in ("int", "uint"))


def _scalars(op: Op) -> Iterator[Scalar]:
    """The expressions of an operation, those in its indices first."""
    expressions: list[Index] = []
    if isinstance(op, (Load, Store)):
        expressions += [*op.indices, *(side for guard in op.guards for side in guard.sides)]
    if isinstance(op, (Map, Reduce)):
        expressions += [index for node in op.body.walk() for index in node.index_expressions()]
    for expression in expressions:
        yield from expression.data()
    if isinstance(op, (Map, Reduce)):
        yield op.body
