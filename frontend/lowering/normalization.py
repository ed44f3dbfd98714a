"""Softmax and the normalisations, in the dtypes that torch keeps their statistics in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.elementwise import converted
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.reductions import mean_of, moments, reduce_over
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import reshaped, shape_of, wrap
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import DType
from codesign.ir.index import Index, IndexLike, index, product
from codesign.ir.scalar import Scalar, apply, cast


# -- softmax -----------------------------------------------------------------------------------------------------------------
@lower(
    "aten._softmax.default",
    "aten._log_softmax.default",
    "aten.softmax.int",
    "aten.log_softmax.int",
    "aten._safe_softmax.default",
)
def softmax(b: Builder, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    """exp(x - max) / sum, or x - max - log(sum); the safe form gives 0 for rows that are all -inf."""
    shape = shape_of(x)
    rank = len(shape)
    if rank == 0:
        value = 0 if "log" in b.target else 1
        return b.compute((), lambda i: literal(value, b.dtype))
    dim = wrap(dim, rank)
    compute = opmath(b.dtype)
    if shape[dim] == 0 or tensor_type(x).elements == 0:
        return b.compute(b.shape, lambda i: literal(0, b.dtype))
    kept = (*shape[:dim], index(1), *shape[dim + 1 :])

    def at(i: Point) -> Point:
        return (*i[:dim], index(0), *i[dim + 1 :])

    top = reduce_over(b, "max", x, [dim], True, name=f"{b.name}_max")

    def shifted(i: Point) -> Scalar:
        return apply("sub", cast(read(x, i), compute), cast(read(top, at(i)), compute))

    total = b.reduce(
        "sum",
        kept,
        (shape[dim],),
        lambda i, r: apply("exp", shifted((*i[:dim], r[0], *i[dim + 1 :]))),
        accumulate=compute,
        dtype=compute,
        name=f"{b.name}_sum",
    )

    def body(i: Point) -> Scalar:
        if "log" in b.target:
            return cast(apply("sub", shifted(i), apply("log", read(total, at(i)))), b.dtype)
        share = apply("div", apply("exp", shifted(i)), read(total, at(i)))
        if "safe" in b.target:
            empty = apply("eq", cast(read(top, at(i)), compute), literal(float("-inf"), compute))
            share = where(empty, literal(0, compute), share)
        return cast(share, b.dtype)

    return b.compute(b.shape, body)


# -- affine normalisation ------------------------------------------------------------------------------------------------------
def _reciprocal_root(variance: Scalar, eps: float, compute: DType) -> Scalar:
    return apply("rsqrt", apply("add", variance, literal(eps, compute)))


@lower("aten.native_layer_norm.default")
def layer_norm(
    b: Builder, x: Value, normalized: Sequence[IndexLike], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, Value, Value]:
    """Over the last dims; gives the result, the mean and 1 / sqrt(variance + eps), both with kept dims."""
    rank, width = len(shape_of(x)), len(normalized)
    dims = list(range(rank - width, rank))
    compute = accumulator(b.dtype)
    average, variance = moments(b, x, dims, 0, compute, b.name)
    root = b.compute(
        shape_of(variance), lambda i: _reciprocal_root(read(variance, i), eps, compute), name=f"{b.name}_rstd"
    )

    def body(i: Point) -> Scalar:
        row = [index(0) if d in dims else i[d] for d in range(rank)]
        value = apply("mul", apply("sub", cast(read(x, i), compute), read(average, row)), read(root, row))
        if weight is not None:
            value = apply("mul", value, cast(read(weight, i[-width:]), compute))
        if bias is not None:
            value = apply("add", value, cast(read(bias, i[-width:]), compute))
        return cast(value, b.dtype)

    result = b.compute(shape_of(x), body)
    return result, _statistic(b, average, 1), _statistic(b, root, 2)


def _statistic(b: Builder, value: Value, position: int) -> Value:
    """A statistic in the shape and dtype in which the node returns it."""
    kind = b.types[position]
    if kind is None:
        return value
    return converted(b, reshaped(b, value, kind.shape, name=f"{b.name}_{position}"), kind.dtype)


@lower("aten._fused_rms_norm.default")
def rms_norm(
    b: Builder, x: Value, normalized: Sequence[IndexLike], weight: Value | None, eps: float | None
) -> tuple[Value, Value]:
    """x / sqrt(mean(x^2) + eps) over the last dims, times the weight."""
    rank, width = len(shape_of(x)), len(normalized)
    dims = list(range(rank - width, rank))
    compute = accumulator(b.dtype)
    epsilon = eps if eps is not None else tensor_type(x).dtype.epsilon
    squares = b.compute(
        shape_of(x),
        lambda i: apply("mul", cast(read(x, i), compute), cast(read(x, i), compute)),
        name=f"{b.name}_squares",
    )
    average = mean_of(b, squares, dims, True, compute, name=f"{b.name}_mean")
    root = b.compute(
        shape_of(average), lambda i: _reciprocal_root(read(average, i), epsilon, compute), name=f"{b.name}_rstd"
    )

    def body(i: Point) -> Scalar:
        row = [index(0) if d in dims else i[d] for d in range(rank)]
        value = apply("mul", cast(read(x, i), compute), read(root, row))
        if weight is not None:
            value = apply("mul", value, cast(read(weight, i[-width:]), compute))
        return cast(value, b.dtype)

    return b.compute(shape_of(x), body), _statistic(b, root, 1)


@lower("aten.native_group_norm.default")
def group_norm(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    batch: IndexLike,
    channels: IndexLike,
    inner: IndexLike,
    groups: int,
    eps: float,
) -> tuple[Value, Value, Value]:
    """Each image's channels in groups, every group normalised over its channels and positions."""
    shape = shape_of(x)
    compute = accumulator(b.dtype)
    size = shape[1] // groups
    grouped = reshaped(b, x, (shape[0], index(groups), size, product(shape[2:])), name=f"{b.name}_groups")
    average, variance = moments(b, grouped, [2, 3], 0, compute, b.name)
    root = b.compute(
        shape_of(variance), lambda i: _reciprocal_root(read(variance, i), eps, compute), name=f"{b.name}_rstd"
    )

    def body(i: Point) -> Scalar:
        row = (i[0], b.simplify(i[1] // size, {"i1": shape[1]}), index(0), index(0))
        value = apply("mul", apply("sub", cast(read(x, i), compute), read(average, row)), read(root, row))
        return cast(_affine(value, weight, bias, i[1], compute), b.dtype)

    result = b.compute(shape, body)
    return result, _statistic(b, average, 1), _statistic(b, root, 2)


def _affine(value: Scalar, weight: Value | None, bias: Value | None, channel: Index, compute: DType) -> Scalar:
    if weight is not None:
        value = apply("mul", value, cast(read(weight, (channel,)), compute))
    if bias is not None:
        value = apply("add", value, cast(read(bias, (channel,)), compute))
    return value


# -- batch normalisation ---------------------------------------------------------------------------------------------------------
@lower("aten._native_batch_norm_legit_no_training.default")
def batch_norm_inference(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> tuple[Value, Value, Value]:
    """With the stored statistics, per channel (dim 1); the two saved statistics are empty."""
    result = _batch_normalised(b, x, weight, bias, running_mean, running_var, eps)
    return result, _empty(b, 1), _empty(b, 2)


def _batch_normalised(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, eps: float
) -> Value:
    compute = opmath(accumulator(b.dtype))

    def body(i: Point) -> Scalar:
        distance = apply("sub", cast(read(x, i), compute), cast(read(mean, (i[1],)), compute))
        value = apply("mul", distance, _reciprocal_root(cast(read(var, (i[1],)), compute), eps, compute))
        return cast(_affine(value, weight, bias, i[1], compute), b.dtype)

    return b.compute(shape_of(x), body)


def _empty(b: Builder, position: int) -> Value:
    kind = b.types[position]
    assert kind is not None
    return b.compute(kind.shape, lambda i: literal(0, kind.dtype), name=f"{b.name}_{position}")


def _batch_statistics(b: Builder, x: Value, eps: float) -> tuple[Value, Value, Value]:
    """Mean, biased variance and 1 / sqrt(variance + eps) per channel over all other dims."""
    shape, compute = shape_of(x), accumulator(b.dtype)
    dims = [d for d in range(len(shape)) if d != 1]
    average, variance = moments(b, x, dims, 0, compute, b.name)
    channels = (shape[1],)
    mean, var = (reshaped(b, v, channels, name=f"{b.name}_{n}") for v, n in ((average, "mean"), (variance, "var")))
    root = b.compute(channels, lambda i: _reciprocal_root(read(var, i), eps, compute), name=f"{b.name}_rstd")
    return mean, var, root


@lower(
    "aten._native_batch_norm_legit.no_stats",
    "aten._native_batch_norm_legit_functional.default",
    "aten._native_batch_norm_legit.default",
    "aten.native_batch_norm.default",
    "aten._batch_norm_with_update_functional.default",
)
def batch_norm(b: Builder, x: Value, weight: Value | None, bias: Value | None, *rest: Any) -> tuple[Value, ...]:
    """With the batch's statistics when training; the functional form also gives the updated running statistics."""
    running_mean: Value | None = None
    running_var: Value | None = None
    if b.target.endswith("no_stats"):
        training, momentum, eps = rest
    elif "with_update" in b.target:
        running_mean, running_var, momentum, eps = rest
        training = True
    else:
        running_mean, running_var, training, momentum, eps = rest
    if not training:
        assert running_mean is not None
        assert running_var is not None
        result = _batch_normalised(b, x, weight, bias, running_mean, running_var, eps)
        kept = zip((running_mean, running_var), b.types[3:], strict=False) if "functional" in b.target else ()
        extra = [value if kind is None else converted(b, value, kind.dtype) for value, kind in kept]
        return (result, _empty(b, 1), _empty(b, 2), *extra)
    if running_mean is not None and "functional" not in b.target:
        raise b.unsupported("running statistics changed in place", "capture the model with torch.export")
    mean, var, root = _batch_statistics(b, x, eps)
    result = _batch_normalised(b, x, weight, bias, mean, var, eps)
    outputs = [result, _statistic(b, mean, 1), _statistic(b, root, 2)]
    if "with_update" in b.target:
        outputs.append(_empty(b, 3))
    if running_mean is not None and running_var is not None:
        count = product(n for d, n in enumerate(shape_of(x)) if d != 1)
        if not count.is_constant:
            raise b.unsupported("running statistics over a dynamic batch", "fix the batch size")
        unbias = count.constant / max(count.constant - 1, 1)
        for stored, new, scale in ((running_mean, mean, 1.0), (running_var, var, unbias)):
            kind = b.types[len(outputs)]
            updated = _updated(b, stored, new, momentum, scale)
            outputs.append(updated if kind is None else converted(b, updated, kind.dtype))
    return tuple(outputs)


def _updated(b: Builder, running: Value, new: Value, momentum: float, scale: float) -> Value:
    """(1 - momentum) * running + momentum * scale * new."""
    kind = tensor_type(running).dtype
    compute = opmath(kind)

    def body(i: Point) -> Scalar:
        kept = apply("mul", literal(1 - momentum, compute), cast(read(running, i), compute))
        fresh = apply("mul", literal(momentum * scale, compute), cast(read(new, i), compute))
        return cast(apply("add", kept, fresh), kind)

    return b.compute(shape_of(running), body, name=f"{b.name}_running")


@lower("aten._weight_norm_interface_backward.default")
def weight_norm_backward(b: Builder, grad: Value, v: Value, g: Value, norms: Value, dim: int) -> tuple[Value, Value]:
    """Of `w = v g / |v|`, a norm for each place along a dim: what of the gradient lies along v goes to g, what lies across it to v."""
    sums, shape = accumulator(tensor_type(norms).dtype), shape_of(v)
    dim = wrap(dim, len(shape))
    others = [d for d in range(len(shape)) if d != dim]

    def at(i: Point) -> Point:
        return tuple(i[d] if d == dim else index(0) for d in range(len(shape)))

    def body(i: Point, r: Point) -> Scalar:
        point = list(i)
        for d, place in zip(others, r, strict=True):
            point[d] = place
        return apply("mul", cast(read(grad, point), sums), cast(read(v, point), sums))

    kept = tuple(shape[d] if d == dim else index(1) for d in range(len(shape)))
    along = b.reduce("sum", kept, [shape[d] for d in others], body, accumulate=sums, dtype=sums, name=f"{b.name}_along")

    def across(i: Point) -> Scalar:
        norm, total = cast(read(norms, at(i)), sums), read(along, at(i))
        part = apply("div", apply("mul", cast(read(v, i), sums), total), apply("mul", norm, norm))
        scale = apply("div", cast(read(g, at(i)), sums), norm)
        return cast(apply("mul", scale, apply("sub", cast(read(grad, i), sums), part)), tensor_type(v).dtype)

    def of_g(i: Point) -> Scalar:
        return cast(apply("div", read(along, i), cast(read(norms, i), sums)), tensor_type(g).dtype)

    return b.compute(shape, across, name=f"{b.name}_0"), b.compute(shape_of(g), of_g, name=f"{b.name}_1")
