"""Random numbers from a counter-based generator: the same on every machine, but not the numbers that torch draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from codesign.frontend.lowering.builder import Builder, Operand, literal, read, where
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, F32, F64, I64, U64, DType
from codesign.ir.index import Index
from codesign.ir.scalar import Scalar, apply, cast
from codesign.ir.tensor import Random
from codesign.ir.types import TensorType


def drawn(
    b: Builder,
    distribution: Literal["uniform", "normal", "bits"],
    dtype: DType = F32,
    shape: Sequence[Index] | None = None,
) -> Value:
    """A tensor of a shape (the node's own, if none is given), of "bits" in i64; each draw of the model has its own stream of the generator, from
    1 on in the order in which torch draws."""
    b.draws += 1
    warning = f"{b.location}: {b.target} draws from this compiler's generator, not from torch's"
    if warning not in b.warnings:
        b.warnings.append(warning)
    own = I64 if distribution == "bits" else dtype if dtype.is_float else F32
    kind = TensorType(own, b.shape if shape is None else tuple(shape))
    return b.add(Random(distribution, kind, seed=b.draws, key=b.key, name=f"{b.name}_draw")).result


@lower("aten.rand.default", "aten.rand_like.default", "aten.randn.default", "aten.randn_like.default")
def rand(b: Builder, *_: Any, **__: Any) -> Value:
    values = drawn(b, "normal" if "randn" in b.target else "uniform")
    return values if b.dtype is F32 else b.compute(b.shape, lambda i: cast(read(values, i), b.dtype))


@lower("aten.uniform.default", "aten.normal_functional.default")
def between(b: Builder, x: Value, first: Operand = 0.0, second: Operand = 1.0, **_: Any) -> Value:
    """Uniform between two limits, or normal with a mean and a deviation."""
    normal = "normal" in b.target
    values, compute = drawn(b, "normal" if normal else "uniform"), opmath(b.dtype)

    def body(i: Any) -> Scalar:
        low, high = b.number(first, compute), b.number(second, compute)
        width = high if normal else apply("sub", high, low)
        return cast(apply("add", low, apply("mul", width, cast(read(values, i), compute))), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.normal.Tensor_Tensor", "aten.normal.Tensor_float", "aten.normal.float_Tensor")
def around(b: Builder, mean: Operand, deviation: Operand = 1.0, **_: Any) -> Value:
    """Normal with a mean and a deviation of each element's own."""
    values, compute = drawn(b, "normal"), opmath(b.dtype)

    def body(i: Any) -> Scalar:
        width = apply("mul", b.element(deviation, i, compute), cast(read(values, i), compute))
        return cast(apply("add", b.element(mean, i, compute), width), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.exponential.default")
def exponential(b: Builder, x: Value, rate: float = 1.0, **_: Any) -> Value:
    """What one waits for events that come at a rate."""
    values, compute = drawn(b, "uniform"), opmath(b.dtype)

    def body(i: Any) -> Scalar:
        return cast(apply("div", apply("neg", _waited(values, i, compute)), literal(rate, compute)), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.log_normal.default")
def log_normal(b: Builder, x: Value, mean: float = 1.0, deviation: float = 2.0, **_: Any) -> Value:
    """What has a normal logarithm."""
    values, compute = drawn(b, "normal"), opmath(b.dtype)

    def body(i: Any) -> Scalar:
        width = apply("mul", literal(deviation, compute), cast(read(values, i), compute))
        return cast(apply("exp", apply("add", literal(mean, compute), width)), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.bernoulli.p", "aten.bernoulli.default", "aten.bernoulli.Tensor")
def bernoulli(b: Builder, x: Value, p: Operand | None = None, **_: Any) -> Value:
    """1 with probability p (or the element of x), else 0."""
    values = drawn(b, "uniform")

    def body(i: Any) -> Scalar:
        chance = cast(read(x, i), F32) if p is None else b.element(p, i, F32)
        return cast(apply("lt", read(values, i), chance), b.dtype)

    return b.compute(b.shape, body)


def _waited(values: Value, i: Any, compute: DType) -> Scalar:
    """log(1 - u), which is finite as 1 - u is not zero."""
    return apply("log1p", apply("neg", cast(read(values, i), compute)))


@lower("aten.geometric.default")
def geometric(b: Builder, x: Value, p: float, **_: Any) -> Value:
    """How many trials it takes until one of chance p succeeds."""
    values, compute = drawn(b, "uniform"), F64 if b.dtype is F64 else F32

    def body(i: Any) -> Scalar:
        failed = apply("floor", apply("div", _waited(values, i, compute), literal(math.log1p(-p), compute)))
        return cast(apply("add", failed, literal(1, compute)), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.cauchy.default")
def cauchy(b: Builder, x: Value, median: float = 0.0, sigma: float = 1.0, **_: Any) -> Value:
    """Where a ray of a random angle hits a line: a distribution without a mean."""
    values, compute = drawn(b, "uniform"), opmath(b.dtype)

    def body(i: Any) -> Scalar:
        turn = apply("sub", cast(read(values, i), compute), literal(0.5, compute))
        place = apply("tan", apply("mul", literal(math.pi, compute), turn))
        return cast(apply("add", literal(median, compute), apply("mul", literal(sigma, compute), place)), b.dtype)

    return b.compute(b.shape, body)


EXACT = 1 << 24
"""Whole numbers below this one are products with a uniform number of 24 bits, each as likely as the others but for rounding."""


@lower(
    "aten.randint.default",
    "aten.randint.low",
    "aten.randint_like.default",
    "aten.randint_like.low_dtype",
    "aten.random.default",
    "aten.random.from",
    "aten.random.to",
)
def randint(b: Builder, *args: Any, **_: Any) -> Value:
    """Whole numbers from low (0 by default) up to, but not including, high: of known limits that are far apart the remainder of one word, or
    of two, as torch takes it."""
    limits = args[1:] if "like" in b.target or "random" in b.target else args[:-1]
    low, high = (0, limits[0]) if len(limits) == 1 else tuple(limits) or whole_limits(b.dtype)
    if high is None:
        high = whole_limits(b.dtype)[1]
    if isinstance(low, int) and isinstance(high, int) and high - low > EXACT:
        return _remainder(b, low, high - low)
    values = drawn(b, "uniform")

    def body(i: Any) -> Scalar:
        width = apply("sub", b.number(high, F32), b.number(low, F32))
        number = apply("floor", apply("mul", read(values, i), width))
        return apply("add", cast(cast(number, b.dtype), b.dtype), literal(low, b.dtype))

    return b.compute(b.shape, body)


def whole_limits(dtype: DType) -> tuple[int, int]:
    """Between which whole numbers torch draws if it is not told: all from 0 on that the dtype holds, of floats those that it holds exactly."""
    if dtype.is_float:
        return 0, (1 << (dtype.mantissa + 1)) + 1
    return 0, 1 << (1 if dtype is BOOL else dtype.bits - (dtype.kind == "int"))


def _remainder(b: Builder, low: int, width: int) -> Value:
    words = [drawn(b, "bits") for _ in range(1 if width <= 1 << 32 else 2)]

    def body(i: Any) -> Scalar:
        whole = cast(read(words[0], i), U64)
        if len(words) == 2:
            whole = apply("or", whole, apply("shl", cast(read(words[1], i), U64), literal(32, U64)))
        rest = cast(whole if width == 1 << 64 else apply("mod", whole, literal(width, U64)), I64)
        return cast(apply("add", rest, literal(low, I64)), b.dtype)

    return b.compute(b.shape, body)


def kept(b: Builder, shape: Sequence[Index], p: float) -> Value:
    """Which elements of a shape dropout keeps: those whose draw is below 1 - p, and none, without a draw, where p is 1."""
    if p == 1:
        return b.compute(shape, lambda i: literal(False, BOOL), name=f"{b.name}_mask")
    values = drawn(b, "uniform", shape=shape)
    chance = literal(1 - p, F32)
    return b.compute(shape, lambda i: apply("lt", read(values, i), chance), dtype=BOOL, name=f"{b.name}_mask")


def dropped(value: Scalar, keep: Scalar, p: float) -> Scalar:
    """An element divided by 1 - p where it is kept, else a product with zero, so that NaN stays NaN."""
    scale = literal(0 if p == 1 else 1 / (1 - p), value.dtype)
    return apply("mul", value, where(keep, scale, literal(0, value.dtype)))


@lower("aten.native_dropout.default", "aten.dropout.default")
def dropout(b: Builder, x: Value, p: float, train: bool | None) -> Any:
    """Outside training the identity; in training each element is kept, and divided by 1 - p, with probability 1 - p.

    The mask is a result like any other, so that a backward pass which saved it uses the very same one.
    """
    fused = "native" in b.target
    if train is False or p == 0:
        return (x, b.compute(b.shape, lambda i: literal(True, BOOL), name=f"{b.name}_mask")) if fused else x
    mask, compute = kept(b, b.shape, p), opmath(b.dtype)
    result = b.compute(b.shape, lambda i: cast(dropped(cast(read(x, i), compute), read(mask, i), p), b.dtype))
    return (result, mask) if fused else result


@lower("aten.rrelu_with_noise_functional.default")
def rrelu(
    b: Builder, x: Value, noise: Value, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any
) -> tuple[Value, Value]:
    """Numbers up to 0 times a slope: in training each has one of its own, drawn between two limits; and those slopes, 1 for other numbers."""
    compute = opmath(b.dtype)
    draws = drawn(b, "uniform") if training else None

    def slope(i: Any) -> Scalar:
        if draws is None:
            return literal((lower + upper) / 2, compute)
        width = apply("mul", literal(upper - lower, compute), cast(read(draws, i), compute))
        own = cast(apply("add", literal(lower, compute), width), b.dtype)
        return cast(where(_positive(x, i), literal(1, b.dtype), own), compute)

    def body(i: Any) -> Scalar:
        bent = cast(apply("mul", cast(read(x, i), compute), slope(i)), b.dtype)
        return where(_positive(x, i), read(x, i), bent)

    if draws is None:
        return b.compute(b.shape, body), noise
    return b.compute(b.shape, body), b.compute(b.shape, lambda i: cast(slope(i), b.dtype), name=f"{b.name}_slopes")


def _positive(x: Value, i: Any) -> Scalar:
    return apply("gt", read(x, i), literal(0, read(x, i).dtype))


@lower("aten.rrelu_with_noise_backward.default")
def rrelu_backward(
    b: Builder, grad: Value, x: Value, noise: Value, lower: float, upper: float, training: bool, of_result: bool
) -> Value:
    compute = opmath(b.dtype)
    drawn_slopes = training and upper - lower > 1e-6  # as torch decides it

    def body(i: Any) -> Scalar:
        same = literal((lower + upper) / 2, compute)
        slope = cast(read(noise, i), compute) if drawn_slopes else where(_positive(x, i), literal(1, compute), same)
        return cast(apply("mul", cast(read(grad, i), compute), slope), b.dtype)

    return b.compute(b.shape, body)
