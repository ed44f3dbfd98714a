"""Bags of embeddings: rows of a table summed, averaged or maximised per bag, and the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, data_index, literal, read, where
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I64
from codesign.ir.index import Index, IndexLike, index
from codesign.ir.scalar import IndexValue, Literal, Scalar, apply, cast


@lower("aten._embedding_bag.default", "aten._embedding_bag_forward_only.default")
def embedding_bag(
    b: Builder,
    table: Value,
    ids: Value,
    offsets: Value,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    weights: Value | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Value, ...]:
    """Rows of a table summed (0), averaged (1) or maximised (2) per bag; bag k starts at offsets[k].

    The three further results are what the backward needs, in the sizes that torch gives them (empty where it needs none): the
    bag of every row, how many rows a bag has, and of a maximum which row it is.
    """
    (count,), (rows, width) = shape_of(ids), shape_of(table)
    bags, compute, bag = b.shape[0], opmath(b.dtype), _started(b, count, offsets)

    def place(i: Point) -> Any:
        return data_index(apply("sub", read(bag, (i[0],)), literal(1, I64)), bags, wrap=False)

    def padding(i: Point) -> Scalar:
        wanted = literal(padding_idx, I64) if padding_idx >= 0 else b.number(rows + padding_idx, I64)
        return apply("eq", cast(read(ids, (i[0],)), I64), wanted)

    ignores = padding_idx != -1

    def row(i: Point, empty: Scalar) -> Scalar:
        value = cast(read(table, (data_index(read(ids, (i[0],)), rows, wrap=False), i[1])), compute)
        if weights is not None:
            value = apply("mul", value, cast(read(weights, (i[0],)), compute))
        return where(padding(i), empty, value) if ignores else value

    identity = literal(float("-inf") if mode == 2 else 0, compute)
    init = b.compute((bags, width), lambda i: identity, name=f"{b.name}_start")
    total = b.scatter(
        "max" if mode == 2 else "add",
        init,
        (count, width),
        lambda i: ((place(i), i[1]), row(i, identity)),
        within=False,
        name=f"{b.name}_total",
    )
    zeros = b.compute((bags,), lambda i: literal(0, compute), name=f"{b.name}_zeros")
    one, nothing = literal(1, compute), literal(0, compute)
    sizes = b.scatter(
        "add",
        zeros,
        (count,),
        lambda i: ((place(i),), where(padding(i), nothing, one) if ignores else one),
        within=False,
        name=f"{b.name}_sizes",
    )

    def body(i: Point) -> Scalar:
        value: Scalar = read(total, i)
        size = read(sizes, (i[0],))
        if mode == 1:
            value = apply("div", value, apply("max", size, one))
        if mode == 2:
            value = where(apply("eq", size, nothing), nothing, value)
        return cast(value, b.dtype)

    where_from = _greatest_rows(b, ids, bag, sizes, lambda i: row(i, identity), identity) if mode == 2 else None
    kept: list[Callable[[Point], Scalar]] = [
        lambda i: apply("sub", read(bag, i), literal(1, I64)),
        lambda i: read(sizes, i),
        lambda i: literal(0, I64) if where_from is None else read(where_from, i),
    ]
    return b.compute((bags, width), body), *(_further(b, k, value) for k, value in enumerate(kept, 1))


def _started(b: Builder, count: Index, offsets: Value) -> Value:
    """How many bags start at or before each position."""
    return b.reduce(
        "sum",
        (count,),
        shape_of(offsets)[:1],
        lambda i, r: cast(apply("le", cast(read(offsets, r), I64), IndexValue(i[0])), I64),
        accumulate=I64,
        name=f"{b.name}_bag",
    )


def _greatest_rows(
    b: Builder, ids: Value, bag: Value, sizes: Value, row: Callable[[Point], Scalar], identity: Literal
) -> Value:
    """The id of the row that gives a bag's maximum, per column; -1 for a bag without rows."""
    count = shape_of(ids)[0]

    def candidate(i: Point, r: Point) -> Scalar:
        inside = apply("eq", read(bag, r), IndexValue(i[0] + 1))
        return where(inside, row((r[0], i[1])), identity)

    winner = b.reduce("argmax", b.shape, (count,), candidate, name=f"{b.name}_winner")

    def chosen(i: Point) -> Scalar:
        found = cast(read(ids, (data_index(read(winner, i), count, wrap=False),)), I64)
        empty = apply("eq", read(sizes, (i[0],)), literal(0, tensor_type(sizes).dtype))
        return where(empty, literal(-1, I64), found)

    return b.compute(b.shape, chosen, name=f"{b.name}_greatest")


def _further(b: Builder, position: int, value: Callable[[Point], Scalar]) -> Value:
    kind = b.types[position]
    assert kind is not None
    return b.compute(kind.shape, lambda i: cast(value(i), kind.dtype), name=f"{b.name}_{position}")


@lower("aten._embedding_bag_dense_backward.default")
def embedding_bag_backward(
    b: Builder,
    grad: Value,
    ids: Value,
    bag: Value,
    sizes: Value,
    greatest: Value,
    rows: IndexLike,
    scale_grad_by_freq: bool,
    mode: int,
    weights: Value | None,
    padding_idx: int = -1,
) -> Value:
    """The gradient of each bag added to the rows in it: shared among them (mean), or to the greatest (maximum)."""
    compute = opmath(b.dtype)
    (count,), (bags, width) = shape_of(ids), shape_of(grad)
    zeros = b.compute(b.shape, lambda i: literal(0, compute), name=f"{b.name}_zeros")
    nothing = literal(0, compute)

    def of_greatest(i: Point) -> tuple[Point, Scalar]:
        at = cast(read(greatest, i), I64)
        some = apply("ge", at, literal(0, I64))
        place = data_index(where(some, at, literal(0, I64)), index(rows), wrap=False)
        return (place, i[1]), where(some, cast(read(grad, i), compute), nothing)

    if mode == 2:
        total = b.scatter("add", zeros, (bags, width), of_greatest, within=False, name=f"{b.name}_total")
        return b.compute(b.shape, lambda i: cast(read(total, i), b.dtype))
    frequency: Value | None = None
    if scale_grad_by_freq:
        none = b.compute((rows,), lambda i: nothing, name=f"{b.name}_none")
        ones = lambda i: ((data_index(read(ids, i), index(rows), wrap=False),), literal(1, compute))  # noqa: E731
        frequency = b.scatter("add", none, (count,), ones, name=f"{b.name}_frequency")

    def of_row(i: Point) -> tuple[Point, Scalar]:
        at = data_index(read(ids, (i[0],)), index(rows), wrap=False)
        owner = data_index(read(bag, (i[0],)), bags, wrap=False)
        value = cast(read(grad, (owner, i[1])), compute)
        if weights is not None:
            value = apply("mul", value, cast(read(weights, (i[0],)), compute))
        if mode == 1:
            value = apply("div", value, apply("max", cast(read(sizes, (owner,)), compute), literal(1, compute)))
        if frequency is not None:
            value = apply("div", value, read(frequency, (at,)))
        if padding_idx >= 0:
            ignored = apply("eq", cast(read(ids, (i[0],)), I64), literal(padding_idx, I64))
            value = where(ignored, nothing, value)
        return (at, i[1]), value

    total = b.scatter("add", zeros, (count, width), of_row, within=False, name=f"{b.name}_total")
    return b.compute(b.shape, lambda i: cast(read(total, i), b.dtype))


@lower("aten._embedding_bag_per_sample_weights_backward.default")
def embedding_bag_weights_backward(
    b: Builder, grad: Value, table: Value, ids: Value, offsets: Value, bag: Value, mode: int, padding_idx: int = -1
) -> Value:
    """Of each row's weight: the row times the gradient of its bag."""
    compute, rows, bags = opmath(b.dtype), shape_of(table)[0], shape_of(grad)[0]

    def body(i: Point, r: Point) -> Scalar:
        at = data_index(read(ids, i), rows, wrap=False)
        owner = data_index(read(bag, i), bags, wrap=False)
        value = apply("mul", cast(read(grad, (owner, r[0])), compute), cast(read(table, (at, r[0])), compute))
        if padding_idx < 0:
            return value
        return where(apply("eq", cast(read(ids, i), I64), literal(padding_idx, I64)), literal(0, compute), value)

    return b.reduce("sum", b.shape, shape_of(table)[1:], body, accumulate=compute, dtype=b.dtype)


@lower("aten._embedding_bag_backward.default")
def embedding_bag_backward_of_offsets(
    b: Builder,
    grad: Value,
    ids: Value,
    offsets: Value,
    bag: Value,
    sizes: Value,
    greatest: Value,
    rows: IndexLike,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    weights: Value | None,
    padding_idx: int = -1,
) -> Value:
    """The same, where the forward may have left it to the backward to find the bag of every row."""
    if sparse:
        raise b.unsupported("its result is a sparse tensor", "make the bag with sparse=False")
    (count,) = shape_of(ids)
    if shape_of(bag)[0] == 0 and count != 0:
        started = _started(b, count, offsets)
        last = lambda i: apply("sub", read(started, i), literal(1, I64))  # noqa: E731
        bag = b.compute((count,), last, name=f"{b.name}_of_row")
    return embedding_bag_backward(
        b, grad, ids, bag, sizes, greatest, rows, scale_grad_by_freq, mode, weights, padding_idx
    )
