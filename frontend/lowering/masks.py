"""Masks of truth values as indices: how many places they name depends on data, unless a select does."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.frontend.lowering.advanced import broadcast_shape, ranks_of, together
from codesign.frontend.lowering.builder import Builder, Operand, Point, broadcast, data_index, literal, read, where
from codesign.frontend.lowering.elementwise import truthy
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.scans import running_sum
from codesign.frontend.lowering.views import reshaped, shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, I64
from codesign.ir.index import Index, index, product
from codesign.ir.scalar import Scalar, apply, cast
from codesign.ir.tensor import Call
from codesign.ir.types import TensorType


def has_masks(indices: Sequence[Value | None]) -> bool:
    return any(ids is not None and tensor_type(ids).dtype is BOOL for ids in indices)


def _places(b: Builder, mask: Value, count: Index) -> list[Value]:
    """Of a mask with `count` true values, which data decides: where they are along each of its dims."""
    rank = len(shape_of(mask))
    if rank == 0:
        raise b.unsupported("a boolean mask of no dims as an index", "use torch.where")
    kind = TensorType(I64, (count, index(rank)))
    call = b.add(Call("aten.nonzero.default", [mask], [kind], attributes={"arg0": "%0"}, names=[f"{b.name}_places"]))
    b.warnings.append(f"{b.location}: the places of a mask depend on data; aten.nonzero finds them in an external call")

    def along(dim: int) -> Value:
        return b.compute((count,), lambda i: read(call.result, (*i, index(dim))), name=f"{b.name}_{dim}")

    return [along(dim) for dim in range(rank)]


@lower("aten.masked_select.default")
def masked_select(b: Builder, x: Value, mask: Value) -> Value:
    """The values at the true places of a mask, as far as the two are broadcast over each other."""
    shape = broadcast_shape([shape_of(x), shape_of(mask)])
    if not shape:
        shape = (index(1),)
    whole = b.compute(shape, lambda i: b.element(mask, i, BOOL), name=f"{b.name}_mask")
    places = _places(b, whole, b.shape[0])

    def body(i: Point) -> Scalar:
        point = [data_index(read(place, i), size, wrap=False) for place, size in zip(places, shape, strict=True)]
        return b.element(x, point, b.dtype)

    return b.compute(b.shape, body)


def count_of(shape: Sequence[Index], indices: Sequence[Value | None]) -> Index:
    """How many true values the masks among index tensors have, by the shape of the result: the last of the dims that these have in common."""
    _, start, rank = together(ranks_of(indices))
    return shape[start + rank - 1]


def without_masks(b: Builder, indices: Sequence[Value | None], count: Index) -> list[Value | None]:
    """Index tensors with each mask replaced by the places of its true values."""
    found: list[Value | None] = []
    for ids in indices:
        if ids is not None and tensor_type(ids).dtype is BOOL:
            found.extend(_places(b, ids, count))
        else:
            found.append(ids)
    return found


def count_given(b: Builder, x: Value, indices: Sequence[Value | None], values: Value) -> Index:
    """How many true values the masks among index tensors must have for the values that are written there."""
    ranks = ranks_of(indices)
    _, start, _ = together(ranks)
    after = len(shape_of(x)) - sum(rank is not None for rank in ranks) - start
    sizes = [
        shape_of(values),
        *(shape_of(ids) for ids in indices if ids is not None and tensor_type(ids).dtype is not BOOL),
    ]
    ends = [sizes[0][: len(sizes[0]) - after], *sizes[1:]]
    found = next((shape[-1] for shape in ends if shape and shape[-1] != 1), None)
    if found is None:
        raise b.unsupported("how many values a boolean mask writes is not known", "use torch.where or masked_scatter")
    return found


def masked_put(b: Builder, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool) -> Value | None:
    """A select, where one mask is the only index and all its places get the same values; else None."""
    given = [(d, ids) for d, ids in enumerate(indices) if ids is not None]
    dim, mask = given[0]
    width, compute = len(shape_of(mask)), opmath(b.dtype)
    rest = len(shape_of(x)) - width - dim
    sizes = shape_of(values)
    if len(given) != 1 or (len(sizes) > rest and sizes[len(sizes) - rest - 1] != 1):
        return None

    def body(i: Point) -> Scalar:
        point = (*i[:dim], index(0), *i[dim + width :])
        new, old = cast(b.element(values, point, tensor_type(values).dtype), compute), cast(read(x, i), compute)
        new = apply("add", old, new) if accumulate else new
        return cast(where(read(mask, i[dim : dim + width]), new, old), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(b: Builder, x: Value, mask: Value, value: Operand) -> Value:
    return b.compute(
        b.shape,
        lambda i: where(truthy(b.element(mask, i, BOOL)), b.number(value, b.dtype), b.element(x, i, b.dtype)),
    )


@lower("aten.masked_scatter.default")
def masked_scatter(b: Builder, x: Value, mask: Value, source: Value) -> Value:
    """The k-th true place of the mask gets the k-th element of source: its number is a running count of the mask."""
    order = _running_count(b, mask, b.shape)
    held = tensor_type(source).elements
    pool = reshaped(b, source, (held,), name=f"{b.name}_source")

    def body(i: Point) -> Scalar:
        chosen = read(mask, broadcast(shape_of(mask), i))
        number = where(chosen, apply("sub", read(order, i), literal(1, I64)), literal(0, I64))
        new = read(pool, (data_index(number, index(1), wrap=False),), literal(0, b.dtype) if held == 0 else None)
        return where(chosen, new, read(x, broadcast(shape_of(x), i)))

    return b.compute(b.shape, body)


def _running_count(b: Builder, mask: Value, shape: Sequence[Index]) -> Value:
    """How many true values a mask has up to each place, in row-major order, once it is broadcast to a shape."""
    flags = b.compute(shape, lambda i: cast(read(mask, broadcast(shape_of(mask), i)), I64), name=f"{b.name}_flags")
    flat = reshaped(b, flags, (product(shape),), name=f"{b.name}_flat")
    return reshaped(b, running_sum(b, flat, f"{b.name}_order"), shape, name=f"{b.name}_places")


@lower("aten.masked_scatter_backward.default")
def masked_scatter_backward(b: Builder, grad: Value, mask: Value, *_: object) -> Value:
    """The k-th element of the source gets the gradient of the k-th true place; what was not written gets none."""
    shape, held = shape_of(grad), product(b.shape)
    order = _running_count(b, mask, shape)
    zeros = b.compute((held,), lambda i: literal(0, b.dtype), name=f"{b.name}_zeros")

    def body(i: Point) -> tuple[Sequence[Index], Scalar]:
        number = apply("sub", read(order, i), literal(1, I64))
        chosen = read(mask, broadcast(shape_of(mask), i))
        return (where(chosen, number, literal(-1, I64)).as_index(),), read(grad, i)

    return reshaped(b, b.scatter("set", zeros, shape, body, within=False, name=f"{b.name}_taken"), b.shape)
