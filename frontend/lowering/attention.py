"""Products that torch keeps whole until asked: matmul of any ranks and scaled dot-product attention.

Attention is taken apart into its two products and a softmax here; later passes see nothing but those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codesign.frontend.lowering.builder import Builder, Point, broadcast, literal, read, where
from codesign.frontend.lowering.matmul import dot, mv, product_of_matrices
from codesign.frontend.lowering.promotion import accumulator, opmath, product_sums
from codesign.frontend.lowering.random import dropped, kept
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Literal, Scalar, apply, cast


@lower("aten.matmul.default")
def matmul(b: Builder, x: Value, y: Value) -> Value:
    """The product over the last dim of x and the last but one of y, leading dims broadcast; no reshape in between."""
    left, right = shape_of(x), shape_of(y)
    if len(left) == 1 and len(right) == 1:
        return dot(b, x, y)
    if len(left) == 2 and len(right) == 1:
        return mv(b, x, y)
    if len(left) == len(right) == 3 and left[0] == right[0]:
        return product_of_matrices(b, x, y)
    sums = product_sums(b.dtype)

    def body(i: Point, r: Point) -> Scalar:
        rows = 0 if len(left) == 1 else 1
        columns = 0 if len(right) == 1 else 1
        batch = i[: len(i) - rows - columns]
        row = (i[len(batch)],) if rows else ()
        column = (i[-1],) if columns else ()
        a = read(x, (*broadcast(left[:-2], batch), *row, r[0]))
        c = read(y, (*broadcast(right[:-2], batch), r[0], *column))
        return b.products.multiply(a, c, sums)

    return b.reduce("sum", b.shape, (left[-1],), body, accumulate=sums, dtype=b.dtype)


@dataclass(frozen=True)
class Attention:
    """What the scores of a call are made of; heads of keys and values may be shared by groups of query heads.

    Scores and weights are kept in the dtype of the inputs' arithmetic (float32 for narrow floats). `dropout_p`: of the weights.
    """

    query: Value
    key: Value
    mask: Value | None
    is_causal: bool
    factor: Literal
    batch: tuple[Index, ...]
    dropout_p: float = 0.0

    @classmethod
    def of(
        cls,
        b: Builder,
        query: Value,
        key: Value,
        mask: Value | None,
        dropout_p: float,
        is_causal: bool,
        scale: float | None,
        batch: tuple[Index, ...],
    ) -> Attention:
        width = shape_of(query)[-1]
        if not width.is_constant and scale is None:
            raise b.unsupported("attention over a dynamic head size", "give scale= explicitly")
        factor = literal(1 / math.sqrt(width.constant) if scale is None else scale, opmath(tensor_type(query).dtype))
        return cls(query, key, mask, is_causal, factor, batch, dropout_p)

    @property
    def compute(self) -> DType:
        return opmath(tensor_type(self.query).dtype)

    @property
    def shape(self) -> tuple[Index, ...]:
        """Of the scores: batch dims, rows, columns."""
        return (*self.batch, shape_of(self.query)[-2], shape_of(self.key)[-2])

    @property
    def group(self) -> Index | None:
        """How many query heads share one head of keys; None where each has its own (or broadcasting rules)."""
        heads, owners = shape_of(self.query), shape_of(self.key)
        if len(owners) < 3 or len(heads) < 3 or owners[-3] in (heads[-3], index(1)) or heads[-3] == 1:
            return None
        return heads[-3] // owners[-3]

    def shared(self, shape: Sequence[Index], point: Sequence[Index]) -> list[Index]:
        """The leading dims of keys or values at a point of the leading dims of the scores."""
        place = list(broadcast(shape[:-2], point))
        if self.group is not None:
            place[-1] = point[-1] // self.group
        return place

    def scores(self, b: Builder) -> Value:
        """scale * q k^T + mask, -inf where a mask or causality leaves nothing."""
        q, k = shape_of(self.query), shape_of(self.key)
        sums = accumulator(tensor_type(self.query).dtype)
        low = literal(float("-inf"), self.compute)

        def score(i: Point, r: Point) -> Scalar:
            x = read(self.query, (*broadcast(q[:-2], i[:-2]), i[-2], r[0]))
            y = read(self.key, (*self.shared(k, i[:-2]), i[-1], r[0]))
            return b.products.multiply(x, y, sums)

        product = b.reduce(
            "sum", self.shape, (q[-1],), score, accumulate=sums, dtype=self.compute, name=f"{b.name}_product"
        )

        def masked(i: Point) -> Scalar:
            result = apply("mul", read(product, i), self.factor)
            if self.is_causal:
                result = where(apply("le", IndexValue(i[-1]), IndexValue(i[-2])), result, low)
            if self.mask is None:
                return result
            given = read(self.mask, broadcast(shape_of(self.mask), i))
            if tensor_type(self.mask).dtype is BOOL:
                return where(given, result, low)
            return apply("add", result, cast(given, self.compute))

        return b.compute(self.shape, masked, name=f"{b.name}_scores")

    def softmax(self, b: Builder, scores: Value, empty_rows: bool) -> tuple[Value, Value, Value]:
        """Weights, rounded to the node's dtype after some of them are dropped; each row's maximum and sum of exponentials, of all of its scores.

        With `empty_rows`, weights are 0 where every score of the row is -inf.
        """
        shape, compute = shape_of(scores), self.compute
        top = b.reduce("max", shape[:-1], shape[-1:], lambda i, r: read(scores, (*i, *r)), name=f"{b.name}_max")

        def raised(i: Point) -> Scalar:
            return apply("exp", apply("sub", read(scores, i), read(top, i[:-1])))

        total = b.reduce(
            "sum", shape[:-1], shape[-1:], lambda i, r: raised((*i, *r)), accumulate=compute, name=f"{b.name}_sum"
        )
        keep = kept(b, shape, self.dropout_p) if self.dropout_p > 0 else None

        def share(i: Point) -> Scalar:
            result = apply("div", raised(i), read(total, i[:-1]))
            if empty_rows:
                empty = apply("eq", read(top, i[:-1]), literal(float("-inf"), compute))
                result = where(empty, literal(0, compute), result)
            if keep is not None:
                result = dropped(result, read(keep, i), self.dropout_p)
            return cast(result, b.dtype)

        return b.compute(shape, share, name=f"{b.name}_weights"), top, total

    def mixed(self, b: Builder, weights: Value, value: Value) -> Value:
        """The sum of the values by weight: the second product."""
        sums = accumulator(b.dtype)

        def body(i: Point, r: Point) -> Scalar:
            x = read(weights, (*i[:-1], r[0]))
            y = read(value, (*self.shared(shape_of(value), i[:-2]), r[0], i[-1]))
            return b.products.multiply(x, y, sums)

        return b.reduce("sum", b.shape, self.shape[-1:], body, accumulate=sums, dtype=b.dtype)


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
    """dropout(softmax(scale * q k^T + mask)) v; rows that a mask leaves empty give 0, and heads of keys may be shared.

    Rounded where torch's own composition of this operator rounds: the weights before the second product.
    """
    call = Attention.of(b, query, key, mask, dropout_p, is_causal, scale, b.shape[:-2])
    weights, _, _ = call.softmax(b, call.scores(b), empty_rows=mask is not None)
    return call.mixed(b, weights, value)


@lower("aten._scaled_dot_product_flash_attention_for_cpu.default")
def attention_with_logsumexp(
    b: Builder,
    query: Value,
    key: Value,
    value: Value,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Value | None = None,
    scale: float | None = None,
) -> tuple[Value, Value]:
    """As above, and the logarithm of each row's sum of exponentials (-inf where a row is empty), which the backward needs."""
    call = Attention.of(b, query, key, attn_mask, dropout_p, is_causal, scale, b.shape[:-2])
    weights, top, total = call.softmax(b, call.scores(b), empty_rows=attn_mask is not None)
    kind = b.types[1]
    assert kind is not None

    def body(i: Point) -> Scalar:
        empty = apply("eq", read(top, i), literal(float("-inf"), call.compute))
        logarithm = apply("add", read(top, i), apply("log", read(total, i)))
        return cast(where(empty, literal(float("-inf"), call.compute), logarithm), kind.dtype)

    return call.mixed(b, weights, value), b.compute(kind.shape, body, name=f"{b.name}_logsumexp")


@lower("aten._scaled_dot_product_flash_attention_for_cpu_backward.default")
def attention_backward(
    b: Builder,
    grad: Value,
    query: Value,
    key: Value,
    value: Value,
    out: Value,
    logsumexp: Value,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Value | None = None,
    scale: float | None = None,
) -> tuple[Value, Value, Value]:
    """The gradients of query, key and value, from weights made again out of scores and their logsumexp.

    P = exp(S - logsumexp), dP = dO v^T, dS = P * (dP - sum(dO * O)) * scale; dq = dS k, dk = dS^T q, dv = P^T dO
    (Dao et al., "FlashAttention", 2022, appendix B).
    """
    if dropout_p > 0:
        raise b.unsupported(
            "the backward of attention with dropout, which isn't told what its forward dropped",
            "call torch.nn.functional.scaled_dot_product_attention under autograd: torch takes it apart where dropout_p is above 0",
        )
    call = Attention.of(b, query, key, attn_mask, dropout_p, is_causal, scale, shape_of(query)[:-2])
    scores, sums = call.scores(b), accumulator(tensor_type(query).dtype)

    def weight(i: Point) -> Scalar:
        total = cast(read(logsumexp, i[:-1]), call.compute)
        empty = apply("eq", total, literal(float("-inf"), call.compute))
        return where(empty, literal(0, call.compute), apply("exp", apply("sub", read(scores, i), total)))

    weights = b.compute(call.shape, weight, name=f"{b.name}_weights")

    def along(x: Value) -> Value:
        """grad times x, summed over the last dim of the values."""
        own = x is out
        return b.reduce(
            "sum",
            call.shape[:-1] if own else call.shape,
            shape_of(value)[-1:],
            lambda i, r: b.products.multiply(
                read(grad, (*(i if own else i[:-1]), r[0])),
                read(x, (*(i if own else (*call.shared(shape_of(x), i[:-2]), i[-1])), r[0])),
                sums,
            ),
            accumulate=sums,
            dtype=call.compute,
            name=f"{b.name}_{'mean' if own else 'change'}",
        )

    mean, change = along(out), along(value)

    def slope(i: Point) -> Scalar:
        distance = apply("sub", read(change, i), read(mean, i[:-1]))
        return apply("mul", apply("mul", read(weights, i), distance), call.factor)

    slopes = b.compute(call.shape, slope, name=f"{b.name}_slopes")
    of_query = b.reduce(
        "sum",
        shape_of(query),
        call.shape[-1:],
        lambda i, r: b.products.multiply(
            read(slopes, (*i[:-1], r[0])),
            read(key, (*call.shared(shape_of(key), i[:-2]), r[0], i[-1])),
            sums,
        ),
        accumulate=sums,
        dtype=tensor_type(query).dtype,
    )
    return of_query, _of_owner(b, call, slopes, query, key, "key"), _of_owner(b, call, weights, grad, value, "value")


def _of_owner(b: Builder, call: Attention, weights: Value, rows: Value, owner: Value, label: str) -> Value:
    """weights^T rows: the gradient of keys or values, over all query heads that share one head of them."""
    sums = accumulator(tensor_type(owner).dtype)
    group = call.group

    def body(i: Point, r: Point) -> Scalar:
        heads = i[:-2] if group is None else (*i[:-3], i[-3] * group + r[1])
        x, y = read(weights, (*heads, r[0], i[-2])), read(rows, (*heads, r[0], i[-1]))
        return b.products.multiply(x, y, sums)

    over = (call.shape[-2],) if group is None else (call.shape[-2], group)
    return b.reduce(
        "sum",
        shape_of(owner),
        over,
        body,
        accumulate=sums,
        dtype=tensor_type(owner).dtype,
        name=f"{b.name}_{label}",
    )
