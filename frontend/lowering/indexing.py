"""Gathers and scatters: reads and writes whose position is itself read from a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codesign.frontend.lowering.advanced import advanced, advanced_point, broadcast_shape
from codesign.frontend.lowering.builder import Builder, Operand, Point, data_index, literal, read, where
from codesign.frontend.lowering.elementwise import converted
from codesign.frontend.lowering.masks import count_given, count_of, has_masks, masked_put, without_masks
from codesign.frontend.lowering.promotion import common_dtype, opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import reshaped, shape_of, unflatten, wrap
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.index import Index, index
from codesign.ir.numerics import highest, lowest
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

COMBINERS = {
    "sum": "add",
    "add": "add",
    "mean": "add",
    "prod": "mul",
    "multiply": "mul",
    "amax": "max",
    "amin": "min",
}


# -- reading -----------------------------------------------------------------------------------------------------------------
@lower("aten.embedding.default")
def embedding(b: Builder, table: Value, ids: Value, *_: Any) -> Value:
    """The row of the table that each id names."""
    rank = len(shape_of(ids))
    rows = shape_of(table)[0]
    return b.compute(b.shape, lambda i: read(table, (data_index(read(ids, i[:rank]), rows, wrap=False), *i[rank:])))


@lower("aten.index_select.default")
def index_select(b: Builder, x: Value, dim: int, ids: Value) -> Value:
    rank = len(shape_of(x))
    if rank == 0:
        return reshaped(b, x, b.shape)
    dim = wrap(dim, rank)
    size = shape_of(x)[dim]

    def body(i: Point) -> Scalar:
        place = data_index(read(ids, i[dim : dim + len(shape_of(ids))]), size, wrap=False)
        return read(x, (*i[:dim], place, *i[dim + 1 :]))

    return b.compute(b.shape, body)


@lower("aten.gather.default")
def gather(b: Builder, x: Value, dim: int, ids: Value, *, sparse_grad: bool = False) -> Value:
    """out[i] = x[i with the dim replaced by ids[i]]."""
    if not shape_of(x):
        return b.compute(b.shape, lambda i: read(x, ()))
    dim = wrap(dim, len(shape_of(x)))
    size = shape_of(x)[dim]

    def body(i: Point) -> Scalar:
        place = data_index(read(ids, i), size, wrap=False)
        return read(x, (*i[:dim], place, *i[dim + 1 :]) if i else (place,))

    return b.compute(b.shape, body)


@lower("aten.take.default")
def take(b: Builder, x: Value, ids: Value) -> Value:
    """Elements by their position in row-major order."""
    shape, count = shape_of(x), tensor_type(x).elements

    def body(i: Point) -> Scalar:
        return read(x, unflatten(b, data_index(read(ids, i), count), shape, b.shape))

    return b.compute(b.shape, body)


@lower("aten.one_hot.default")
def one_hot(b: Builder, ids: Value, *_: Any) -> Value:
    """1 at the class of each element. Its number is looked up among those of all classes, so that one that there is not is an error."""
    count = b.shape[-1]
    classes = b.compute((count,), lambda i: IndexValue(i[0]), name=f"{b.name}_classes")

    def body(i: Point) -> Scalar:
        own = read(classes, (data_index(read(ids, i[:-1]), count, wrap=False),))
        return cast(apply("eq", own, IndexValue(i[-1])), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index_tensor(b: Builder, x: Value, indices: Sequence[Value | None]) -> Value:
    shape = shape_of(x)
    if all(ids is None for ids in indices):
        return x
    if has_masks(indices):
        indices = without_masks(b, indices, count_of(b.shape, indices))
    _, start, rank = advanced(indices)
    return b.compute(b.shape, lambda i: read(x, advanced_point(shape, indices, i, start, rank)))


@lower("aten.bucketize.Tensor", "aten.bucketize.Scalar")
def bucketize(b: Builder, x: Operand, boundaries: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    """How many boundaries lie below the value (`right`: at or below); NaN lies above all."""
    kind = tensor_type(boundaries).dtype
    kind = kind if not isinstance(x, Value) else _common(x, boundaries)
    return b.reduce(
        "sum",
        b.shape,
        shape_of(boundaries),
        lambda i, r: _below(b, cast(read(boundaries, r), kind), b.element(x, i, kind), right),
        accumulate=b.dtype,
    )


def _common(x: Value, y: Value) -> DType:
    return opmath(common_dtype(x, y))


def _below(b: Builder, edge: Scalar, value: Scalar, right: bool) -> Scalar:
    return cast(apply("not", apply("gt" if right else "ge", edge, value)), b.dtype)


@lower("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(
    b: Builder,
    edges: Value,
    x: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
) -> Value:
    """As bucketize, with one sequence of edges per row."""
    kind = _common(x, edges) if isinstance(x, Value) else tensor_type(edges).dtype
    shape = shape_of(edges)
    right = right or side == "right"

    def body(i: Point, r: Point) -> Scalar:
        row = i[: len(shape) - 1] if len(shape) > 1 else ()
        place: Point = (*row, *r)
        if sorter is not None:
            place = (*row, data_index(read(sorter, place), shape[-1], wrap=False))
        return _below(b, cast(read(edges, place), kind), b.element(x, i, kind), right)

    return b.reduce("sum", b.shape, shape[-1:], body, accumulate=b.dtype)


# -- writing -----------------------------------------------------------------------------------------------------------------
def _along(b: Builder, x: Value, dim: int, ids: Value) -> Any:
    """Where point `i` of an index tensor writes, for the scatters along one dim."""
    rank = len(shape_of(x))
    if rank == 0:
        return lambda i: ()
    size = shape_of(x)[dim]
    return lambda i: (
        (*i[:dim], data_index(read(ids, i), size, wrap=False), *i[dim + 1 :])
        if i
        else (data_index(read(ids, ()), size, wrap=False),)
    )


@lower(
    "aten.scatter.src",
    "aten.scatter.value",
    "aten.scatter.reduce",
    "aten.scatter.value_reduce",
    "aten.scatter_add.default",
)
def scatter(b: Builder, x: Value, dim: int, ids: Value, source: Operand, *, reduce: str | None = None) -> Value:
    """x with source[i] written, added or multiplied in where ids[i] says along the dim."""
    combine = "add" if "scatter_add" in b.target else "set" if reduce is None else COMBINERS[reduce]
    dim = wrap(dim, len(shape_of(x)))
    place = _along(b, x, dim, ids)

    def value(i: Point) -> Scalar:
        return read(source, i) if isinstance(source, Value) else b.number(source, b.dtype)

    return scattered(b, combine, x, shape_of(ids), place, value)


def scattered(
    b: Builder,
    combine: str,
    x: Value,
    shape: Sequence[Index],
    place: Any,
    value: Any,
    name: str = "",
) -> Value:
    """A scatter whose sums and products of narrow floats are kept in float32."""
    kind = tensor_type(x).dtype
    compute = opmath(kind) if combine in ("add", "mul") else kind
    init = converted(b, x, compute)
    result = b.scatter(combine, init, shape, lambda i: (place(i), cast(value(i), compute)), name=name)
    return converted(b, result, kind)


def identity_of(combine: str, dtype: DType) -> bool | int | float:
    """What changes nothing that it is combined with."""
    if combine == "max":
        found = lowest(dtype)
    elif combine == "min":
        found = highest(dtype)
    else:
        return 1 if combine == "mul" else 0
    return found.item() if hasattr(found, "item") else found  # type: ignore[no-any-return]


def reduced_scatter(
    b: Builder,
    x: Value,
    shape: Sequence[Index],
    place: Any,
    value: Any,
    reduce: str,
    include_self: bool,
) -> Value:
    """A scatter with a reduction; without `include_self` the old value of every place written to is forgotten first."""
    kind = tensor_type(x).dtype
    combine = COMBINERS[reduce]
    compute = opmath(kind)
    start = converted(b, x, compute)
    if not include_self:
        untouched = b.compute(shape_of(x), lambda i: literal(False, BOOL), name=f"{b.name}_untouched")
        touched = b.scatter(
            "set", untouched, shape, lambda i: (place(i), literal(True, BOOL)), name=f"{b.name}_touched"
        )
        empty = literal(identity_of(combine, compute), compute)
        old = start
        start = b.compute(shape_of(x), lambda i: where(read(touched, i), empty, read(old, i)), name=f"{b.name}_start")
    total = b.scatter(combine, start, shape, lambda i: (place(i), cast(value(i), compute)))
    if reduce != "mean":
        return converted(b, total, kind)
    ones = b.compute(shape_of(x), lambda i: literal(1 if include_self else 0, compute), name=f"{b.name}_ones")
    count = b.scatter("add", ones, shape, lambda i: (place(i), literal(1, compute)), name=f"{b.name}_count")

    def body(i: Point) -> Scalar:
        number = apply("max", read(count, i), literal(1, compute))
        return cast(apply("div" if compute.is_float else "floordiv", read(total, i), number), kind)

    return b.compute(shape_of(x), body)


@lower("aten.scatter_reduce.two")
def scatter_reduce(
    b: Builder, x: Value, dim: int, ids: Value, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    dim = wrap(dim, len(shape_of(x)))
    place = _along(b, x, dim, ids)
    return reduced_scatter(b, x, shape_of(ids), place, lambda i: read(source, i), reduce, include_self)


def _rows(b: Builder, x: Value, dim: int, ids: Value) -> Any:
    """Where point `i` of a source tensor writes when ids name whole slices along the dim."""
    size = shape_of(x)[dim] if shape_of(x) else index(1)

    def place(i: Point) -> Point:
        if not shape_of(x):
            return ()
        at = read(ids, (i[dim],) if shape_of(ids) else ())
        return (*i[:dim], data_index(at, size), *i[dim + 1 :])

    return place


@lower("aten.index_add.default", "aten.index_copy.default")
def index_add(b: Builder, x: Value, dim: int, ids: Value, source: Value, *, alpha: int | float = 1) -> Value:
    """x with the slices of source added (or copied) at the places that ids name."""
    dim = wrap(dim, len(shape_of(x)))
    combine = "add" if "index_add" in b.target else "set"
    compute = opmath(b.dtype)

    def value(i: Point) -> Scalar:
        new = cast(read(source, i), compute)
        return new if alpha == 1 else apply("mul", new, literal(alpha, compute))

    return scattered(b, combine, x, shape_of(source), _rows(b, x, dim, ids), value)


@lower("aten.index_reduce.default")
def index_reduce(
    b: Builder, x: Value, dim: int, ids: Value, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    dim = wrap(dim, len(shape_of(x)))
    place = _rows(b, x, dim, ids)
    return reduced_scatter(b, x, shape_of(source), place, lambda i: read(source, i), reduce, include_self)


@lower("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(b: Builder, x: Value, dim: int, ids: Value, value: Operand) -> Value:
    shape = shape_of(x)
    dim = wrap(dim, len(shape))
    count = shape_of(ids)[0] if shape_of(ids) else index(1)
    source = (*shape[:dim], count, *shape[dim + 1 :]) if shape else (count,)
    return b.scatter("set", x, source, lambda i: (_rows(b, x, dim, ids)(i), b.number(value, b.dtype)))


@lower("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(
    b: Builder, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False, unsafe: bool = False
) -> Value:
    """x with values written (or added) where the index tensors point; a mask whose places all get one value becomes a select."""
    shape = shape_of(x)
    if has_masks(indices):
        chosen = masked_put(b, x, indices, values, accumulate)
        if chosen is not None:
            return chosen
        indices = without_masks(b, indices, count_given(b, x, indices, values))
    if all(ids is None for ids in indices):
        old, compute = x, opmath(b.dtype)
        return b.compute(
            shape,
            lambda i: (
                cast(apply("add", cast(read(old, i), compute), b.element(values, i, compute)), b.dtype)
                if accumulate
                else b.element(values, i, b.dtype)
            ),
        )
    _, start, rank = advanced(indices)
    common = broadcast_shape([shape_of(ids) for ids in indices if ids is not None])
    free = [n for d, n in enumerate(shape) if d >= len(indices) or indices[d] is None]
    domain = (*free[:start], *common, *free[start:])
    return scattered(
        b,
        "add" if accumulate else "set",
        x,
        domain,
        lambda i: advanced_point(shape, indices, i, start, rank),
        lambda i: b.element(values, i, tensor_type(values).dtype),
    )


@lower("aten.put.default")
def put(b: Builder, x: Value, ids: Value, source: Value, accumulate: bool = False) -> Value:
    """x with elements written by their position in row-major order."""
    count = tensor_type(x).elements
    shape, given = shape_of(ids), shape_of(source)
    if any(size == 0 for size in shape):
        return x
    flat = reshaped(b, x, (count,), name=f"{b.name}_flat")
    result = scattered(
        b,
        "add" if accumulate else "set",
        flat,
        shape,
        lambda i: (data_index(read(ids, i), count),),
        lambda i: read(source, b.reshape_point(i, shape, given)),
        name=f"{b.name}_put",
    )
    return reshaped(b, result, b.shape)
