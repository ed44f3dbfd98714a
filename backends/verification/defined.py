"""Which elements of a group's results have a defined value.

Integer division by zero and casts of floats to integers that cannot hold them have no value that all machines agree on. The group is evaluated
a second time with other stand-ins for these: what then differs depends on them, and is not compared.
"""

from __future__ import annotations

import numpy as np

from codesign.backends.verification.inputs import DIVISIONS
from codesign.ir.core import Block, Op, Value
from codesign.ir.scalar import Apply, Scalar, apply, literal, select
from codesign.ir.tensor import Compute, Fusion

SHIFTS = ("shl", "shr")


def has_undefined(fusion: Fusion) -> bool:
    """Whether any expression of the group can lack a value."""
    return any(_undefined(node) is not None for compute in fusion.computes for node in compute.body.walk())


def with_stand_in(fusion: Fusion, value: int) -> Fusion:
    """The same group with `value` wherever an expression has no value of its own."""
    mapping: dict[Value, Value] = {}
    ops: list[Op] = []

    def change(node: Scalar) -> Scalar | None:
        bad = _undefined(node)
        return None if bad is None else select(bad, literal(value, node.dtype), node)

    for compute in fusion.computes:
        new = Compute(
            compute.dims,
            compute.body.replace_sources(mapping).rewrite(change),
            dtype=compute.dtype,
            reductions=compute.reductions,
            monoid=compute.monoid,
            accumulate=compute.accumulate,
            name=compute.result.name,
        )
        mapping[compute.result] = new.result
        ops.append(new)
    body = Block([], ops, [mapping[value] for value in fusion.body.yields])
    return Fusion(body, names=[value.name for value in fusion.results])


def _undefined(node: Scalar) -> Scalar | None:
    """When the node has no value: a condition, or None when it always has one."""
    if not isinstance(node, Apply) or not node.dtype.is_integer:
        return None
    if node.function in DIVISIONS:
        a, b = node.args
        zero = apply("eq", b, literal(0, b.dtype))
        if node.dtype.kind == "uint":
            return zero
        least = literal(-(2 ** (node.dtype.bits - 1)), a.dtype)
        return apply("or", zero, apply("and", apply("eq", a, least), apply("eq", b, literal(-1, b.dtype))))
    if node.function in SHIFTS:
        count = node.args[1]
        large = apply("ge", count, literal(node.dtype.bits, count.dtype))
        return apply("or", large, apply("lt", count, literal(0, count.dtype)))
    if node.function == "cast" and node.args[0].dtype.is_float:
        x = node.args[0]
        signed = node.dtype.kind == "int"
        high = np.nextafter(x.dtype.numpy.type(2.0 ** (node.dtype.bits - signed)), x.dtype.numpy.type(0))
        low = -high if signed else 0.0
        inside = apply(
            "and", apply("ge", x, literal(float(low), x.dtype)), apply("le", x, literal(float(high), x.dtype))
        )
        return apply("not", inside)
    return None
