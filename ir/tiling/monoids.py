"""Reductions as monoids over scalar expressions: identity, combination, and how a looped arg-reduction carries its position."""

from __future__ import annotations

import math

from codesign.ir.dtypes import BOOL, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply, literal, select
from codesign.ir.tensor import Monoid

FUNCTIONS: dict[str, str] = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}
"""The function that joins two partial results."""


def lowest(dtype: DType) -> Literal:
    """The least value of a dtype (minus infinity for floats)."""
    if dtype is BOOL:
        return literal(False)
    if dtype.is_float:
        return Literal(-math.inf, dtype)
    return Literal(0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1)), dtype)


def highest(dtype: DType) -> Literal:
    """The greatest value of a dtype (infinity for floats)."""
    if dtype is BOOL:
        return literal(True)
    if dtype.is_float:
        return Literal(math.inf, dtype)
    return Literal((1 << dtype.bits) - 1 if dtype.kind == "uint" else (1 << (dtype.bits - 1)) - 1, dtype)


def identity(monoid: Monoid, dtype: DType) -> Literal:
    """The value that changes nothing when combined."""
    if monoid in ("max", "argmax"):
        return lowest(dtype)
    if monoid in ("min", "argmin"):
        return highest(dtype)
    if monoid in ("any", "all"):
        return literal(monoid == "all")
    return Literal(1 if monoid == "prod" else 0, dtype)


def combine(monoid: Monoid, a: Scalar, b: Scalar) -> Scalar:
    """Two partial results as one; max and min propagate NaN."""
    if monoid not in FUNCTIONS:
        raise UnsupportedError(f"{monoid} has no plain combination")
    function = FUNCTIONS[monoid]
    if a.dtype is BOOL:
        function = {"add": "or", "mul": "and", "max": "or", "min": "and"}.get(function, function)
    return apply(function, a, b)


def truth(monoid: Monoid, body: Scalar) -> Scalar:
    """The body of an any/all reduction as a bool."""
    if monoid not in ("any", "all") or body.dtype is BOOL:
        return body
    return apply("ne", body, Literal(0, body.dtype))


def better(monoid: Monoid, new: Scalar, best: Scalar) -> Scalar:
    """Whether a later candidate beats the best so far: strictly better, or the first NaN."""
    if new.dtype is BOOL:
        yes, no = (new, best) if monoid == "argmax" else (best, new)
        return apply("and", yes, apply("not", no))
    beats = apply("gt" if monoid == "argmax" else "lt", new, best)
    if not new.dtype.is_float:
        return beats
    return apply("or", beats, apply("and", apply("isnan", new), apply("not", apply("isnan", best))))


def pick_extreme(monoid: Monoid) -> Monoid:
    """The reduction that gives the value whose position an arg-reduction gives."""
    return "max" if monoid == "argmax" else "min"


def keep_better(wins: Scalar, new: Scalar, best: Scalar) -> Scalar:
    """The new candidate where it wins, else the best so far."""
    return select(wins, new, best)


def plain_read(scalar: Scalar) -> Read | None:
    """The read under any casts, when the expression is nothing else."""
    while isinstance(scalar, Apply) and scalar.function == "cast":
        scalar = scalar.args[0]
    return scalar if isinstance(scalar, Read) else None
