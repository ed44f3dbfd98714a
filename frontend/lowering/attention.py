"""Products that torch keeps whole until asked: matmul of any ranks and scaled dot-product attention.

Attention is taken apart into its two products and a softmax here; later passes see nothing but those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from codesign.frontend.lowering.builder import Builder, Point, broadcast, literal, read, where
from codesign.frontend.lowering.matmul import dot, mv
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL
from codesign.ir.index import Index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast


@lower("aten.matmul.default")
def matmul(b: Builder, x: Value, y: Value) -> Value:
    """The product over the last dim of x and the last but one of y, leading dims broadcast; no reshape in between."""
    left, right = shape_of(x), shape_of(y)
    if len(left) == 1 and len(right) == 1:
        return dot(b, x, y)
    if len(left) == 2 and len(right) == 1:
        return mv(b, x, y)
    sums = accumulator(b.dtype)

    def body(i: Point, r: Point) -> Scalar:
        rows = 0 if len(left) == 1 else 1
        columns = 0 if len(right) == 1 else 1
        batch = i[: len(i) - rows - columns]
        row = (i[len(batch)],) if rows else ()
        column = (i[-1],) if columns else ()
        a = read(x, (*broadcast(left[:-2], batch), *row, r[0]))
        c = read(y, (*broadcast(right[:-2], batch), r[0], *column))
        return apply("mul", cast(a, sums), cast(c, sums))

    return b.reduce("sum", b.shape, (left[-1],), body, accumulate=sums, dtype=b.dtype)


@lower("aten.scaled_dot_product_attention.default")
def attention(
    b: Builder,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """softmax(scale * q k^T + mask) v; rows that a mask leaves empty give 0, and heads of keys may be shared.

    Scores and weights are kept in the dtype of the inputs' arithmetic (float32 for narrow floats) and rounded where torch's
    own composition of this operator rounds: the weights before the second product.
    """
    if dropout_p > 0:
        raise b.unsupported("attention with dropout", "put the model in evaluation mode")
    q, k, v = shape_of(query), shape_of(key), shape_of(value)
    kind = tensor_type(query).dtype
    compute, sums = opmath(kind), accumulator(kind)
    rows, columns, width = q[-2], k[-2], q[-1]
    if not width.is_constant and scale is None:
        raise b.unsupported("attention over a dynamic head size", "give scale= explicitly")
    factor = literal(1 / math.sqrt(width.constant) if scale is None else scale, compute)
    batch = b.shape[:-2]

    def shared(shape: Sequence[Index], point: Sequence[Index]) -> list[Index]:
        """The leading dims of keys or values; groups of query heads share one head of them."""
        place = list(broadcast(shape[:-2], point))
        if enable_gqa and len(shape) >= 3 and shape[-3] != q[-3]:
            group = q[-3] // shape[-3]
            place[-1] = point[-1] // group
        return place

    def score(i: Point, r: Point) -> Scalar:
        a = read(query, (*broadcast(q[:-2], i[:-2]), i[-2], r[0]))
        c = read(key, (*shared(k, i[:-2]), i[-1], r[0]))
        return apply("mul", cast(a, sums), cast(c, sums))

    product = b.reduce(
        "sum", (*batch, rows, columns), (width,), score, accumulate=sums, dtype=compute, name=f"{b.name}_product"
    )
    low = literal(float("-inf"), compute)

    def masked(i: Point) -> Scalar:
        result = apply("mul", read(product, i), factor)
        if is_causal:
            ahead = apply("le", IndexValue(i[-1]), IndexValue(i[-2]))
            result = where(ahead, result, low)
        if mask is not None:
            given = read(mask, broadcast(shape_of(mask), i))
            if tensor_type(mask).dtype is BOOL:
                result = where(given, result, low)
            else:
                result = apply("add", result, cast(given, compute))
        return result

    scores = b.compute((*batch, rows, columns), masked, name=f"{b.name}_scores")
    weights = _softmax(b, scores, empty_rows=mask is not None)

    def mixed(i: Point, r: Point) -> Scalar:
        a = read(weights, (*i[:-1], r[0]))
        c = read(value, (*shared(v, i[:-2]), r[0], i[-1]))
        return apply("mul", cast(a, sums), cast(c, sums))

    return b.reduce("sum", b.shape, (columns,), mixed, accumulate=sums, dtype=b.dtype)


def _softmax(b: Builder, scores: Value, empty_rows: bool) -> Value:
    """Softmax over the last dim, rounded to the node's dtype; with `empty_rows`, 0 where every score is -inf."""
    shape, compute = shape_of(scores), tensor_type(scores).dtype
    top = b.reduce("max", shape[:-1], shape[-1:], lambda i, r: read(scores, (*i, *r)), name=f"{b.name}_max")

    def raised(i: Point) -> Scalar:
        return apply("exp", apply("sub", read(scores, i), read(top, i[:-1])))

    total = b.reduce(
        "sum", shape[:-1], shape[-1:], lambda i, r: raised((*i, *r)), accumulate=compute, name=f"{b.name}_sum"
    )

    def share(i: Point) -> Scalar:
        result = apply("div", raised(i), read(total, i[:-1]))
        if empty_rows:
            empty = apply("eq", read(top, i[:-1]), literal(float("-inf"), compute))
            result = where(empty, literal(0, compute), result)
        return cast(result, b.dtype)

    return b.compute(shape, share, name=f"{b.name}_weights")
