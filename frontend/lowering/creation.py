"""Tensors made from nothing: constants, ranges, and uninitialised memory (which we fill with zeros)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codesign.frontend.lowering.builder import Builder, Operand, literal, where
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value
from codesign.ir.dtypes import F32, F64, I64
from codesign.ir.index import index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast


def _filled(b: Builder, value: Operand) -> Value:
    return b.compute(b.shape, lambda i: b.number(value, b.dtype))


@lower("aten.full.default", "aten.full_like.default", "aten.new_full.default", "aten.fill.Scalar", "aten.fill.Tensor")
def full(b: Builder, _: Any, value: Operand, **__: Any) -> Value:
    return _filled(b, value)


@lower("aten.scalar_tensor.default")
def scalar_tensor(b: Builder, value: Operand, **_: Any) -> Value:
    return _filled(b, value)


def _constant(value: int) -> Callable[..., Value]:
    def rule(b: Builder, *_: Any, **__: Any) -> Value:
        return _filled(b, value)

    return rule


lower(
    "aten.zeros.default",
    "aten.zeros_like.default",
    "aten.new_zeros.default",
    "aten._new_zeros_with_same_feature_meta.default",
    "aten.zero.default",
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_strided.default",
    "aten.empty_permuted.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
)(_constant(0))
lower("aten.ones.default", "aten.ones_like.default", "aten.new_ones.default")(_constant(1))


@lower("aten.arange.start_step", "aten.arange.start", "aten.arange.default", "prims.iota.default")
def arange(b: Builder, *numbers: Any, **named: Any) -> Value:
    """start + i * step: exact integers where both are whole, else in the accumulating float dtype."""
    start: Any
    step: Any
    if b.target.startswith("prims"):
        start, step = named.get("start", 0), named.get("step", 1)
    elif len(numbers) == 1:
        start, step = 0, 1
    else:
        start, step = numbers[0], numbers[2] if len(numbers) > 2 else named.get("step", 1)
    whole = not isinstance(start, float) and not isinstance(step, float)
    if whole and not isinstance(start, Scalar) and not isinstance(step, Scalar):
        return b.compute(b.shape, lambda i: cast(IndexValue(i[0] * index(step) + index(start)), b.dtype))
    compute = opmath(b.dtype) if b.dtype.is_float else I64

    def body(i: tuple[Any, ...]) -> Scalar:
        position = cast(IndexValue(i[0]), compute)
        return cast(apply("add", b.number(start, compute), apply("mul", position, b.number(step, compute))), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.eye.default", "aten.eye.m")
def eye(b: Builder, *_: Any, **__: Any) -> Value:
    return b.compute(
        b.shape,
        lambda i: where(apply("eq", IndexValue(i[0]), IndexValue(i[1])), literal(1, b.dtype), literal(0, b.dtype)),
    )


@lower("aten.linspace.default")
def linspace(b: Builder, start: Operand, end: Operand, steps: Any, **_: Any) -> Value:
    """From both ends, so that the last value is exactly `end`; integers are cut from a float64 that is rounded once.

    The step is taken apart into 24 bits and the rest, whose products with a position are exact, as the fused multiply-add of
    torch's kernel is.
    """
    whole, count = b.dtype.is_integer, b.shape[0]
    compute = F64 if whole else opmath(b.dtype)

    def moved(function: str, end: Scalar, step: Scalar, places: Scalar) -> Scalar:
        if not whole:
            return apply(function, end, apply("mul", step, places))
        high = cast(cast(step, F32), F64)
        near = apply(function, end, apply("mul", high, places))
        return apply(function, near, apply("mul", apply("sub", step, high), places))

    def body(i: tuple[Any, ...]) -> Scalar:
        low, high = (cast(b.number(n, b.dtype), F64) if whole else b.number(n, compute) for n in (start, end))
        if count == 1:
            return cast(low, b.dtype)
        step = apply("div", apply("sub", high, low), b.number(count - 1, compute))
        forward = moved("add", low, step, cast(IndexValue(i[0]), compute))
        backward = moved("sub", high, step, cast(IndexValue(count - 1 - i[0]), compute))
        half = apply("lt", IndexValue(i[0]), IndexValue(count // 2))
        return cast(where(half, forward, backward), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.logspace.default")
def logspace(b: Builder, start: Operand, end: Operand, steps: Any, base: float = 10.0, **_: Any) -> Value:
    """Powers of a base from both ends; an integer is cut from a float64 that is whole where the power is."""
    whole, count = b.dtype.is_integer, b.shape[0]
    compute = F64 if whole else opmath(b.dtype)

    def power(exponent: Scalar) -> Scalar:
        value = apply("pow", literal(base, compute), cast(exponent, compute))
        if not whole:
            return cast(value, b.dtype)
        near = apply("round", value)
        miss = apply("abs", apply("sub", value, near))
        close = apply("le", miss, apply("mul", apply("abs", near), literal(1e-12, compute)))
        return cast(where(close, near, value), b.dtype)

    def body(i: tuple[Any, ...]) -> Scalar:
        middle = F32 if whole else compute  # torch keeps the step between integers in float32
        low, high = (cast(b.number(n, b.dtype), middle) if whole else b.number(n, middle) for n in (start, end))
        if count == 1:
            return power(low)
        step = apply("div", apply("sub", high, low), b.number(count - 1, middle))
        forward = apply("add", low, apply("mul", step, cast(IndexValue(i[0]), middle)))
        backward = apply("sub", high, apply("mul", step, cast(IndexValue(count - 1 - i[0]), middle)))
        half = apply("lt", IndexValue(i[0]), IndexValue(count // 2))
        return power(where(half, forward, backward))

    return b.compute(b.shape, body)


@lower("aten.tril_indices.default", "aten.triu_indices.default")
def triangle_indices(b: Builder, rows: int, columns: int, offset: int = 0, **_: Any) -> Value:
    """The row and column of every entry of a triangle, listed row by row: a small table known while compiling."""
    lower_part = "tril" in b.target
    pairs = [
        (i, j) for i in range(rows) for j in range(columns) if (j - i <= offset if lower_part else j - i >= offset)
    ]
    if len(pairs) > 4096:
        raise b.unsupported("a table of more than 4096 indices", "use torch.tril or a comparison of aranges")

    def body(i: tuple[Any, ...]) -> Scalar:
        result: Scalar = literal(0, b.dtype)
        for position, pair in enumerate(pairs):
            here = apply("eq", IndexValue(i[1]), IndexValue(index(position)))
            row = apply("eq", IndexValue(i[0]), IndexValue(index(0)))
            result = where(here, where(row, literal(pair[0], b.dtype), literal(pair[1], b.dtype)), result)
        return result

    return b.compute(b.shape, body)
