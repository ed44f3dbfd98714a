"""Reductions over dims: sums in float32 (f64 for f64, i64 for integers), then the node's dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from codesign.frontend.lowering.builder import Builder, Operand, Point, literal, read, where
from codesign.frontend.lowering.elementwise import converted, truthy
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import reshaped, shape_of, wrap
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, F32, F64, I64, DType
from codesign.ir.index import Index, index, product
from codesign.ir.scalar import IndexValue, Scalar, apply, cast
from codesign.ir.tensor import Monoid


def reduced_dims(dims: Any, rank: int) -> list[int]:
    """Dims to reduce, from the front and sorted; None and () mean all of them."""
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return list(range(rank))
    given = dims if isinstance(dims, (list, tuple)) else [dims]
    return sorted({wrap(int(d), rank) for d in given if rank})


def join(i: Point, r: Point, dims: Sequence[int], rank: int, keepdim: bool = False) -> list[Index]:
    """The point of the operand: reduction indices at `dims`, the others in order (size-1 dims skipped when kept)."""
    inner = iter(r)
    if keepdim:
        return [next(inner) if d in dims else i[d] for d in range(rank)]
    outer = iter(i)
    return [next(inner) if d in dims else next(outer) for d in range(rank)]


def reduce_over(
    b: Builder,
    monoid: Monoid,
    x: Value,
    dims: Sequence[int],
    keepdim: bool,
    *,
    element: Callable[[Scalar], Scalar] = lambda a: a,
    accumulate: DType | None = None,
    dtype: DType | None = None,
    name: str = "",
) -> Value:
    """`x` reduced over dims with an element-wise function first; kept dims stay with size 1."""
    shape = shape_of(x)
    rank = len(shape)
    kept = [index(1) if d in dims else shape[d] for d in range(rank) if keepdim or d not in dims]
    return b.reduce(
        monoid,
        kept,
        [shape[d] for d in dims],
        lambda i, r: element(read(x, join(i, r, dims, rank, keepdim))),
        accumulate=accumulate,
        dtype=dtype,
        name=name,
    )


def count_of(b: Builder, x: Value, dims: Sequence[int], dtype: DType, correction: Operand = 0) -> Scalar:
    """How many elements are reduced, less a correction, as a scalar."""
    count = product(shape_of(x)[d] for d in dims)
    if count.is_constant and isinstance(correction, (int, float)):
        return literal(max(count.constant - correction, 0), dtype)
    whole = cast(IndexValue(count), dtype)
    if correction == 0:
        return whole
    less = apply("sub", whole, b.number(correction, dtype))
    return apply("max", less, literal(0, dtype))


@lower("aten.sum.dim_IntList", "aten.sum.default", "aten.nansum.default")
def sum_dims(b: Builder, x: Value, dims: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    sums = accumulator(b.dtype)

    def element(a: Scalar) -> Scalar:
        value = cast(a, b.dtype) if dtype is not None else a
        value = cast(value, sums)
        if "nansum" in b.target and sums.is_float:
            return where(apply("isnan", value), literal(0, sums), value)
        return value

    chosen = reduced_dims(dims, len(shape_of(x)))
    return reduce_over(b, "sum", x, chosen, keepdim, element=element, accumulate=sums, dtype=b.dtype)


@lower("aten.prod.dim_int", "aten.prod.default")
def prod(b: Builder, x: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    products = accumulator(b.dtype)

    def element(a: Scalar) -> Scalar:
        return cast(cast(a, b.dtype) if dtype is not None else a, products)

    chosen = reduced_dims(dim, len(shape_of(x)))
    return reduce_over(b, "prod", x, chosen, keepdim, element=element, accumulate=products, dtype=b.dtype)


def mean_of(
    b: Builder, x: Value, dims: Sequence[int], keepdim: bool, dtype: DType, name: str = "", given: DType | None = None
) -> Value:
    """The mean over dims in `dtype`, kept in the accumulator's dtype until it is divided."""
    sums = accumulator(given or dtype)
    total = reduce_over(
        b,
        "sum",
        x,
        dims,
        keepdim,
        element=lambda a: cast(cast(a, given or a.dtype), sums),
        accumulate=sums,
        dtype=sums,
        name=f"{name or b.name}_sum",
    )
    count = count_of(b, x, dims, sums)
    return b.compute(shape_of(total), lambda i: cast(apply("div", read(total, i), count), dtype), name=name)


@lower("aten.mean.dim", "aten.mean.default")
def mean(b: Builder, x: Value, dims: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    chosen = reduced_dims(dims, len(shape_of(x)))
    return mean_of(b, x, chosen, keepdim, b.dtype, given=b.dtype if dtype is not None else None)


def moments(
    b: Builder, x: Value, dims: Sequence[int], correction: Operand, compute: DType, name: str
) -> tuple[Value, Value]:
    """Mean and variance over dims (kept with size 1), both in `compute`: the mean first, then the squared distances."""
    average = mean_of(b, x, dims, True, compute, name=f"{name}_mean", given=compute)
    shape = shape_of(x)
    kept = shape_of(average)
    rank = len(shape)

    def square(i: Point, r: Point) -> Scalar:
        distance = apply("sub", cast(read(x, join(i, r, dims, rank, True)), compute), read(average, i))
        return apply("mul", distance, distance)

    total = b.reduce(
        "sum", kept, [shape[d] for d in dims], square, accumulate=compute, dtype=compute, name=f"{name}_squares"
    )
    count = count_of(b, x, dims, compute, correction)
    variance = b.compute(kept, lambda i: apply("div", read(total, i), count), name=f"{name}_variance")
    return average, variance


def _finish(
    b: Builder, value: Value, like: Value, dims: Sequence[int], keepdim: bool, dtype: DType, name: str
) -> Value:
    """A statistic with kept dims in the shape and dtype that the node has."""
    value = converted(b, value, dtype)
    if keepdim:
        return value
    shape = [n for d, n in enumerate(shape_of(like)) if d not in dims]
    return reshaped(b, value, shape, name=name)


@lower(
    "aten.var.correction", "aten.var.dim", "aten.var.default", "aten.std.correction", "aten.std.dim", "aten.std.default"
)
def var(
    b: Builder, x: Value, dims: Any = None, *rest: Any, correction: Any = 1, keepdim: bool = False, **named: Any
) -> Value:
    correction, keepdim, dims = _variance_arguments(b.target, dims, rest, correction, keepdim, named)
    chosen = reduced_dims(dims, len(shape_of(x)))
    _, variance = moments(b, x, chosen, correction, accumulator(b.dtype), b.name)
    if ".std." in b.target:
        variance = b.compute(shape_of(variance), lambda i: apply("sqrt", read(variance, i)), name=f"{b.name}_root")
    return _finish(b, variance, x, chosen, keepdim, b.dtype, b.name)


def _variance_arguments(
    target: str, dims: Any, rest: tuple[Any, ...], correction: Any, keepdim: bool, named: dict[str, Any]
) -> tuple[Any, bool, Any]:
    """The three generations of the signature: (unbiased), (dim, unbiased, keepdim), (dim, correction=, keepdim=)."""
    if target.endswith(".default"):
        unbiased = named.get("unbiased", True if dims is None else dims)
        return int(bool(unbiased)), False, None
    if target.endswith(".dim"):
        unbiased = rest[0] if rest else named.get("unbiased", True)
        return int(bool(unbiased)), rest[1] if len(rest) > 1 else keepdim, dims
    return 1 if correction is None else correction, keepdim, dims


@lower("aten.var_mean.correction", "aten.std_mean.correction")
def var_mean(
    b: Builder, x: Value, dims: Any = None, *, correction: Any = 1, keepdim: bool = False
) -> tuple[Value, Value]:
    chosen = reduced_dims(dims, len(shape_of(x)))
    correction = 1 if correction is None else correction
    average, variance = moments(b, x, chosen, correction, accumulator(b.dtype), b.name)
    if "std" in b.target:
        variance = b.compute(shape_of(variance), lambda i: apply("sqrt", read(variance, i)), name=f"{b.name}_root")
    return (
        _finish(b, variance, x, chosen, keepdim, b.dtype, b.name),
        _finish(b, average, x, chosen, keepdim, b.dtype, f"{b.name}_1"),
    )


@lower("aten.amax.default", "aten.amin.default")
def extremes(b: Builder, x: Value, dims: Any = None, keepdim: bool = False) -> Value:
    monoid: Monoid = "max" if "amax" in b.target else "min"
    return reduce_over(b, monoid, x, reduced_dims(dims, len(shape_of(x))), keepdim)


@lower("aten.max.default", "aten.min.default")
def extreme_of_all(b: Builder, x: Value) -> Value:
    monoid: Monoid = "max" if ".max." in b.target else "min"
    return reduce_over(b, monoid, x, reduced_dims(None, len(shape_of(x))), False)


@lower("aten.aminmax.default")
def aminmax(b: Builder, x: Value, *, dim: int | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    dims = reduced_dims(dim, len(shape_of(x)))
    low = reduce_over(b, "min", x, dims, keepdim, name=f"{b.name}_min")
    return low, reduce_over(b, "max", x, dims, keepdim, name=f"{b.name}_max")


@lower("aten.max.dim", "aten.min.dim")
def extreme_with_position(b: Builder, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    low = ".min." in b.target
    dims = reduced_dims(dim, len(shape_of(x)))
    values = reduce_over(b, "min" if low else "max", x, dims, keepdim, name=b.name)
    if not dims:  # of a 0-dim tensor: position 0
        return values, b.compute((), lambda i: literal(0, I64), name=f"{b.name}_1")
    positions = _position(b, "argmin" if low else "argmax", x, dims[0], keepdim, f"{b.name}_1")
    return values, positions


def _position(b: Builder, monoid: Monoid, x: Value, dim: int, keepdim: bool, name: str) -> Value:
    return reduce_over(b, monoid, x, [dim], keepdim, name=name)


@lower("aten.argmax.default", "aten.argmin.default")
def argmax(b: Builder, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    monoid: Monoid = "argmax" if "argmax" in b.target else "argmin"
    rank = len(shape_of(x))
    if rank == 0:
        return b.compute((), lambda i: literal(0, I64))
    if dim is None:
        flat = reshaped(b, x, (tensor_type(x).elements,), name=f"{b.name}_flat")
        position = _position(b, monoid, flat, 0, False, b.name)
        return reshaped(b, position, b.shape)
    return _position(b, monoid, x, wrap(dim, rank), keepdim, b.name)


@lower("aten.any.default", "aten.any.dim", "aten.any.dims", "aten.all.default", "aten.all.dim", "aten.all.dims")
def any_or_all(b: Builder, x: Value, dims: Any = None, keepdim: bool = False) -> Value:
    monoid: Monoid = "any" if ".any." in b.target else "all"
    shape = shape_of(x)
    chosen = reduced_dims(dims, len(shape))
    if dims is not None and isinstance(dims, (list, tuple)) and not dims:
        chosen = []  # an explicit empty list reduces nothing
    return reduce_over(b, monoid, x, chosen, keepdim, element=truthy, accumulate=BOOL, dtype=b.dtype)


@lower("aten.count_nonzero.dim_IntList", "aten.count_nonzero.default")
def count_nonzero(b: Builder, x: Value, dims: Any = None) -> Value:
    chosen = reduced_dims(dims, len(shape_of(x)))
    return reduce_over(
        b, "sum", x, chosen, False, element=lambda a: cast(truthy(a), b.dtype), accumulate=b.dtype, dtype=b.dtype
    )


@lower("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim", "aten.norm.Scalar")
def vector_norm(
    b: Builder, x: Value, order: Any = 2, dims: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Value:
    """(sum |x|^p)^(1/p), with its limits for p = 0 (how many are not zero) and p = +-inf."""
    chosen = reduced_dims(dims, len(shape_of(x)))
    p = float(2 if order is None else order)
    compute = F64 if b.dtype is F64 else F32 if b.dtype.is_float else opmath(b.dtype)

    def magnitude(a: Scalar) -> Scalar:
        return apply("abs", cast(cast(a, b.dtype) if dtype is not None else a, compute))

    if p in (float("inf"), float("-inf")):
        return reduce_over(
            b, "max" if p > 0 else "min", x, chosen, keepdim, element=magnitude, accumulate=compute, dtype=b.dtype
        )

    def element(a: Scalar) -> Scalar:
        value = magnitude(a)
        if p == 0:
            return cast(truthy(value), compute)
        if p == 1:
            return value
        return apply("mul", value, value) if p == 2 else apply("pow", value, literal(p, compute))

    total = reduce_over(
        b, "sum", x, chosen, keepdim, element=element, accumulate=compute, dtype=compute, name=f"{b.name}_sum"
    )
    if p in (0, 1):
        root: Callable[[Scalar], Scalar] = lambda a: a  # noqa: E731
    elif p == 2:
        root = lambda a: apply("sqrt", a)  # noqa: E731
    else:
        root = lambda a: apply("pow", a, literal(1 / p, compute))  # noqa: E731
    return b.compute(shape_of(total), lambda i: cast(root(read(total, i)), b.dtype))


@lower("aten.dist.default")
def dist(b: Builder, x: Value, y: Value, p: Any = 2) -> Value:
    """The p-norm of x - y."""
    kinds = [tensor_type(v).shape for v in (x, y)]
    rank = max(map(len, kinds))
    padded = [(index(1),) * (rank - len(s)) + s for s in kinds]
    shape = [a if c == 1 else c for a, c in zip(*padded, strict=True)]
    gap = b.pointwise(lambda a, c: apply("sub", a, c), x, y, compute=opmath(b.dtype), shape=shape, name=f"{b.name}_gap")
    return vector_norm(b, gap, p)
