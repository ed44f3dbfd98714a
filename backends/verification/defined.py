"""Which elements of a group's results have a defined value.

Integer division by zero and casts of floats to integers that cannot hold them have no value that all machines agree on. The group is evaluated
a second time with other stand-ins for these: what then differs depends on them, and is not compared.

Nor has what a mask multiplies by zero a say whether it is NaN or infinite: where kernels skip what a mask empties, it is not even read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from codesign.backends.verification.inputs import DIVISIONS
from codesign.ir.core import Block, Op, Value
from codesign.ir.index import Bounds
from codesign.ir.reach import Reach, reaches
from codesign.ir.scalar import Apply, IndexValue, Scalar, apply, literal, select
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.tiling import monoids

SHIFTS = ("shl", "shr")


def has_undefined(fusion: Fusion) -> bool:
    """Whether any expression of the group can lack a value."""
    return any(_undefined(node) is not None for compute in fusion.computes for node in compute.body.walk())


def with_stand_in(fusion: Fusion, value: int) -> Fusion:
    """The same group with `value` wherever an expression has no value of its own."""

    def change(node: Scalar) -> Scalar | None:
        bad = _undefined(node)
        return None if bad is None else select(bad, literal(value, node.dtype), node)

    return _changed(fusion, lambda compute: compute.body.rewrite(change))


def without_masked(fusion: Fusion) -> Fusion | None:
    """The same group whose reductions leave out what a mask empties, whatever stands there; None where none does."""
    cut = reaches(fusion.computes, {*fusion.body.yields}, Bounds())
    if not cut:
        return None

    def body(compute: Compute) -> Scalar:
        found = compute.body
        for dim in compute.reductions:
            if dim.name in cut:
                monoid = compute.monoid or "sum"
                found = monoids.truth(monoid, found)
                neutral = literal(monoids.identity(monoid, found.dtype).value, found.dtype)
                found = select(_outside(dim.name, cut[dim.name]), neutral, found)
        return found

    return _changed(fusion, body)


def _outside(name: str, reach: Reach) -> Scalar:
    """Whether a point is beyond the reach; where there is none and loops make a step all the same, none is."""
    place, beyond, somewhere = IndexValue(name), list[Scalar](), list[Scalar]()
    for low, high in ((IndexValue(low), IndexValue(high)) for low, high in reach.intervals):
        beyond.append(apply("or", apply("lt", place, low), apply("ge", place, high)))
        somewhere.append(apply("lt", low, high))
    outside = functools.reduce(lambda a, b: apply("and", a, b), beyond)
    return apply("and", outside, functools.reduce(lambda a, b: apply("or", a, b), somewhere)) if reach.once else outside


def _changed(fusion: Fusion, change: Callable[[Compute], Scalar]) -> Fusion:
    """The group with other bodies."""
    mapping: dict[Value, Value] = {}
    ops: list[Op] = []
    for compute in fusion.computes:
        new = compute.with_body(change(compute).replace_sources(mapping))
        mapping[compute.result] = new.result
        ops.append(new)
    body = Block([], ops, [mapping[value] for value in fusion.body.yields])
    writes = {position: write.replaced(mapping) for position, write in fusion.writes.items()}
    return Fusion(body, names=[value.name for value in fusion.results], writes=writes)


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
