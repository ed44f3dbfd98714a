"""Reductions and running reductions of arrays, as the monoids of the language define them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.location import Location
from codesign.ir.numerics import Array, convert, finish, highest, lowest
from codesign.ir.precision import precision_of
from codesign.ir.scalar import Apply, Scalar

POINTS_AT_ONCE = 1 << 22
"""Size of the pieces that a large domain is evaluated in."""


def reduce_array(array: Array, axes: tuple[int, ...], monoid: str, dtype: DType) -> Array:
    """The array reduced over axes in the dtype (positions along the one axis, for argmax and argmin)."""
    with np.errstate(all="ignore"):
        if monoid in ("any", "all"):
            truth = convert(array, BOOL)
            return np.asarray(truth.any(axis=axes) if monoid == "any" else truth.all(axis=axes))
        values = convert(array, dtype)
        if monoid in ("argmax", "argmin"):
            return np.asarray((np.argmax if monoid == "argmax" else np.argmin)(values, axis=axes[0]))
        if monoid in ("max", "min"):
            pick, start = (np.maximum, lowest(dtype)) if monoid == "max" else (np.minimum, highest(dtype))
            return np.asarray(pick.reduce(values, axis=axes, initial=start))
        add = np.add if monoid == "sum" else np.multiply
        if dtype is BOOL:
            return np.asarray(np.any(values, axis=axes) if monoid == "sum" else np.all(values, axis=axes))
        return finish(add.reduce(values, axis=axes, dtype=values.dtype), dtype)


def combine(a: Array, b: Array, monoid: str, dtype: DType) -> Array:
    """Two partial results made one (not for argmax and argmin)."""
    table = {
        "sum": np.add,
        "prod": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
        "any": np.logical_or,
        "all": np.logical_and,
    }
    with np.errstate(all="ignore"):
        return np.asarray(table[monoid](a, b)) if monoid in ("any", "all") else finish(table[monoid](a, b), dtype)


def scan_array(array: Array, axis: int, monoid: str, dtype: DType) -> Array:
    """The inclusive running reduction along an axis.

    `argmax`/`argmin` give the position of the running extremum: the last one among equals, and a NaN once there was
    one.
    """
    values = convert(array, dtype)
    with np.errstate(all="ignore"):
        if monoid in ("argmax", "argmin"):
            pick = np.maximum if monoid == "argmax" else np.minimum
            running = pick.accumulate(values, axis=axis)
            here = (values == running) | (values != values)
            shape = [1] * values.ndim
            shape[axis] = values.shape[axis]
            positions = np.arange(values.shape[axis], dtype=np.int64).reshape(shape)
            return np.maximum.accumulate(np.where(here, positions, 0), axis=axis)
        table = {
            "sum": np.add,
            "prod": np.multiply,
            "max": np.maximum,
            "min": np.minimum,
            "logsumexp": np.logaddexp,
        }
        function = table[monoid]
        if monoid in ("sum", "prod"):
            return finish(function.accumulate(values, axis=axis, dtype=values.dtype), dtype)
        return finish(function.accumulate(values, axis=axis), dtype)


def evaluate_domain(
    body: Scalar,
    spans: Sequence[Span],
    reduced: int,
    monoid: str | None,
    accumulate: DType,
    fixed: Mapping[str, int],
    data: Mapping[Value, Array],
    location: Location,
) -> Array:
    """The body over a box, its last `reduced` dims reduced, in pieces that fit memory; the shape is the other dims' sizes."""
    outer = len(spans) - reduced
    factors = _factors(body, monoid, accumulate)
    if factors:
        names = [_inside(factor, spans) for factor in factors]
        size = max(_points([s for s in spans if s.name in used]) for used in names)
        size = max(size, _points(spans[:outer]))
        limit = POINTS_AT_ONCE * 4
    else:
        size, limit, names = _points(spans), POINTS_AT_ONCE, []
    if size > limit:
        useful = list(range(len(spans)))
        if factors:  # cutting a dim that the big factor lacks gains nothing
            big = max(names, key=lambda used: _points([s for s in spans if s.name in used]))
            useful = [a for a in useful if spans[a].name in big or a < outer] or useful
        if monoid in ("argmax", "argmin"):
            useful = [a for a in useful if a < outer]
        parallel = [a for a in useful if a < outer and spans[a].size > 1]
        choice = parallel[:1] or sorted((a for a in useful if spans[a].size > 1), key=lambda a: -spans[a].size)[:1]
        if choice:
            return _in_pieces(body, spans, choice[0], size / limit, reduced, monoid, accumulate, fixed, data, location)
    domain = Domain(spans, fixed)
    evaluator = Evaluator(domain, data, location)
    if factors:
        left, right = (convert(_ranked(evaluator.scalar(f), len(spans)), accumulate) for f in factors)
        return finish(_sum_of_products(left, right, domain.shape, reduced), accumulate)
    values = evaluator.scalar(body)
    full = np.broadcast_to(values, domain.shape)
    if monoid is None or (reduced == 0 and monoid not in ("any", "all", "argmax", "argmin")):
        return convert(full, accumulate)
    return reduce_array(full, tuple(range(outer, len(spans))), monoid, accumulate)


def _in_pieces(
    body: Scalar,
    spans: Sequence[Span],
    cut: int,
    times: float,
    reduced: int,
    monoid: str | None,
    accumulate: DType,
    fixed: Mapping[str, int],
    data: Mapping[Value, Array],
    location: Location,
) -> Array:
    span = spans[cut]
    step = max(1, int(span.size / times))
    parts = [Span(span.name, low, min(low + step, span.high)) for low in range(span.low, span.high, step)]
    results = (
        evaluate_domain(
            body, [*spans[:cut], part, *spans[cut + 1 :]], reduced, monoid, accumulate, fixed, data, location
        )
        for part in parts
    )
    if cut < len(spans) - reduced:
        first = next(results)
        shape = tuple(s.size for s in spans[: len(spans) - reduced])
        whole = np.empty(shape, first.dtype)
        for part, result in zip(parts, itertools.chain([first], results), strict=True):
            place = (slice(None),) * cut + (slice(part.low - span.low, part.high - span.low),)
            whole[place] = result
        return whole
    total = next(results)
    for result in results:
        total = combine(total, result, monoid or "sum", accumulate)
    return total


def _factors(body: Scalar, monoid: str | None, accumulate: DType) -> tuple[Scalar, Scalar] | None:
    """The two factors when the reduction is a sum of products whose rounding is that of the accumulator."""
    if monoid == "sum" and isinstance(body, Apply) and precision_of(body.function) and body.dtype.is_float:
        if body.dtype is accumulate and body.dtype.bits >= 32:
            return body.args[0], body.args[1]
    return None


def _inside(scalar: Scalar, spans: Sequence[Span]) -> frozenset[str]:
    return scalar.variables() & {span.name for span in spans}


def _points(spans: Sequence[Span]) -> int:
    count = 1
    for span in spans:
        count *= span.size
    return count


def _ranked(array: Array, rank: int) -> Array:
    return array if array.ndim == rank else array.reshape((1,) * rank)


def _sum_of_products(left: Array, right: Array, shape: tuple[int, ...], reduced: int) -> Array:
    """`sum(left * right)` over the last dims, as one (batched) matrix product; arrays have size 1 along dims they lack."""
    rank, outer = len(shape), len(shape) - reduced
    scale = 1
    for axis in range(outer, rank):  # a reduced dim that one side lacks is summed on the other first
        in_left, in_right = left.shape[axis] == shape[axis], right.shape[axis] == shape[axis]
        if not in_right and in_left:
            left = left.sum(axis=axis, keepdims=True, dtype=left.dtype)
        elif not in_left and in_right:
            right = right.sum(axis=axis, keepdims=True, dtype=right.dtype)
        elif not in_left:
            scale *= shape[axis]
    lefts = [left.shape[a] == shape[a] and shape[a] != 1 for a in range(rank)]
    rights = [right.shape[a] == shape[a] and shape[a] != 1 for a in range(rank)]
    batch = [a for a in range(outer) if lefts[a] == rights[a]]
    rows = [a for a in range(outer) if lefts[a] and not rights[a]]
    columns = [a for a in range(outer) if rights[a] and not lefts[a]]
    summed = list(range(outer, rank))
    sizes = [shape[a] if shape[a] in (left.shape[a], right.shape[a]) else 1 for a in range(rank)]

    def group(axes: list[int]) -> int:
        return int(np.prod([sizes[a] for a in axes], dtype=np.int64))

    a = left.transpose([*batch, *rows, *columns, *summed]).reshape(group(batch), group(rows), group(summed))
    b = right.transpose([*batch, *rows, *summed, *columns]).reshape(group(batch), group(summed), group(columns))
    with np.errstate(all="ignore"):
        product = np.matmul(a, b) * left.dtype.type(scale) if scale != 1 else np.matmul(a, b)
    order = [*batch, *rows, *columns]
    spread = product.reshape([sizes[x] for x in order])
    return np.broadcast_to(spread.transpose(np.argsort(order)), shape[:outer])
