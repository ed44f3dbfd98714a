"""Activation functions, written as the formulas of torch's documentation."""

from __future__ import annotations

import math

from codesign.frontend.lowering.builder import Builder, Operand, literal, where
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value
from codesign.ir.scalar import Scalar, apply


def _positive(a: Scalar) -> Scalar:
    return apply("gt", a, literal(0, a.dtype))


def sigmoid_of(a: Scalar) -> Scalar:
    """1 / (1 + exp(-a))."""
    one = literal(1, a.dtype)
    return apply("div", one, apply("add", one, apply("exp", apply("neg", a))))


@lower("aten.sigmoid.default")
def sigmoid(b: Builder, x: Value) -> Value:
    return b.pointwise(sigmoid_of, x, compute=opmath(b.dtype))


@lower("aten.silu.default")
def silu(b: Builder, x: Value) -> Value:
    return b.pointwise(lambda a: apply("mul", a, sigmoid_of(a)), x, compute=opmath(b.dtype))


@lower("aten.silu_backward.default")
def silu_backward(b: Builder, gradient: Value, x: Value) -> Value:
    """Of x s(x), s the sigmoid: s (1 + x (1 - s))."""

    def of(g: Scalar, a: Scalar) -> Scalar:
        one, s = literal(1, a.dtype), sigmoid_of(a)
        slope = apply("mul", s, apply("add", one, apply("mul", a, apply("sub", one, s))))
        return apply("mul", g, slope)

    return b.pointwise(of, gradient, x, compute=opmath(b.dtype))


@lower("aten.relu.default")
def relu(b: Builder, x: Value) -> Value:
    compute = opmath(b.dtype)
    return b.pointwise(lambda a: apply("max", a, literal(0, compute)), x, compute=compute)


@lower("aten.hardtanh.default", "aten.relu6.default")
def hardtanh(b: Builder, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    compute = opmath(b.dtype)
    if "relu6" in b.target:
        low, high = 0.0, 6.0
    return b.pointwise(
        lambda a: apply("min", apply("max", a, literal(low, compute)), literal(high, compute)), x, compute=compute
    )


@lower("aten.leaky_relu.default")
def leaky_relu(b: Builder, x: Value, slope: float = 0.01) -> Value:
    compute = opmath(b.dtype)
    return b.pointwise(lambda a: where(_positive(a), a, apply("mul", a, literal(slope, compute))), x, compute=compute)


@lower("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(b: Builder, x: Value, weight: Value) -> Value:
    """The weight already has the shape of x, or broadcasts to it."""
    return b.pointwise(lambda a, w: where(_positive(a), a, apply("mul", w, a)), x, weight, compute=opmath(b.dtype))


@lower("aten.elu.default")
def elu(b: Builder, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    compute = opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        inner = a if input_scale == 1 else apply("mul", a, literal(input_scale, compute))
        below = apply("mul", literal(alpha * scale, compute), apply("expm1", inner))
        above = a if scale == 1 else apply("mul", a, literal(scale, compute))
        return where(apply("le", a, literal(0, compute)), below, above)

    return b.pointwise(body, x, compute=compute)


@lower("aten.gelu.default")
def gelu(b: Builder, x: Value, *, approximate: str = "none") -> Value:
    compute = opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        half, one = literal(0.5, compute), literal(1, compute)
        if approximate == "tanh":
            cube = apply("mul", apply("mul", a, a), a)
            inner = apply(
                "mul",
                literal(math.sqrt(2 / math.pi), compute),
                apply("add", a, apply("mul", literal(0.044715, compute), cube)),
            )
            bend = apply("tanh", inner)
        else:
            bend = apply("erf", apply("mul", a, literal(math.sqrt(0.5), compute)))
        return apply("mul", apply("mul", half, a), apply("add", one, bend))

    return b.pointwise(body, x, compute=compute)


@lower("aten.softplus.default")
def softplus(b: Builder, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    compute = opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        scaled = apply("mul", a, literal(beta, compute))
        soft = apply("div", apply("log1p", apply("exp", scaled)), literal(beta, compute))
        return where(apply("gt", scaled, literal(threshold, compute)), a, soft)

    return b.pointwise(body, x, compute=compute)


@lower("aten.hardsigmoid.default")
def hardsigmoid(b: Builder, x: Value) -> Value:
    return b.pointwise(_hard_gate, x, compute=opmath(b.dtype))


@lower("aten.hardswish.default")
def hardswish(b: Builder, x: Value) -> Value:
    return b.pointwise(lambda a: apply("mul", a, _hard_gate(a)), x, compute=opmath(b.dtype))


def _hard_gate(a: Scalar) -> Scalar:
    """min(max(a + 3, 0), 6) / 6."""
    kind = a.dtype
    clipped = apply("min", apply("max", apply("add", a, literal(3, kind)), literal(0, kind)), literal(6, kind))
    return apply("div", clipped, literal(6, kind))


@lower("aten.mish.default")
def mish(b: Builder, x: Value) -> Value:
    return b.pointwise(
        lambda a: apply("mul", a, apply("tanh", apply("log1p", apply("exp", a)))), x, compute=opmath(b.dtype)
    )


@lower("aten.mish_backward.default")
def mish_backward(b: Builder, gradient: Value, x: Value) -> Value:
    """Of x t(x), t the tanh of softplus: t + x s (1 - t^2), s the sigmoid."""

    def of(g: Scalar, a: Scalar) -> Scalar:
        t = apply("tanh", apply("log1p", apply("exp", a)))
        rest = apply("sub", literal(1, a.dtype), apply("mul", t, t))
        return apply("mul", g, apply("add", t, apply("mul", apply("mul", a, sigmoid_of(a)), rest)))

    return b.pointwise(of, gradient, x, compute=opmath(b.dtype))


@lower("aten.log_sigmoid_forward.default")
def log_sigmoid(b: Builder, x: Value) -> tuple[Value, Value]:
    """min(a, 0) - log1p(exp(-|a|)); the second result is a buffer that only the CPU's backward reads."""
    compute = opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        tail = apply("log1p", apply("exp", apply("neg", apply("abs", a))))
        return apply("sub", apply("min", a, literal(0, compute)), tail)

    buffer = b.types[1]
    assert buffer is not None
    empty = b.compute(buffer.shape, lambda i: literal(0, buffer.dtype), name=f"{b.name}_buffer")
    return b.pointwise(body, x, compute=compute), empty


@lower("aten.threshold.default")
def threshold(b: Builder, x: Value, limit: Operand, value: Operand) -> Value:
    compute = opmath(b.dtype)
    return b.pointwise(
        lambda a: where(apply("le", a, b.number(limit, compute)), b.number(value, compute), a), x, compute=compute
    )


@lower("aten.hardshrink_backward.default", "aten.softshrink_backward.default")
def shrink_backward(b: Builder, grad: Value, x: Value, lambd: float) -> Value:
    compute = opmath(b.dtype)

    def body(g: Scalar, a: Scalar) -> Scalar:
        inside = apply("and", apply("ge", a, literal(-lambd, compute)), apply("le", a, literal(lambd, compute)))
        return where(inside, literal(0, compute), g)

    return b.pointwise(body, grad, x, compute=compute)


@lower("aten.hardshrink.default", "aten.softshrink.default")
def shrink(b: Builder, x: Value, lambd: float = 0.5) -> Value:
    hard, compute = "hard" in b.target, opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        zero, edge = literal(0, compute), literal(lambd, compute)
        above = a if hard else apply("sub", a, edge)
        below = a if hard else apply("add", a, edge)
        near = apply("mul", a, zero)  # keeps NaN
        return where(apply("gt", a, edge), above, where(apply("lt", a, literal(-lambd, compute)), below, near))

    return b.pointwise(body, x, compute=compute)
